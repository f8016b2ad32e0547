"""The report of a calibration as a page for people: what to use here, and every figure behind that."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sfpp.calibration.recommend import DEFAULT_LIMIT, fastest
from sfpp.calibration.results import CalibrationReport, FileResult, LayerHistogram
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
from sfpp.runtime.files import write_text
from sfpp.tooling.figures import DASH, common_digits, number, percent, small_percent
from sfpp.tooling.metrics import Accuracy
from sfpp.tooling.page import Cell, Column, Row, Tone, render

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
_FILE = Column("file", numeric=False)
_SIZE = Column("size", "MB", "of the file, in 10\u2076 bytes", best="lowest")
# What a row has in each of its columns, in their order.
_Cells = dict[Column, Cell]


def write_report(report: CalibrationReport, path: str | os.PathLike[str]) -> None:
    """Write the report as one HTML file that needs nothing else; the same report gives the same bytes.

    Raises:
        SfppError: the folder does not exist, or the disk is full.
        MissingDependencyError: there are pictures, and OpenCV is not installed.
    """
    write_text(path, report_page(report))


def report_page(report: CalibrationReport) -> str:
    """Return the page, the decision first and what it rests on after it."""
    contract, chosen = report.contract, recommended(report)
    version = f" {contract.sfpp_version}" if contract.sfpp_version else ""
    return render(
        _TEMPLATE,
        title=f"Calibration of {report.model.name}",
        subtitle=_subtitle(contract),
        footer=f"Made by sfpp-calibrate{version}.",
        report=report,
        unit=words(report),
        finding=finding(report),
        chosen=chosen,
        fastest=fastest(chosen),
        size=size_text(report, chosen),
        budget=None if report.max_drop is None else budget_verdict(report),
        files=_table(_file_rows(report)),
        limits={"little": _LITTLE, "much": _MUCH, "notable": _NOTABLE, "large": _LARGE},
        failures=failure_lines(report),
        by_class=_table(_class_rows(report)),
        # Of all parts: what is folded away is drawn to the same scale.
        largest=max(
            # Of frames in which nobody is found there is none.
            filter(math.isfinite, (each.disagreement for each in (*report.sensitivity, *report.suspects))),
            default=0.0,
        ),
        missing=not_measured(report),
        machine_fact=_fact,
        clipped=lambda layer: small_percent(clipped_share(layer)),
    )


def _subtitle(contract: ModelContract) -> str:
    """Return what kind of model it is, as people say it: sizes are width x height."""
    keypoints = len(contract.keypoints.names) if contract.keypoints else 0
    outputs = f"{keypoints} keypoints" if contract.task == "pose" else f"{len(contract.classes)} classes"
    network = " ".join(part for part in (contract.family, contract.size, contract.variant) if part)
    size = f"{contract.input.width}\u00d7{contract.input.height}"
    return " \u00b7 ".join([network, f"{contract.task}, {outputs}", size])


def drop_tone(drop: float, max_drop: float | None) -> Tone:
    """Return what a drop means to the reader, by the limit that was given, else by ours."""
    if max_drop is not None:
        return "good" if drop <= max_drop else "bad"
    return "good" if drop <= _LITTLE else "warn" if drop <= _MUCH else "bad"


def _table(rows: Sequence[tuple[Mapping[Column, Cell], dict[str, bool]]]) -> tuple[list[Column], list[Row]]:
    """Return the columns of the first row, which has all, and the rows, which may lack some, with how they are set."""
    columns = list(rows[0][0]) if rows else []
    return columns, [Row([cells.get(each, Cell("")) for each in columns], **setting) for cells, setting in rows]


def _file_rows(report: CalibrationReport) -> list[tuple[_Cells, dict[str, bool]]]:
    rows: list[tuple[_Cells, dict[str, bool]]] = []
    for index, file in enumerate(report.files):
        is_chosen = file is recommended(report)
        facts = [f"ranges by {file.method}"] if file.method else []
        facts += [f"rest in {file.rest.upper()}"] if file.rest else []
        note = [file.path.name, ", ".join(facts)] if facts else [file.path.name]
        name = Cell(file.precision.upper(), note=note, chip="recommended" if is_chosen else "")
        # The float32 file is what the others are compared with, so that it is neither good nor bad.
        tone = drop_tone(file.drop, report.max_drop) if index else ""
        accuracy = _accuracy(file.accuracy, file.drop, words(report), tone=tone)
        size = Cell(size_text(report, file), value=file.size_bytes)
        rows.append(({_FILE: name, **accuracy, _SIZE: size, **_speed(report, file)}, {"strong": is_chosen}))
        if file.rounded is not None and file.drop_rounded is not None:
            # The same file, so it has no size and time of its own, nor competes with others.
            tone = drop_tone(file.drop_rounded, report.max_drop)
            accuracy = _accuracy(file.rounded, file.drop_rounded, words(report), tone=tone)
            name = Cell("as a GPU stores it", note=["every value rounded to float16"])
            cells = {_FILE: name, **{column: replace(cell, value=None) for column, cell in accuracy.items()}}
            rows.append((cells, {"follows": True}))
    return rows


def _accuracy(accuracy: Accuracy, drop: float, unit: Words, *, tone: Tone) -> _Cells:
    metric, labels = unit.metric, unit.labels
    cells: _Cells = {}
    lost = f"{labels} that differ from FP32's"
    if metric:
        column = Column(metric, "%", _METRICS[metric], best="highest")
        cells[column] = Cell(percent(accuracy.against_truth), value=accuracy.against_truth)
        lost = f"what {metric} loses against FP32; negative where it gains"
    cells[Column("drop", unit.drop_unit, lost)] = Cell(number(drop), tone=tone)
    near = "keypoints within 2 % of the person's box of where FP32 sees them"
    same = near if labels == "keypoints" else "labels equal to FP32's"
    cells[Column("agreement", "%", same)] = Cell(percent(accuracy.agreement))
    if labels == "labels":
        outlines = f"F-score of the classes' outlines against {'the truth' if metric else 'those of FP32'}"
        column = Column("boundary F", "%", outlines, best="highest")
        cells[column] = Cell(percent(accuracy.boundary_f), value=accuracy.boundary_f)
    return cells


def _speed(report: CalibrationReport, file: FileResult) -> _Cells:
    cells: _Cells = {}
    for index, (backend, found) in enumerate(zip(backends(report), file.latencies, strict=True)):
        # The same decimals in all rows, so that the eye can compare lengths.
        digits = common_digits(other.latencies[index].p50_ms for other in report.files)
        slower = found.speedup is not None and found.speedup < _SLOWER
        time, speed = Cell(number(found.p50_ms, digits), value=found.p50_ms), Cell(number(found.speedup))
        if found.failure:
            time, speed = Cell("failed", tone="bad"), Cell(DASH)
        median = "median (p50) over many runs of the network alone"
        cells[Column("time", "ms", median, group=backend, best="lowest")] = time
        ratio = "how many times as fast as FP32 on the same backend"
        cells[Column("speed", "\u00d7 FP32", ratio, group=backend)] = replace(speed, tone="warn") if slower else speed
    return cells


def _class_rows(report: CalibrationReport) -> list[tuple[_Cells, dict[str, bool]]]:
    """Return a row for each class or keypoint, those that lose most first; nothing without truth."""
    unit = words(report)
    known = [file.accuracy.pck_by_keypoint or file.accuracy.iou_by_class for file in report.files]
    names = list(dict.fromkeys(name for each in known for name in each))
    scores = np.array([[each.get(name, math.nan) for name in names] for each in known])
    drops = 100 * (scores[0] - scores)
    # By loss rather than by name: who looks at 150 classes looks for those that suffer. What does not occur comes last.
    order = np.lexsort((-np.fmax.reduce(drops[1:], initial=-math.inf), np.isnan(scores).all(axis=0)))
    rows: list[tuple[_Cells, dict[str, bool]]] = []
    for row in order:
        cells = {Column(unit.one, numeric=False): Cell(names[row])}
        for index, file in enumerate(report.files):
            label, score, drop = file.precision.upper(), float(scores[index, row]), float(drops[index, row])
            shown = Cell(percent(score), tone="muted" if math.isnan(score) else "")
            cells[Column(unit.score, "%", group=label)] = shown
            if index:
                tone: Tone = "bad" if drop > _LARGE else "warn" if drop > _NOTABLE else ""
                lost = Column("drop", "points", "against FP32; negative where it gains", group=label)
                cells[lost] = Cell(number(drop), tone="muted" if math.isnan(drop) else tone)
        rows.append((cells, {}))
    return rows


def clipped_share(layer: LayerHistogram) -> float | None:
    """Return the share, 0..1, of values above the threshold, going by the middle of their bins; None without values."""
    total = int(layer.counts.sum())
    if not total:
        return None
    middles = (np.arange(len(layer.counts)) + 0.5) * layer.largest / len(layer.counts)
    return float(layer.counts[middles > layer.threshold].sum() / total)


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
