"""Where results are kept, and how: beside every figure stands the machine that it was measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sfpp.runtime.files import write_text
from sfpp.runtime.machine import machine

__all__ = ["RESULTS", "machine", "points_text", "store"]

RESULTS = Path(__file__).parent / "results"


def points_text(points: float) -> str:
    """Return points of accuracy with their sign, and zero as ``0.00``, whatever it was rounded from."""
    return f"{rounded:+.2f}" if (rounded := round(points, 2)) else "0.00"


def store(path: Path, **content: Any) -> None:
    """Write a result with the machine's description, as JSON."""
    write_text(path, json.dumps({"machine": machine(), **content}, indent=1))
