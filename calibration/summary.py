"""The report of a calibration in a few lines, for the terminal, and the words that the page shares with it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from sfpp.calibration.results import CalibrationReport, FileResult, Latency
from sfpp.runtime.text import aligned
from sfpp.tooling.figures import SPACE, common_digits, number, percent, plain
from sfpp.tooling.metrics import Accuracy

_WIDTH = 100
_FAILURES = 3


@dataclass(frozen=True)
class Words:
    """How a report names things, which depends on the task and on whether there is truth.

    Attributes:
        labels: what the model predicts, in the plural.
        metric: the accuracy against the truth; empty without truth.
        one: what the metric is listed by.
        score: the metric of one of these.
    """

    labels: str
    metric: str
    one: str
    score: str

    @property
    def drop_unit(self) -> str:
        """What a drop is counted in."""
        return "points" if self.metric else f"% of {self.labels}"

    def drop(self, value: float) -> str:
        """Return a drop as the object of a sentence: 'loses ...'."""
        if self.metric:
            return f"{number(value)} points of {self.metric}"
        return f"{number(value)}{SPACE}% of the {self.labels}"


def words(report: CalibrationReport) -> Words:
    """Return how this report names things."""
    has_truth = any(file.accuracy.against_truth is not None for file in report.files)
    if report.contract.task == "pose":
        return Words("keypoints", "PCK" if has_truth else "", "keypoint", "PCK")
    return Words("labels", "mIoU" if has_truth else "", "class", "IoU")


def backends(report: CalibrationReport) -> list[str]:
    """Return the backends on which the files were timed, in the order of each file's latencies."""
    return [each.backend for each in report.files[0].latencies]


def size_text(report: CalibrationReport, file: FileResult) -> str:
    """Return a file's size in 10^6 bytes, with the decimals that all files' sizes have."""
    return number(file.size_bytes / 1e6, common_digits(each.size_bytes / 1e6 for each in report.files))


def recommended(report: CalibrationReport) -> FileResult:
    """Return the file that is recommended."""
    return next(each for each in report.files if each.precision == report.recommendation.precision)


def finding(report: CalibrationReport) -> str:
    """Return the recommendation in a few words."""
    precision = report.recommendation.precision
    if precision == "fp32":
        return "Keep FP32 here"
    # FP16 was made from a file that the reader knows; that INT8 was tried in vain is the news.
    refused = precision == "fp16" and any(file.precision == "int8" for file in report.files)
    return f"Use {precision.upper()} here{', not INT8' if refused else ''}"


def budget_verdict(report: CalibrationReport) -> tuple[str, str]:
    """Return whether INT8 lost no more than it was allowed to, in a sentence, and by which figures."""
    unit = words(report)
    limit = f"the limit is {unit.drop(report.max_drop or 0.0)}"
    file = next((each for each in report.files if each.precision == "int8"), None)
    if file is None:
        return "Nothing can be said on the limit for INT8.", f"No INT8 file was made; {limit}."
    title = "INT8 keeps to the limit." if report.budget_held else "INT8 does not keep to the limit."
    return title, f"INT8 {'loses' if file.drop >= 0 else 'gains'} {unit.drop(abs(file.drop))}; {limit}."


def failure_lines(report: CalibrationReport) -> list[str]:
    """Return a line for each file that failed on a backend."""
    return [
        f"{file.precision.upper()} on {latency.backend}: {latency.failure}"
        for file in report.files
        for latency in file.latencies
        if latency.failure
    ]


def summary_lines(report: CalibrationReport) -> list[str]:
    """Return the table of files and the recommendation."""
    lines = [*aligned(_rows(report)), ""]
    lines += _wrapped(f"{finding(report)}. {report.recommendation.text}")
    if report.max_drop is not None:
        lines += _wrapped(" ".join(budget_verdict(report)))
    if report.truth is not None:
        lines += _wrapped(f"Of the label images: {report.truth.text()}.")
    if report.frames.overlapping:
        lines += _wrapped("Evaluated on the frames that it was calibrated with: accuracy looks better than it is.")
    failures = failure_lines(report)
    lines += [
        textwrap.shorten(plain(f"failed: {each}"), 2 * _WIDTH, placeholder=" ...") for each in failures[:_FAILURES]
    ]
    if len(failures) > _FAILURES:
        lines.append(f"failed: {len(failures) - _FAILURES} more, see the report")
    return [plain(line) for line in lines]


def _rows(report: CalibrationReport) -> list[list[str]]:
    unit = words(report)
    # Without truth there is no such column, rather than one of dashes.
    metric = [f"{unit.metric} %"] if unit.metric else []
    header = ["file", *metric, f"drop, {unit.drop_unit}", "agree %", "MB", *(f"{name} ms" for name in backends(report))]
    rows = [header]
    for file in report.files:
        name = f"{file.precision.upper()}{' *' if file is recommended(report) else ''}"
        accuracy = _accuracy(file.accuracy, file.drop if file is not report.files[0] else None, bool(metric))
        rows.append([name, *accuracy, size_text(report, file), *map(_time, file.latencies)])
        if file.rounded is not None:
            cells = _accuracy(file.rounded, file.drop_rounded, bool(metric))
            rows.append(["  as a GPU stores it", *cells, *[""] * (len(header) - len(cells) - 1)])
    return [[plain(cell) if cell.strip() == cell else cell for cell in row] for row in rows]


def _accuracy(accuracy: Accuracy, drop: float | None, with_metric: bool) -> list[str]:
    metric = [percent(accuracy.against_truth)] if with_metric else []
    return [*metric, number(drop), percent(accuracy.agreement)]


def _time(latency: Latency) -> str:
    """Return the time, and in brackets how many times as fast as float32 that is."""
    if latency.failure:
        return "failed"
    ratio = "" if latency.speedup is None else f" ({number(latency.speedup)}x)"
    return f"{number(latency.p50_ms, common_digits([latency.p50_ms]))}{ratio}"


def _wrapped(text: str) -> list[str]:
    # One word too long for a line is a path, which has to stay whole to be copied.
    return textwrap.wrap(plain(text), _WIDTH, break_long_words=False, break_on_hyphens=False)
