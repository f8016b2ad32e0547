"""How good predictions are: measured against the truth, or against another model's predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.agreement import check_shapes
from sfpp.runtime.errors import UsageError
from sfpp.runtime.imports import import_cv2


@dataclass(frozen=True)
class Accuracy:
    """How well a file does on the validation frames; fractions 0..1, None where it does not apply.

    Attributes:
        agreement: labels equal to those of the float32 file; for pose, keypoints within 2 % of the person's box of its
            keypoints.
        boundary_f: F-score of class boundaries, against the truth if there is one, else against the float32 labels.
        mean_iou: against the truth; ``iou_by_class`` has NaN for a class that does not occur.
        pck: keypoints within 0.2 torsos of the truth, and the same by keypoint in ``pck_by_keypoint``.
    """

    agreement: float
    boundary_f: float | None = None
    mean_iou: float | None = None
    iou_by_class: dict[str, float] = field(default_factory=dict)
    pck: float | None = None
    pck_by_keypoint: dict[str, float] = field(default_factory=dict)

    @property
    def against_truth(self) -> float | None:
        """Mean IoU or PCK, whichever there is."""
        return self.mean_iou if self.pck is None else self.pck


def boundary_f_score(
    labels: NDArray[Any], reference: NDArray[Any], *, ignore: int | None = None, tolerance: float = 0.0075
) -> float:
    """Return how well the boundaries between classes agree: the F-score, 0..1, of :func:`boundary_counts`.

    Where neither picture has a boundary the score is 1.
    """
    return float(f_score_from_counts(boundary_counts(labels, reference, ignore=ignore, tolerance=tolerance)))


def boundary_counts(
    labels: NDArray[Any], reference: NDArray[Any], *, ignore: int | None = None, tolerance: float = 0.0075
) -> NDArray[np.int64]:
    """Return (4,) counts of boundary pixels: of the labels, those that are right and all; of the reference likewise.

    A boundary pixel counts as right if the other picture has a boundary within the tolerance, without regard to the
    classes on its sides. Counts of several pictures add up. After Csurka et al., "What is a good evaluation measure for
    semantic segmentation?" (BMVC 2013).

    Args:
        labels: (H, W) integers.
        reference: (H, W) integers, the truth or the answer to compare with.
        ignore: value of the reference's pixels that do not count; no boundary is looked for beside them.
        tolerance: as a part of the picture's diagonal.

    Raises:
        UsageError: shapes that differ, or no pixel.
        MissingDependencyError: OpenCV is not installed.
    """
    check_shapes(labels, reference)
    cv2 = import_cv2(purpose="comparing boundaries")
    radius = max(1, round(tolerance * math.hypot(*labels.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    counted = np.ones(labels.shape, np.uint8) if ignore is None else np.asarray(reference != ignore, np.uint8)
    counted = cv2.erode(counted, disc) if ignore is not None else counted
    own, other = boundaries(labels) & counted, boundaries(reference) & counted
    right, found = own & cv2.dilate(other, disc), other & cv2.dilate(own, disc)
    return np.array([np.count_nonzero(each) for each in (right, own, found, other)])


def f_score_from_counts(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the F-score, 0..1, of counts (..., 4) as :func:`boundary_counts` has them: (...)."""
    right, own, found, other = np.moveaxis(np.asarray(counts), -1, 0)
    precision, recall = right / np.maximum(own, 1), found / np.maximum(other, 1)
    score = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return np.where((own == 0) & (other == 0), 1.0, score)


def boundaries(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return 1 where a pixel's right or lower neighbor has another label, (H, W) uint8."""
    edges = np.zeros(labels.shape, np.uint8)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


class KeypointHits:
    """Counts of keypoints that were found near enough to the truth: PCK, by keypoint and in all.

    A keypoint is right within ``near`` torsos, a torso being the distance from left shoulder to right hip; a person in
    whom one of these two is not annotated does not count. Keypoint sets without them take a tenth of the diagonal
    around the person's annotated keypoints for half a torso. (Yang and Ramanan, TPAMI 2013, measure against the
    person's size alike.)

    Args:
        names: of the keypoints.
        near: how near, in torsos.

    Attributes:
        right: how often each keypoint was near enough, (K,).
        counted: how often it was annotated, (K,).
    """

    def __init__(self, names: Sequence[str], *, near: float = 0.2) -> None:
        self._names = tuple(names)
        self._near = near
        plain = [name.replace(" ", "_").lower() for name in names]
        ends = "left_shoulder", "right_hip"
        self._torso = tuple(plain.index(end) for end in ends) if all(end in plain for end in ends) else None
        self.right = np.zeros(len(self._names), np.int64)
        self.counted = np.zeros(len(self._names), np.int64)

    def update(self, found_xy: NDArray[Any], truth: NDArray[Any]) -> None:
        """Count one person: found (K, 2) x, y in pixels; true (K, 3) x, y, and above 0 where annotated.

        Raises:
            UsageError: another number of keypoints.
        """
        if found_xy.shape != (len(self._names), 2) or truth.shape != (len(self._names), 3):
            raise UsageError(
                f"cannot compare keypoints of shapes {found_xy.shape} and {truth.shape}, expected "
                f"{(len(self._names), 2)} and {(len(self._names), 3)}"
            )
        annotated = truth[:, 2] > 0
        torso = self._torso_px(truth, annotated)
        if torso <= 1:
            return
        near = np.linalg.norm(found_xy - truth[:, :2], axis=1) <= self._near * torso
        self.right += near & annotated
        self.counted += annotated

    def _torso_px(self, truth: NDArray[Any], annotated: NDArray[np.bool_]) -> float:
        if self._torso is not None:
            ends = list(self._torso)
            return float(np.linalg.norm(np.diff(truth[ends, :2], axis=0))) if annotated[ends].all() else 0.0
        return 0.2 * float(np.linalg.norm(np.ptp(truth[annotated, :2], axis=0))) if annotated.any() else 0.0

    def pck(self) -> float:
        """Return the share of right keypoints, 0..1; NaN before any was counted."""
        total = self.counted.sum()
        return float(self.right.sum() / total) if total else float("nan")

    def by_keypoint(self) -> dict[str, float]:
        """Return the share of each keypoint; NaN for one that was never annotated."""
        with np.errstate(invalid="ignore"):
            shares = self.right / self.counted
        return dict(zip(self._names, map(float, shares), strict=True))


class ConfusionMatrix:
    """Counts of pixels by true and predicted class, from which the usual accuracies follow.

    Args:
        classes: the number of classes; labels and truth are 0..classes-1.
        ignore: the truth's value for pixels that do not count, or None when all do.
    """

    def __init__(self, classes: int, *, ignore: int | None = None) -> None:
        if classes < 1:
            raise UsageError(f"classes is {classes}, expected at least 1")
        self._classes = classes
        self._ignore = ignore
        self._counts = np.zeros((classes, classes), np.int64)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Pixels by class, (truth, prediction)."""
        return np.array(self._counts)

    def update(self, labels: NDArray[Any], truth: NDArray[Any]) -> None:
        """Count one frame: both arrays of the same shape, integers.

        Raises:
            UsageError: shapes that differ, or a value that is neither a class nor ignored.
        """
        check_shapes(labels, truth)
        counted = np.ones(truth.shape, np.bool_) if self._ignore is None else truth != self._ignore
        predicted, true = labels[counted].astype(np.int64), truth[counted].astype(np.int64)
        for name, values in (("labels", predicted), ("truth", true)):
            if values.size and not 0 <= values.min() <= values.max() < self._classes:
                raise UsageError(
                    f"the {name} hold values {values.min()}..{values.max()}, expected 0..{self._classes - 1}"
                    f" (ignored: {self._ignore}); set ignore= to the value that marks pixels without a class"
                )
        pairs = np.bincount(true * self._classes + predicted, minlength=self._classes**2)
        self._counts += pairs.reshape(self._counts.shape)

    def iou(self) -> NDArray[np.float64]:
        """Return intersection over union by class, (classes,), 0..1; NaN for a class in neither array."""
        return iou_from_counts(self._counts)

    def iou_of(self, names: Sequence[str]) -> dict[str, float]:
        """Return :meth:`iou` by the classes' names."""
        return dict(zip(names, map(float, self.iou()), strict=True))

    def mean_iou(self) -> float:
        """Return the mean IoU over the classes present in truth or prediction; NaN before any pixel was counted."""
        return float(mean_iou_from_counts(self._counts))

    def predicted_with_offset(self, offset: int) -> tuple[int, int]:
        """Return of how many true classes most pixels are predicted as the class ``offset`` above, and of how many."""
        totals = self._counts.sum(axis=1)
        rows = np.flatnonzero(totals)
        rows = rows[(rows + offset >= 0) & (rows + offset < self._classes)]
        return int((2 * self._counts[rows, rows + offset] > totals[rows]).sum()), len(rows)

    def pixel_accuracy(self) -> float:
        """Return the fraction of pixels, 0..1, labeled right; NaN before any pixel was counted."""
        total = self._counts.sum()
        return float(np.trace(self._counts) / total) if total else float("nan")


def iou_from_counts(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return intersection over union by class, (..., C), of counts (..., C, C); NaN for a class that is nowhere."""
    intersection = np.diagonal(counts, axis1=-2, axis2=-1)
    union = counts.sum(axis=-2) + counts.sum(axis=-1) - intersection
    with np.errstate(invalid="ignore"):
        return np.asarray(intersection / union, np.float64)


def mean_iou_from_counts(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean IoU, (...), over the classes that occur in counts (..., C, C); NaN where none does."""
    iou = iou_from_counts(counts)
    present = ~np.isnan(iou)
    with np.errstate(invalid="ignore"):
        return np.asarray(iou.sum(axis=-1, where=present) / present.sum(axis=-1), np.float64)
