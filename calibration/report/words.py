"""The words and figures of a calibration's report: how each is written, on the page and in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard

from sfpp.calibration.results import CalibrationReport

DASH = "\u2013"
_MINUS = "\u2212"
# Between a figure and its sign, where no line may end.
SPACE = "\u00a0"
_SMALLEST = 1e-5
_MEGABYTE = 1e6


@dataclass(frozen=True)
class Words:
    """How a report names things, which depends on the task and on whether there is truth.

    Attributes:
        answers: what the model gives, in the plural.
        metric: the accuracy against the truth; empty without truth.
        one: what the metric is listed by.
        score: the metric of one of these.
    """

    answers: str
    metric: str
    one: str
    score: str

    @property
    def drop_unit(self) -> str:
        """What a drop is counted in."""
        return "points" if self.metric else f"% of {self.answers}"

    def drop(self, value: float) -> str:
        """Return a drop as the object of a sentence: 'loses ...'."""
        if self.metric:
            return f"{number(value)} points of {self.metric}"
        return f"{number(value)}{SPACE}% of the {self.answers}"


def words(report: CalibrationReport) -> Words:
    """Return how this report names things."""
    pose = report.contract.task == "pose"
    judged = any(file.accuracy.against_truth is not None for file in report.files)
    if pose:
        return Words("keypoints", "PCK" if judged else "", "keypoint", "PCK")
    return Words("labels", "mIoU" if judged else "", "class", "IoU")


def file_labels(report: CalibrationReport) -> list[str]:
    """Return a short name for each file: its precision, and what tells it from others of the same precision."""
    plain = [file.precision.upper() for file in report.files]
    labels = [
        _with(name, file.method) if plain.count(name) > 1 else name
        for name, file in zip(plain, report.files, strict=True)
    ]
    return [
        _with(name, file.path.name) if labels.count(name) > 1 else name
        for name, file in zip(labels, report.files, strict=True)
    ]


def _with(name: str, detail: str) -> str:
    return f"{name} ({detail})" if detail else name


def backends(report: CalibrationReport) -> list[str]:
    """Return the backends on which anything was timed, in the order of the files."""
    return list(dict.fromkeys(latency.backend for file in report.files for latency in file.latencies))


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


def small_percent(fraction: float | None) -> str:
    """Return a fraction that may be tiny in per cent, with two significant digits and the sign."""
    if not is_finite(fraction):
        return DASH
    if fraction == 0:
        return f"0{SPACE}%"
    if 0 < fraction < _SMALLEST:
        return f"<{SPACE}{100 * _SMALLEST:g}{SPACE}%"
    return f"{100 * fraction:#.2g}{SPACE}%" if fraction < 0.0995 else f"{100 * fraction:.0f}{SPACE}%"


def megabytes(size_bytes: int, digits: int) -> str:
    """Return a size in 10^6 bytes, without the unit."""
    return number(size_bytes / _MEGABYTE, digits)


def size_digits(report: CalibrationReport) -> int:
    """Return the decimals for the files' sizes."""
    return common_digits(file.size_bytes / _MEGABYTE for file in report.files)


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


def recommended(report: CalibrationReport) -> int | None:
    """Return the index of the file that is recommended; None if it is not among the files."""
    named = [index for index, file in enumerate(report.files) if file.precision == report.recommendation.precision]
    return named[0] if named else None
