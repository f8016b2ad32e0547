"""What the parts have in common: their results, and this process's resources."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Part(Protocol):
    """What a part has found out; a dataclass."""

    def sentence(self) -> str:
        """Return it in words."""


@dataclass(frozen=True)
class Resources:
    """What this process holds: resident memory in MB, threads, and open file handles."""

    memory_mb: float
    threads: int
    handles: int


def resources() -> Resources:
    """Return what this process holds now; Linux only."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    memory_mb = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return Resources(round(memory_mb, 1), threading.active_count(), len(list(Path("/proc/self/fd").iterdir())))
