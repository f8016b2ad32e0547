"""How alike two answers are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import UsageError


def label_agreement(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the fraction, 0..1, of pixels whose labels are equal.

    Raises:
        UsageError: shapes that differ, or no pixel.
    """
    _check_shapes(a, b)
    return float(np.mean(a == b))


def max_error(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the largest absolute difference; NaN if either holds one.

    Raises:
        UsageError: shapes that differ, or no value.
    """
    return float(_absolute_difference(a, b).max())


def mean_error(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the mean absolute difference; NaN if either holds one.

    Raises:
        UsageError: shapes that differ, or no value.
    """
    return float(_absolute_difference(a, b).mean())


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
        _check_shapes(labels, truth)
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
        intersection = np.diagonal(self._counts)
        union = self._counts.sum(axis=0) + self._counts.sum(axis=1) - intersection
        with np.errstate(invalid="ignore"):
            return np.asarray(intersection / union, np.float64)

    def mean_iou(self) -> float:
        """Return the mean IoU over the classes present in truth or prediction; NaN before any pixel was counted."""
        iou = self.iou()
        present = ~np.isnan(iou)
        return float(iou[present].mean()) if present.any() else float("nan")

    def pixel_accuracy(self) -> float:
        """Return the fraction of pixels, 0..1, labeled right; NaN before any pixel was counted."""
        total = self._counts.sum()
        return float(np.trace(self._counts) / total) if total else float("nan")


def _absolute_difference(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    _check_shapes(a, b)
    # In float64 from the start: unsigned integers wrap around, and float16 overflows.
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, which is the answer
        difference: NDArray[np.float64] = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return difference


def _check_shapes(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape:
        raise UsageError(f"cannot compare arrays of shapes {a.shape} and {b.shape}: they must be equal")
    if a.size == 0:
        raise UsageError("cannot compare empty arrays")
