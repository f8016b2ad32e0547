"""The report in a few lines, for the terminal."""

from __future__ import annotations

import os
import textwrap

from sfpp.calibration.report.files import failure_lines
from sfpp.calibration.report.head import budget_verdict, finding
from sfpp.calibration.report.words import (
    DASH,
    SPACE,
    backends,
    common_digits,
    file_labels,
    is_finite,
    megabytes,
    number,
    percent,
    recommended,
    size_digits,
    words,
)
from sfpp.calibration.results import CalibrationReport, FileResult
from sfpp.runtime.text import clean_text
from sfpp.tooling.metrics import Accuracy

_WIDTH = 100
_FAILURES = 3


def summary_lines(report: CalibrationReport, *, page: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the table of files, the recommendation, and where to find the page, if it was written.

    Args:
        report: what was found.
        page: where the whole report lies.
    """
    lines = [*_table(report), ""]
    lines += _wrapped(f"{finding(report)}. {report.recommendation.text}")
    if report.max_drop is not None:
        lines += _wrapped(" ".join(budget_verdict(report)))
    if report.frames.overlapping:
        lines += _wrapped("Judged on the frames that it was calibrated with: accuracy looks better than it is.")
    failures = failure_lines(report)
    lines += [_shortened(f"failed: {each}") for each in failures[:_FAILURES]]
    if len(failures) > _FAILURES:
        lines.append(f"failed: {len(failures) - _FAILURES} more, see the report")
    if page is not None:
        lines.append(f"report: {os.fspath(page)}")
    return [_plain(line) for line in lines]


def _table(report: CalibrationReport) -> list[str]:
    unit = words(report)
    # Without truth there is no such column, rather than one of dashes.
    metric = [f"{unit.metric} %"] if unit.metric else []
    header = ["file", *metric, f"drop, {unit.drop_unit}", "agree %", "MB", *(f"{name} ms" for name in backends(report))]
    rows = [header]
    chosen = recommended(report)
    for index, (label, file) in enumerate(zip(file_labels(report), report.files, strict=True)):
        name = f"{label} *" if index == chosen else label
        drop = file.drop if index else None
        rows.append(
            [
                name,
                *_accuracy(file.accuracy, drop, bool(metric)),
                megabytes(file.size_bytes, size_digits(report)),
                *_times(report, file),
            ]
        )
        if file.rounded is not None:
            cells = _accuracy(file.rounded, file.drop_rounded, bool(metric))
            rows.append(["  as a GPU stores it", *cells, *[""] * (len(header) - len(cells) - 1)])
    return _aligned(rows)


def _accuracy(accuracy: Accuracy, drop: float | None, with_metric: bool) -> list[str]:
    metric = [percent(accuracy.against_truth)] if with_metric else []
    return [*metric, number(drop), percent(accuracy.agreement)]


def _times(report: CalibrationReport, file: FileResult) -> list[str]:
    """Return the time on each backend, and in brackets how many times as fast as float32 that is."""
    cells = []
    for backend in backends(report):
        found = next((latency for latency in file.latencies if latency.backend == backend), None)
        if found is None or found.failure:
            cells.append("failed" if found else DASH)
            continue
        ratio = f" ({number(found.speedup)}x)" if is_finite(found.speedup) else ""
        cells.append(f"{number(found.p50_ms, common_digits([found.p50_ms]))}{ratio}")
    return cells


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        numbers = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
    return lines


def _wrapped(text: str) -> list[str]:
    # One word too long for a line is a path, which has to stay whole to be copied.
    return textwrap.wrap(_plain(text), _WIDTH, break_long_words=False, break_on_hyphens=False)


def _shortened(text: str) -> str:
    return textwrap.shorten(_plain(text), 2 * _WIDTH, placeholder=" ...")


def _plain(text: str) -> str:
    """Return one line of what any terminal can show; names of files may hold codes that command it."""
    for special, simple in ((DASH, "-"), ("\u2212", "-"), ("\u00d7", "x"), (SPACE, " ")):
        text = text.replace(special, simple)
    return clean_text(text).replace("\n", " ").replace("\r", " ").replace("\t", " ")
