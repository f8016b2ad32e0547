"""The report of a calibration as a page for people: what to use here, and every figure behind that."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.calibration.recommend import DEFAULT_LIMIT, fastest
from sfpp.calibration.results import CalibrationReport, FileResult, Kept, LayerHistogram, Sensitivity
from sfpp.calibration.summary import (
    Words,
    backends,
    budget_verdict,
    failure_lines,
    finding,
    recommended,
    size_text,
    words,
)
from sfpp.runtime.contract import ModelContract
from sfpp.tooling.figures import DASH, SPACE, common_digits, is_finite, number, percent, seconds_text, small_percent
from sfpp.tooling.metrics import Accuracy
from sfpp.tooling.page import Bar, Cell, Column, Row, Tile, Tone, render, write_page

_TEMPLATE = Path(__file__).parent / "templates" / "calibration.html"
_GIBIBYTE = 2**30
# Without a limit of the user's, what is lost is colored by these: points of the metric, or per cent of the labels.
_LITTLE, _MUCH = DEFAULT_LIMIT, 4 * DEFAULT_LIMIT
# Below this ratio a file is called slower; closer to 1 is noise.
_SLOWER = 0.97
# Points that a class loses: what is worth a look, and what is worth a thought. A class varies more than the mean.
_NOTABLE, _LARGE = 1.0, 3.0
_METRICS = {
    "mIoU": "intersection over union with the truth, averaged over the classes",
    "PCK": "keypoints within 0.2 torsos of the truth",
}
_CLASS_TONES: dict[Tone, str] = {
    "warn": f"loses more than {_NOTABLE:g} point",
    "bad": f"loses more than {_LARGE:g} points",
    "muted": f"{DASH} does not occur in these frames",
}


def write_report(report: CalibrationReport, path: str | os.PathLike[str]) -> None:
    """Write the report as one HTML file that needs nothing else; the same report gives the same bytes.

    Raises:
        SfppError: the folder does not exist, or the disk is full.
        MissingDependencyError: there are pictures, and OpenCV is not installed.
    """
    write_page(path, report_page(report))


def report_page(report: CalibrationReport) -> str:
    """Return the page, the decision first and what it rests on after it."""
    contract, unit = report.contract, words(report)
    version = f" {contract.sfpp_version}" if contract.sfpp_version else ""
    return render(
        _TEMPLATE,
        title=f"Calibration of {report.model.name}",
        subtitle=_subtitle(contract),
        footer=f"Made by sfpp-calibrate{version}.",
        report=report,
        unit=unit,
        finding=finding(report),
        tiles=_tiles(report),
        budget=None if report.max_drop is None else budget_verdict(report),
        columns=_columns(report),
        rows=_rows(report),
        tones=_tones(report),
        failures=failure_lines(report),
        class_columns=_class_columns(report, unit),
        class_rows=_class_rows(report),
        class_tones=_CLASS_TONES,
        parts={
            "parts": [_sensitivity_bar(each) for each in report.sensitivity],
            "nodes": [_sensitivity_bar(each) for each in report.suspects],
        },
        # Of all parts: what is folded away is drawn to the same scale.
        largest=max(
            # Of frames in which nobody is found there is none.
            filter(math.isfinite, (each.disagreement for each in (*report.sensitivity, *report.suspects))),
            default=0.0,
        ),
        kept_columns=[Column(each, numeric=each == "parts") for each in ("file", "why", "parts", "which")],
        kept=_kept_rows(report),
        missing=not_measured(report),
        machine=[
            (name.removesuffix("_bytes").replace("_", " "), _fact(name, each)) for name, each in report.machine.items()
        ],
        steps=[Bar(name, value, seconds_text(value)) for name, value in report.seconds.items()],
        total=seconds_text(sum(report.seconds.values())),
        number=number,
        clipped=lambda layer: small_percent(clipped_share(layer)),
        small_percent=small_percent,
    )


def _subtitle(contract: ModelContract) -> str:
    """Return what kind of model it is, as people say it: sizes are width x height."""
    keypoints = len(contract.keypoints.names) if contract.keypoints else 0
    outputs = f"{keypoints} keypoints" if contract.task == "pose" else f"{len(contract.classes)} classes"
    network = " ".join(part for part in (contract.family, contract.size, contract.variant) if part)
    size = f"{contract.input.width}\u00d7{contract.input.height}"
    return " \u00b7 ".join([network, f"{contract.task}, {outputs}", size])


def _tiles(report: CalibrationReport) -> list[Tile]:
    file, reference, unit = recommended(report), report.files[0], words(report)
    is_made, entries = file is not reference, []
    if unit.metric:
        note = f"{number(abs(file.drop))} points {'below' if file.drop >= 0 else 'above'} FP32" if is_made else ""
        entries.append(Tile(unit.metric, f"{percent(file.accuracy.against_truth)}{SPACE}%", note))
    if is_made:
        name = f"{unit.labels.capitalize()} as FP32's"
        entries.append(Tile(name, f"{percent(file.accuracy.agreement)}{SPACE}%", f"{report.frames.held_out} frames"))
    if (best := fastest(file)) is not None:
        ratio = f", {number(best.speedup)}\u00d7 FP32 there" if is_made and best.speedup is not None else ""
        time = f"{number(best.p50_ms, common_digits([best.p50_ms]))}{SPACE}ms"
        entries.append(Tile("Latency", time, f"{best.backend}{ratio}"))
    note = f"{percent(file.size_bytes / reference.size_bytes, 0)}{SPACE}% of FP32's" if is_made else ""
    return [*entries, Tile("File", f"{size_text(report, file)}{SPACE}MB", note)]


def drop_tone(drop: float, max_drop: float | None) -> Tone:
    """Return what a drop means to the reader, by the limit that was given, else by ours."""
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
    columns = [Column(unit.metric, "%", _METRICS[unit.metric], best="highest")] if unit.metric else []
    lost = f"what {unit.metric} loses against FP32; negative where it gains" if unit.metric else ""
    columns.append(Column("drop", unit.drop_unit, lost or f"{unit.labels} that differ from FP32's"))
    if unit.labels == "keypoints":
        return [*columns, Column("agreement", "%", "keypoints within 2 % of the person's box of where FP32 sees them")]
    outlines = f"F-score of the classes' outlines against {'the truth' if unit.metric else 'those of FP32'}"
    same = Column("agreement", "%", "labels equal to FP32's")
    return [*columns, same, Column("boundary F", "%", outlines, best="highest")]


def _rows(report: CalibrationReport) -> list[Row]:
    rows = []
    for index, file in enumerate(report.files):
        is_chosen = file is recommended(report)
        facts = [f"ranges by {file.method}"] if file.method else []
        facts += [f"rest in {file.rest.upper()}"] if file.rest else []
        note = [file.path.name, ", ".join(facts)] if facts else [file.path.name]
        name = Cell(file.precision.upper(), note=note, chip="recommended" if is_chosen else "")
        # The float32 file is what the others are compared with, so that it is neither good nor bad.
        tone = drop_tone(file.drop, report.max_drop) if index else ""
        accuracy = _accuracy_cells(file.accuracy, file.drop, words(report), tone=tone)
        size = Cell(size_text(report, file), value=file.size_bytes)
        rows.append(Row([name, *accuracy, size, *_speed_cells(report, file)], strong=is_chosen))
        if file.rounded is not None and file.drop_rounded is not None:
            rows.append(_rounded_row(report, file.rounded, file.drop_rounded))
    return rows


def _rounded_row(report: CalibrationReport, rounded: Accuracy, drop: float) -> Row:
    """Return the row below FP16's: the same file, so it has no size and time of its own, nor competes with others."""
    cells = _accuracy_cells(rounded, drop, words(report), tone=drop_tone(drop, report.max_drop))
    name = Cell("as a GPU stores it", note=["every value rounded to float16"])
    blank = [Cell("")] * (1 + 2 * len(backends(report)))
    return Row([name, *(replace(cell, value=None) for cell in cells), *blank], follows=True)


def _accuracy_cells(accuracy: Accuracy, drop: float, unit: Words, *, tone: Tone) -> list[Cell]:
    cells = [Cell(percent(accuracy.against_truth), value=accuracy.against_truth)] if unit.metric else []
    cells += [Cell(number(drop), tone=tone), Cell(percent(accuracy.agreement))]
    if unit.labels == "labels":
        cells.append(Cell(percent(accuracy.boundary_f), value=accuracy.boundary_f))
    return cells


def _speed_cells(report: CalibrationReport, file: FileResult) -> list[Cell]:
    cells = []
    for index, found in enumerate(file.latencies):
        if found.failure:
            cells += [Cell("failed", tone="bad"), Cell(DASH)]
            continue
        # The same decimals in all rows, so that the eye can compare lengths.
        digits = common_digits(other.latencies[index].p50_ms for other in report.files)
        slower = found.speedup is not None and found.speedup < _SLOWER
        cells.append(Cell(number(found.p50_ms, digits), value=found.p50_ms))
        cells.append(Cell(number(found.speedup), tone="warn" if slower else ""))
    return cells


def _class_columns(report: CalibrationReport, unit: Words) -> list[Column]:
    columns = [Column(unit.one, numeric=False)]
    for index, file in enumerate(report.files):
        label = file.precision.upper()
        columns.append(Column(unit.score, "%", group=label))
        if index:
            columns.append(Column("drop", "points", "against FP32; negative where it gains", group=label))
    return columns


def _class_rows(report: CalibrationReport) -> list[Row]:
    """Return a row for each class or keypoint, those that lose most first; nothing without truth."""
    known = [file.accuracy.pck_by_keypoint or file.accuracy.iou_by_class for file in report.files]
    names = list(dict.fromkeys(name for each in known for name in each))
    scores = np.array([[each.get(name, math.nan) for name in names] for each in known])
    drops = 100 * (scores[0] - scores[1:])
    # By loss rather than by name: who looks at 150 classes looks for those that suffer. What does not occur comes last.
    order = np.lexsort((-np.fmax.reduce(drops, initial=-math.inf), np.isnan(scores).all(axis=0)))
    return [
        Row([names[index], _score_cell(scores[0, index]), *_class_cells(scores[1:, index], drops[:, index])])
        for index in order
    ]


def _class_cells(scores: NDArray[np.float64], drops: NDArray[np.float64]) -> Iterator[Cell]:
    for score, drop in zip(scores, drops, strict=True):
        tone: Tone = "bad" if drop > _LARGE else "warn" if drop > _NOTABLE else ""
        yield _score_cell(score)
        yield Cell(number(drop), tone="muted" if math.isnan(drop) else tone)


def _score_cell(score: float) -> Cell:
    return Cell(percent(score), tone="muted" if math.isnan(score) else "")


def _sensitivity_bar(part: Sensitivity) -> Bar:
    changed = f"{number(part.disagreement)}{SPACE}%" if is_finite(part.disagreement) else DASH
    more = small_percent(part.error), str(part.nodes)
    tag = "kept out of INT8" if part.kept else ""
    return Bar(part.name, part.disagreement, changed, more=more, tag=tag, is_code=True)


def clipped_share(layer: LayerHistogram) -> float | None:
    """Return the share, 0..1, of values above the threshold, going by the middle of their bins; None without values."""
    total = int(layer.counts.sum())
    if not total:
        return None
    middles = (np.arange(len(layer.counts)) + 0.5) * layer.largest / len(layer.counts)
    return float(layer.counts[middles > layer.threshold].sum() / total)


def _kept_rows(report: CalibrationReport) -> list[Row]:
    return [
        Row([file.precision.upper(), reason, str(len(names)), Cell("", names=names)])
        for file in report.files
        for reason, names in _by_reason(file.kept).items()
    ]


def _by_reason(kept: Sequence[Kept]) -> dict[str, list[str]]:
    # Hundreds of nodes may share a handful of reasons.
    groups: dict[str, list[str]] = {}
    for part in kept:
        groups.setdefault(part.reason, []).append(part.name)
    return groups


def _fact(name: str, value: Any) -> str:
    if value in (None, ""):
        return DASH
    if name.endswith("_bytes") and isinstance(value, int | float):
        return f"{value / _GIBIBYTE:.1f} GiB"
    if isinstance(value, list | tuple):
        return ", ".join(_fact("", each) for each in value) or DASH
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_fact(str(key), each)}" for key, each in value.items()) or DASH
    return str(value)


def not_measured(report: CalibrationReport) -> list[str]:
    """Return what a reader might look for in vain, and why it is not there, in the order of the page."""
    unit, made = words(report), {file.precision for file in report.files}
    metric = "PCK" if unit.labels == "keypoints" else "mIoU"
    cases = [
        *((each not in made, f"{each.upper()}: no such file was made.") for each in ("fp16", "int8")),
        (not unit.metric, f"{metric}, and {unit.score} by {unit.one}: there is no truth for the frames."),
        (report.max_drop is None, "A limit: none was given for what INT8 may lose, so there is no verdict on it."),
        (not backends(report), "Latency: nothing was timed, so the recommendation rests on accuracy and size alone."),
    ]
    return [line for applies, line in cases if applies]
