"""Width x height, as people say 3840x2160."""

from __future__ import annotations

import re
from typing import NamedTuple

from sfpp.runtime.errors import UsageError

MAX_SIDE = 16384


class Resolution(NamedTuple):
    """A frame size in pixels, width first; as text ``3840x2160``."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def resolution_from(value: str | tuple[int, int]) -> Resolution:
    """Read ``"3840x2160"`` or ``(3840, 2160)``, width first.

    Raises:
        UsageError: not two whole numbers, or a side outside 1..16384.
    """
    width, height = _sides(value)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise UsageError(
            f"--res is {width}x{height} (width x height), expected 1 to {MAX_SIDE} pixels on each side, "
            "such as 3840x2160"
        )
    return Resolution(width, height)


def _sides(value: object) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,9})\s*[xX]\s*(\d{1,9})\s*", value) if isinstance(value, str) else None
    if match is not None:
        return int(match[1]), int(match[2])
    # A list is what JSON and argument parsers make of a pair.
    if isinstance(value, tuple | list) and len(value) == 2 and all(type(side) is int for side in value):
        return value[0], value[1]
    raise UsageError(f"--res is {value!r}, expected WIDTHxHEIGHT in pixels, such as 3840x2160")
