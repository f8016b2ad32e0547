"""Adding up what the frames show, so that no frame's values are held longer than its turn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfpp.export.parity.comparison import Outcome, Pointwise
from sfpp.export.parity.differences import Difference, OutputError
from sfpp.export.parity.points import Point, first_of_parts
from sfpp.export.parity.report import MarkedFrame, Mode, OutputReport, PointReport, Tolerance, TruthReport
from sfpp.runtime.errors import UsageError
from sfpp.runtime.images import Image
from sfpp.runtime.overlay import Palette
from sfpp.runtime.pose import Pose
from sfpp.tooling.frames import NamedFrame
from sfpp.tooling.label_images import LabelFolder
from sfpp.tooling.label_rules import IGNORED
from sfpp.tooling.marks import marked_keypoints, marked_labels
from sfpp.tooling.metrics import ConfusionMatrix

_NAMED = 3


class OutputTally:
    """The outputs in one mode; ``classes`` is 0 for pose, and for masks."""

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
            # Predictions are missing where a graph gave NaN; such frames count as wholly different, and not as classes.
            for answer, expected in zip(outcome.predictions, outcome.expected, strict=False):
                self._confusion.update(answer, expected)

    @property
    def frames(self) -> int:
        """How many frames were counted."""
        return len(self._same)

    def report(self) -> OutputReport:
        """Return the figures of all frames; there must be one."""
        distances = (float(np.mean(self._distances)), max(self._distances)) if self._distances else None
        errors = np.array([(each.relative, each.largest, each.mean, each.scale) for each in self._errors])
        # numpy's maximum, unlike Python's, lets no NaN pass unseen.
        relative, largest, _, scale = errors.max(axis=0).tolist() if self._errors else [None] * 4
        return OutputReport(
            self._mode,
            same=float(np.mean(self._same)),
            worst_same=min(self._same),
            mean_iou=None if self._confusion is None else self._confusion.mean_iou(),
            distance_px=distances,
            relative_error=relative,
            max_error=largest,
            mean_error=float(errors[:, 2].mean()) if self._errors else None,
            scale=scale,
            problem=self._problem,
        )


class PointTally:
    """The worst that each part of the network did on any frame."""

    def __init__(self) -> None:
        self._own: dict[str, tuple[Difference, str]] = {}
        self._total: dict[str, float] = {}
        self._gaps: dict[str, float] = {}

    def add(self, seen: Pointwise, frames: Sequence[NamedFrame]) -> None:
        """Count one batch of frames."""
        for name, found in seen.own.items():
            if name not in self._own or _rank(found.relative) > _rank(self._own[name][0].relative):
                index = min(found.place.batch, len(frames) - 1) if found.place is not None else 0
                self._own[name] = (found, frames[index].name)
        for known, more in (
            (self._total, {name: each.relative for name, each in seen.total.items()}),
            (self._gaps, seen.gaps),
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
        labels: the label images.
        classes: the classes' names.
    """

    def __init__(self, labels: LabelFolder, *, classes: tuple[str, ...]) -> None:
        self._truth, self._classes = labels, classes
        self._file, self._pytorch = (ConfusionMatrix(len(classes), ignore=IGNORED) for _ in range(2))
        self._frames: list[str] = []

    def add(self, outcome: Outcome, frames: Sequence[NamedFrame]) -> None:
        """Count those of the frames that are annotated.

        Raises:
            UsageError: an annotation holds a value that is neither a class nor ignored.
            MediaError: an annotation cannot be read, or is of another size than its frame.
        """
        for frame, answer, expected in zip(frames, outcome.predictions, outcome.expected, strict=False):
            truth = self._truth.find(frame.name, frame.image_bgr.shape[:2])
            if truth is not None:
                self._file.update(answer, truth)
                self._pytorch.update(expected, truth)
                self._frames.append(frame.name)

    def report(self) -> TruthReport:
        """Return the accuracies.

        Raises:
            UsageError: not one frame is annotated, or not one pixel of them, or their numbers are off by one.
        """
        if not self._frames:
            raise UsageError(f"none of the frames has a label image of its name in {self._truth.folder}")
        if not self._file.counts.any():
            raise UsageError(
                f"every pixel of the label images in {self._truth.folder} is ignored; give others, or no --labels"
            )
        self._truth.check_numbering(self._pytorch)
        return TruthReport(
            len(self._frames),
            file_mean_iou=self._file.mean_iou(),
            pytorch_mean_iou=self._pytorch.mean_iou(),
            file_iou=self._file.iou_of(self._classes),
            pytorch_iou=self._pytorch.iou_of(self._classes),
            labels=self._truth.summary(self._frames),
        )


def _rank(relative: float) -> float:
    return math.inf if math.isnan(relative) else relative


@dataclass(frozen=True)
class Limits:
    """What figures must keep to.

    Attributes:
        tolerance: of the precision.
        pins: whether tokens are matched, so that without pinning both sides may settle near ties differently.
        labels: what is compared in the end, "labels", "masks" or "keypoints".
    """

    tolerance: Tolerance
    pins: bool
    labels: str

    def failures(self, outputs: Sequence[OutputReport], points: Sequence[PointReport]) -> list[str]:
        """Return what is out of tolerance; empty where nothing is."""
        lines = [line for output in outputs for line in self._of_output(output)]
        # What both modes meet alike is said once.
        return list(dict.fromkeys([*lines, *self._of_points(points)]))

    def _of_output(self, output: OutputReport) -> Iterator[str]:
        limits = self.tolerance
        strictly = output.mode == "pinned" or not self.pins
        least = limits.labels if strictly else limits.free_labels
        if output.problem:
            yield output.problem
        # Asked so that NaN is not within.
        if not output.same >= least:
            yield f"{self.labels} agree on {output.same:.2%} ({output.mode}), expected at least {least:.1%}"
        error = output.relative_error
        if strictly and error is not None and not error <= limits.output:
            yield f"the output's relative error is {error:.1e} ({output.mode}), expected at most {limits.output:.0e}"

    def _of_points(self, points: Sequence[PointReport]) -> Iterator[str]:
        limits = self.tolerance
        wrong = [point for point in points if not point.own <= limits.own]
        if wrong and math.isnan(wrong[0].own):
            yield f"from {wrong[0].name} on the graph's values are NaN or infinite"
            return  # there is nothing to be said of what comes after
        if wrong:
            first = first_of_parts(point.name for point in wrong)
            more = f" and {len(first) - _NAMED} more" if len(first) > _NAMED else ""
            count = sum(not point.detail for point in points)
            yield (
                f"{len(first)} of {count} parts differ by more than {limits.own:.0e}: {', '.join(first[:_NAMED])}{more}"
            )
        for point in points:
            if point.gap is not None and not point.gap <= limits.gap:
                yield (
                    f"{point.name} merges tokens with partners that are {point.gap:.1e} less similar than the best "
                    f"ones, expected at most {limits.gap:.0e}"
                )


def marked(frame_bgr: Image, answer: Any, expected: Any, palette: Palette) -> Image:
    """Return the frame with what differs between two predictions marked, (H, W, 3) uint8 BGR: labels, or keypoints."""
    if isinstance(answer, Pose):
        everything = np.ones(answer.keypoints_xy.shape[:2], np.bool_)
        return marked_keypoints(frame_bgr, answer.keypoints_xy, expected.keypoints_xy, everything)
    return marked_labels(frame_bgr, answer, expected, palette)


class WorstFrames:
    """The frames on which the predictions differ most; only so many pictures are held.

    Args:
        palette: a color for each class; empty for poses.
        limit: how many.
    """

    def __init__(self, palette: Palette, limit: int = 4) -> None:
        self._palette, self._limit = palette, limit
        self._kept: list[MarkedFrame] = []

    def add(self, outcome: Outcome, frames: Sequence[NamedFrame]) -> None:
        """Keep those of a batch that belong to the worst."""
        rows = zip(frames, outcome.predictions, outcome.expected, outcome.agreements, strict=False)
        for frame, answer, expected, agreement in rows:
            if agreement.same == 1 or (len(self._kept) == self._limit and agreement.same >= self._kept[-1].same):
                continue
            # Drawn at once: keeping the frame and both predictions until the end would take three times as much.
            picture = marked(frame.image_bgr, answer, expected, self._palette)
            kept = sorted([*self._kept, MarkedFrame(frame.name, picture, agreement.same)], key=lambda each: each.same)
            self._kept = kept[: self._limit]

    def pictures(self) -> tuple[MarkedFrame, ...]:
        """Return them, the worst first."""
        return tuple(self._kept)
