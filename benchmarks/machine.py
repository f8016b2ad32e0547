"""Where results are kept, and how: beside every figure stands the machine that it was measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sfpp.runtime.files import write_text
from sfpp.runtime.machine import machine

__all__ = ["RESULTS", "machine", "store"]

RESULTS = Path(__file__).parent / "results"


def store(path: Path, **content: Any) -> None:
    """Write a result with the machine's description, as JSON."""
    write_text(path, json.dumps({"machine": machine(), **content}, indent=1))
