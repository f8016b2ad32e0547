"""What the parts have in common: their results, this process's resources, and a model that takes its time."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime import Segmenter
from sfpp.runtime.backends.protocol import Arrays, FunctionBackend


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


def waiting(model: Segmenter, *, wait_s: float) -> Segmenter:
    """Return the model with its network replaced by a wait, as for a GPU; it answers always the same."""
    size = model.contract.input
    frame = np.zeros((size.height, size.width, 3), np.uint8)
    outputs = model.infer(model.prepare(frame))

    def wait(inputs: Arrays) -> dict[str, NDArray[Any]]:
        time.sleep(wait_s)
        return dict(outputs)

    return Segmenter(FunctionBackend(wait, metadata={}), model.contract)
