"""Accuracy by class or keypoint: an average hides the one that an application lives by."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sfpp.calibration.report.words import DASH, file_labels, number, percent, words
from sfpp.calibration.results import CalibrationReport
from sfpp.tooling.metrics import Accuracy
from sfpp.tooling.page import Cell, Column, Page, Row, Tone, folded, table

# More rows than this are folded away, which only happens to those that lose least.
_ROWS = 24
# Points that a class loses: what is worth a look, and what is worth a thought. A class varies more than the mean.
_NOTABLE, _LARGE = 1.0, 3.0


def add_classes(page: Page, report: CalibrationReport) -> None:
    """Add the table by class, those that lose most first; nothing without truth."""
    scores = [_scores(file.accuracy) for file in report.files]
    names = list(dict.fromkeys(name for each in scores for name in each))
    if not names:
        return
    unit = words(report)
    # By loss rather than by name: who looks at 150 classes looks for those that suffer.
    ordered = sorted(names, key=lambda name: _order(scores, name))
    columns = [Column(unit.one, numeric=False), *_columns(report, unit.score)]
    rows = [Row([Cell(name), *_cells(scores, name)]) for name in ordered]
    section = page.section(f"{unit.score} by {unit.one}")
    caption = f"{unit.score} of each {unit.one}, those that lose most first"
    section.add(table(columns, rows[:_ROWS], caption=caption, tones=_TONES))
    if rest := rows[_ROWS:]:
        others = f"the other {len(rest)}"
        section.add(folded(f"Show {others}", table(columns, rest, caption=f"{unit.score} of {others}", tones=_TONES)))


_TONES: dict[Tone, str] = {
    "warn": f"loses more than {_NOTABLE:g} point",
    "bad": f"loses more than {_LARGE:g} points",
    "muted": f"{DASH} does not occur in these frames",
}


def _scores(accuracy: Accuracy) -> dict[str, float]:
    return accuracy.pck_by_keypoint or accuracy.iou_by_class


def _columns(report: CalibrationReport, score: str) -> list[Column]:
    columns = []
    for index, label in enumerate(file_labels(report)):
        columns.append(Column(score, "%", group=label))
        if index:
            columns.append(Column("drop", "points", "against FP32; negative where it gains", group=label))
    return columns


def _drops(scores: Sequence[dict[str, float]], name: str) -> list[float]:
    """Return what each file but the first loses, in points; NaN where it cannot be said."""
    reference = scores[0].get(name, math.nan)
    return [100 * (reference - each.get(name, math.nan)) for each in scores[1:]]


def _order(scores: Sequence[dict[str, float]], name: str) -> tuple[bool, float]:
    """Sort by the largest drop; what does not occur comes last, and equals keep their order."""
    drops = [drop for drop in _drops(scores, name) if not math.isnan(drop)]
    occurs = any(not math.isnan(each.get(name, math.nan)) for each in scores)
    return not occurs, -max(drops, default=-math.inf)


def _cells(scores: Sequence[dict[str, float]], name: str) -> list[Cell]:
    drops = [None, *_drops(scores, name)]
    cells = []
    for each, drop in zip(scores, drops, strict=True):
        score = each.get(name, math.nan)
        cells.append(Cell(percent(score), tone="muted" if math.isnan(score) else ""))
        if drop is not None:
            cells.append(Cell(number(drop), tone=_drop_tone(drop)))
    return cells


def _drop_tone(drop: float) -> Tone:
    if math.isnan(drop):
        return "muted"
    return "bad" if drop > _LARGE else "warn" if drop > _NOTABLE else ""
