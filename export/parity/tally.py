"""Adding up what the frames show, so that no frame's values are held longer than its turn."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.export.parity.comparison import Outcome, OutputError, PointErrors
from sfpp.export.parity.differences import Difference
from sfpp.export.parity.frames import NamedFrame
from sfpp.export.parity.points import Point
from sfpp.export.parity.report import Mode, OutputReport, PointReport, TruthReport
from sfpp.export.parity.tolerances import Tolerance
from sfpp.runtime.errors import UsageError
from sfpp.tooling.metrics import ConfusionMatrix
from sfpp.tooling.truth import LabelFolder


class OutputTally:
    """The answers in one mode; ``classes`` is 0 for pose."""

    def __init__(self, mode: Mode, *, classes: int) -> None:
        self._mode: Mode = mode
        self._confusion = ConfusionMatrix(classes) if classes else None
        self._same: list[float] = []
        self._distances: list[float] = []
        self._errors: list[OutputError] = []
        self._problem = ""

    def add(self, outcome: Outcome) -> None:
        """Count one batch of frames."""
        self._same += [each.same for each in outcome.agreements]
        self._distances += [distance for each in outcome.agreements for distance in each.distances_px]
        self._errors += [outcome.error] if outcome.error is not None else []
        self._problem = self._problem or outcome.problem
        if self._confusion is not None:
            # Answers are missing where a graph gave NaN; those frames count as wholly different, and not as classes.
            for answer, expected in zip(outcome.answers, outcome.expected, strict=False):
                self._confusion.update(answer, expected)

    @property
    def frames(self) -> int:
        """How many frames were counted."""
        return len(self._same)

    def report(self) -> OutputReport:
        """Return the figures of all frames; there must be one."""
        distances = (float(np.mean(self._distances)), max(self._distances)) if self._distances else None
        report = OutputReport(
            self._mode,
            same=float(np.mean(self._same)),
            worst_same=min(self._same),
            mean_iou=None if self._confusion is None else self._confusion.mean_iou(),
            distance_px=distances,
            problem=self._problem,
        )
        if not self._errors:
            return report
        # numpy's maximum, unlike Python's, lets no NaN pass unseen.
        return dataclasses.replace(
            report,
            relative_error=float(np.max([each.relative for each in self._errors])),
            max_error=float(np.max([each.largest for each in self._errors])),
            mean_error=float(np.mean([each.mean for each in self._errors])),
            scale=float(np.max([each.scale for each in self._errors])),
        )


class PointTally:
    """The worst that each part of the network did on any frame."""

    def __init__(self) -> None:
        self._own: dict[str, tuple[Difference, str]] = {}
        self._total: dict[str, float] = {}
        self._gaps: dict[str, float] = {}

    def add(self, errors: PointErrors, frames: Sequence[NamedFrame]) -> None:
        """Count one batch of frames."""
        for name, found in errors.own.items():
            if name not in self._own or _rank(found.relative) > _rank(self._own[name][0].relative):
                index = min(found.place.batch, len(frames) - 1) if found.place is not None else 0
                self._own[name] = (found, frames[index].name)
        for known, more in (
            (self._total, {name: each.relative for name, each in errors.total.items()}),
            (self._gaps, errors.gaps),
        ):
            known.update({name: float(np.maximum(value, known.get(name, 0.0))) for name, value in more.items()})

    def reports(self, tolerance: Tolerance, points: Sequence[Point]) -> tuple[PointReport, ...]:
        """Return one entry for each of the points that was compared, in their order."""
        return tuple(self._report(point, tolerance) for point in points if point.name in self._own)

    def _report(self, point: Point, tolerance: Tolerance) -> PointReport:
        name = point.name
        found, frame = self._own[name]
        gap = self._gaps.get(name)
        return PointReport(
            name,
            own=found.relative,
            total=self._total.get(name, math.nan),
            largest=found.largest,
            place=found.place,
            frame=frame,
            gain=found.gain,
            gap=gap,
            # Asked so that NaN is not within.
            within=found.relative <= tolerance.own and (gap is None or gap <= tolerance.gap),
            detail=point.detail,
        )


class TruthTally:
    """Accuracy of both sides against annotated labels.

    Args:
        folder: of the label pictures, named like the frames.
        classes: the classes' names.
        ignore: the value of pixels that do not count.

    Raises:
        MediaError: the folder holds no label pictures.
    """

    def __init__(self, folder: str | os.PathLike[str], *, classes: tuple[str, ...], ignore: int) -> None:
        self._folder, self._classes = LabelFolder(folder, classes=len(classes), ignore=ignore), classes
        self._file = ConfusionMatrix(len(classes), ignore=ignore)
        self._pytorch = ConfusionMatrix(len(classes), ignore=ignore)
        self._where = os.fspath(folder)
        self._frames = 0

    def add(self, outcome: Outcome, frames: Sequence[NamedFrame]) -> None:
        """Count those of the frames that are annotated.

        Raises:
            UsageError: an annotation holds a value that is neither a class nor ignored.
            MediaError: an annotation cannot be read, or is of another size than its frame.
        """
        for frame, answer, expected in zip(frames, outcome.answers, outcome.expected, strict=False):
            truth = self._truth_of(frame)
            if truth is not None:
                self._file.update(answer, truth)
                self._pytorch.update(expected, truth)
                self._frames += 1

    def report(self) -> TruthReport:
        """Return the accuracies.

        Raises:
            UsageError: not one frame is annotated, or not one pixel of them.
        """
        if not self._frames:
            raise UsageError(f"none of the frames has a label picture of its name in {self._where}")
        if not self._file.counts.any():
            raise UsageError(
                f"every pixel of the label pictures in {self._where} is ignored; give others, or leave --labels out"
            )
        return TruthReport(
            self._frames,
            file_mean_iou=self._file.mean_iou(),
            pytorch_mean_iou=self._pytorch.mean_iou(),
            file_iou=self._by_class(self._file),
            pytorch_iou=self._by_class(self._pytorch),
        )

    def _truth_of(self, frame: NamedFrame) -> NDArray[Any] | None:
        height, width = frame.image_bgr.shape[:2]
        return self._folder.find(frame.name, (height, width))

    def _by_class(self, confusion: ConfusionMatrix) -> dict[str, float]:
        return dict(zip(self._classes, map(float, confusion.iou()), strict=True))


def _rank(relative: float) -> float:
    return math.inf if math.isnan(relative) else relative
