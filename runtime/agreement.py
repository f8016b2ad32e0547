"""How alike two models' predictions are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import UsageError

# A keypoint is where it was if it moved at most this part of the diagonal of its person's box: a third of what PCK@0.2
# allows.
UNMOVED = 0.02


def label_agreement(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the fraction, 0..1, of pixels whose labels are equal.

    Raises:
        UsageError: shapes that differ, or no pixel.
    """
    check_shapes(a, b)
    return float(np.mean(a == b))


def mask_agreement(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the fraction, 0..1, of pixels with just the same classes, of masks (K, H, W).

    Raises:
        UsageError: shapes that differ, or no pixel.
    """
    check_shapes(a, b)
    return float(np.mean((a == b).all(axis=0)))


def unmoved_keypoints(found: NDArray[Any], expected: NDArray[Any], boxes_xywh: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which keypoints (P, K) are where they are expected, within ``UNMOVED`` of their box's diagonal.

    Args:
        found: (P, K, 2), x then y in pixels of the frame.
        expected: the same.
        boxes_xywh: (P, 4), the people's boxes.
    """
    diagonals = np.linalg.norm(boxes_xywh[:, 2:], axis=1)[:, np.newaxis]
    return np.asarray(np.linalg.norm(found - expected, axis=2) <= UNMOVED * diagonals)


def check_shapes(a: NDArray[Any], b: NDArray[Any]) -> None:
    """Refuse to compare arrays of different shapes, and empty ones.

    Raises:
        UsageError: they are such.
    """
    if a.shape != b.shape:
        raise UsageError(f"cannot compare arrays of shapes {a.shape} and {b.shape}: they must be equal")
    if a.size == 0:
        raise UsageError("cannot compare empty arrays")
