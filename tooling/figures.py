"""Figures as reports write them, on pages and in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeGuard

from sfpp.runtime.text import clean_text

DASH = "\u2013"
_MINUS = "\u2212"
# Between a figure and its sign, where no line may end.
SPACE = "\u00a0"
_SMALLEST = 1e-5


def is_finite(value: float | None) -> TypeGuard[float]:
    """Whether there is a figure at all: neither None nor NaN nor infinite."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 2) -> str:
    """Return a figure with this many decimals, or a dash where there is none."""
    if not is_finite(value):
        return DASH
    text = f"{value:.{digits}f}"
    # What rounds to zero has no sign.
    return text.lstrip("-") if float(text) == 0 else text.replace("-", _MINUS)


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return a fraction in per cent, without the sign."""
    return number(None if fraction is None else 100 * fraction, digits)


def share(fraction: float | None) -> str:
    """Return a share in per cent, without the sign, that is not rounded up to all of it."""
    # "100 %" beside "DISAGREES" would be read as a mistake of the report.
    text = percent(fraction)
    return "99.99" if text == "100.00" and is_finite(fraction) and fraction < 1 else text


def small_percent(fraction: float | None) -> str:
    """Return a fraction that may be tiny in per cent, with two significant digits and the sign."""
    if not is_finite(fraction):
        return DASH
    if fraction == 0:
        return f"0{SPACE}%"
    if 0 < fraction < _SMALLEST:
        return f"<{SPACE}{100 * _SMALLEST:g}{SPACE}%"
    return f"{100 * fraction:#.2g}{SPACE}%" if fraction < 0.0995 else f"{100 * fraction:.0f}{SPACE}%"


def error(value: float | None) -> str:
    """Return an error in two digits, such as 1.2e-05, or a dash where there is none."""
    return DASH if value is None else f"{value:.1e}"


def common_digits(values: Iterable[float | None]) -> int:
    """Return the decimals for figures that stand under each other: enough for three digits of the largest."""
    largest = max((value for value in values if is_finite(value)), default=0.0)
    return 2 if largest < 10 else 1 if largest < 1000 else 0


def seconds_text(value: float) -> str:
    """Return a time that may be long: 0.84 s, 42 s, 3 min 20 s."""
    if not math.isfinite(value):
        return DASH
    if value < 120:
        return f"{value:.{2 if value < 10 else 0}f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def plain(text: str) -> str:
    """Return one line of what any terminal can show; names of files may hold codes that command it."""
    for special, simple in ((DASH, "-"), (_MINUS, "-"), ("\u00d7", "x"), (SPACE, " ")):
        text = text.replace(special, simple)
    return clean_text(text).replace("\n", " ").replace("\r", " ").replace("\t", " ")
