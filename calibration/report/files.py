"""The table of files: accuracy and speed side by side, as one is bought with the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sfpp.calibration.recommend import DEFAULT_LIMIT
from sfpp.calibration.report.words import (
    DASH,
    Words,
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
from sfpp.tooling.metrics import Accuracy
from sfpp.tooling.page import Cell, Column, Html, Page, Row, Tone, bullets, chip, element, joined, paragraph, table

# Without a limit of the user's, what is lost is judged by these: points of the metric, or per cent of the answers.
_LITTLE, _MUCH = DEFAULT_LIMIT, 4 * DEFAULT_LIMIT
# Below this ratio a file is called slower; closer to 1 is noise.
_SLOWER = 0.97


def add_files(page: Page, report: CalibrationReport) -> None:
    """Add the table of the files, and why those failed that did."""
    section = page.section("Accuracy and speed")
    frames = report.frames
    kind = "of the frames that it was calibrated with" if frames.overlapping else "held-out frames"
    against = "their truth" if frames.with_truth else f"the {words(report).answers} of FP32"
    caption = f"Accuracy on {frames.held_out} {kind}, against {against}; time of the network alone"
    section.add(table(_columns(report), _rows(report), caption=caption, tones=_tones(report)))
    if failures := failure_lines(report):
        section.add(paragraph("What failed:"), bullets(failures))


def failure_lines(report: CalibrationReport) -> list[str]:
    """Return a line for each file that failed on a backend."""
    return [
        f"{label} on {latency.backend}: {latency.failure}"
        for label, file in zip(file_labels(report), report.files, strict=True)
        for latency in file.latencies
        if latency.failure
    ]


def drop_tone(drop: float | None, max_drop: float | None) -> Tone:
    """Return what a drop means to the reader, by the limit that was given, else by ours."""
    if not is_finite(drop):
        return ""
    if max_drop is not None:
        return "good" if drop <= max_drop else "bad"
    return "good" if drop <= _LITTLE else "warn" if drop <= _MUCH else "bad"


def _tones(report: CalibrationReport) -> dict[Tone, str]:
    unit = words(report).drop_unit
    slower = "slower than FP32"
    if report.max_drop is not None:
        limit = f"the limit of {number(report.max_drop)} {unit}"
        return {"good": f"within {limit}", "warn": slower, "bad": f"beyond {limit}, or failed to run"}
    return {
        "good": f"loses at most {_LITTLE:g} {unit}",
        "warn": f"loses up to {_MUCH:g} {unit}, or is {slower}",
        "bad": "loses more, or failed to run",
    }


def _columns(report: CalibrationReport) -> list[Column]:
    size = Column("size", "MB", "of the file, in 10\u2076 bytes", best="lowest")
    columns = [Column("file", numeric=False), *_accuracy_columns(words(report)), size]
    for backend in backends(report):
        time = "median (p50) over many runs of the network alone"
        speed = "how many times as fast as FP32 on the same backend"
        columns.append(Column("time", "ms", time, group=backend, best="lowest"))
        columns.append(Column("speed", "\u00d7 FP32", speed, group=backend))
    return columns


def _accuracy_columns(unit: Words) -> list[Column]:
    columns = []
    if unit.metric:
        columns.append(Column(unit.metric, "%", _METRICS[unit.metric], best="highest"))
    drop = f"what {unit.metric} loses against FP32; negative where it gains" if unit.metric else _DIFFERENT
    columns.append(Column("drop", unit.drop_unit, drop))
    if unit.answers == "keypoints":
        return [*columns, Column("agreement", "%", "keypoints within 2 % of the person's box of where FP32 sees them")]
    outlines = f"F-score of the classes' outlines against {'the truth' if unit.metric else 'those of FP32'}"
    return [
        *columns,
        Column("agreement", "%", "labels equal to FP32's"),
        Column("boundary F", "%", outlines, best="highest"),
    ]


_METRICS = {
    "mIoU": "intersection over union with the truth, averaged over the classes",
    "PCK": "keypoints within 0.2 torsos of the truth",
}
_DIFFERENT = "answers that differ from FP32's"


def _rows(report: CalibrationReport) -> list[Row]:
    rows = []
    for index, (label, file) in enumerate(zip(file_labels(report), report.files, strict=True)):
        rows.append(_row(report, index, label))
        if file.rounded is not None:
            rows.append(_rounded_row(report, file, file.rounded))
    return rows


def _row(report: CalibrationReport, index: int, label: str) -> Row:
    file, chosen = report.files[index], recommended(report) == index
    name = Cell(joined([label, " ", chip("recommended")]) if chosen else label, note=_file_note(file))
    # The float32 file is what the others are judged by, so that it is neither good nor bad.
    tone = drop_tone(file.drop, report.max_drop) if index else ""
    accuracy = _accuracy_cells(file.accuracy, file.drop, words(report), tone=tone)
    size = Cell(megabytes(file.size_bytes, size_digits(report)), value=file.size_bytes)
    return Row([name, *accuracy, size, *_speed_cells(report, file)], strong=chosen)


def _rounded_row(report: CalibrationReport, file: FileResult, rounded: Accuracy) -> Row:
    """Return the row below FP16's: the same file, so it has no size and time of its own, nor competes with others."""
    tone = drop_tone(file.drop_rounded, report.max_drop)
    cells = _accuracy_cells(rounded, file.drop_rounded, words(report), tone=tone)
    name = Cell("as a GPU stores it", note="every value rounded to float16")
    blank = [Cell("")] * (1 + 2 * len(backends(report)))
    return Row([name, *(replace(cell, value=None) for cell in cells), *blank], follows=True)


def _file_note(file: FileResult) -> Html:
    facts = [f"ranges by {file.method}"] if file.method else []
    facts += [f"rest in {file.rest.upper()}"] if file.rest else []
    return joined([file.path.name, ", ".join(facts)] if facts else [file.path.name], separator=element("br"))


def _accuracy_cells(accuracy: Accuracy, drop: float | None, unit: Words, *, tone: Tone) -> list[Cell]:
    cells = [_percent_cell(accuracy.against_truth)] if unit.metric else []
    cells += [Cell(number(drop), tone=tone), Cell(percent(accuracy.agreement))]
    if unit.answers == "labels":
        cells.append(_percent_cell(accuracy.boundary_f))
    return cells


def _percent_cell(fraction: float | None) -> Cell:
    return Cell(percent(fraction), value=fraction)


def _speed_cells(report: CalibrationReport, file: FileResult) -> list[Cell]:
    cells = []
    for backend in backends(report):
        # The same decimals in all rows, so that the eye can compare lengths.
        digits = common_digits(_times_ms(report.files, backend))
        found = next((latency for latency in file.latencies if latency.backend == backend), None)
        if found is None:
            cells += [Cell(DASH), Cell(DASH)]
        elif found.failure:
            cells += [Cell("failed", tone="bad"), Cell(DASH)]
        else:
            slower = found.speedup is not None and found.speedup < _SLOWER
            cells.append(Cell(number(found.p50_ms, digits), value=found.p50_ms))
            cells.append(Cell(number(found.speedup), tone="warn" if slower else ""))
    return cells


def _times_ms(files: Sequence[FileResult], backend: str) -> list[float | None]:
    return [latency.p50_ms for file in files for latency in file.latencies if latency.backend == backend]
