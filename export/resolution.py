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
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,9})\s*[xX]\s*(\d{1,9})\s*", value)
        if match is None:
            raise UsageError(f"--res is {value!r}, expected WIDTHxHEIGHT in pixels, such as 3840x2160")
        value = (int(match[1]), int(match[2]))
    width, height = value
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise UsageError(
            f"--res is {width}x{height} (width x height), expected 1 to {MAX_SIDE} pixels on each side, "
            "such as 3840x2160"
        )
    return Resolution(int(width), int(height))
