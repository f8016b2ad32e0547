"""Keypoints from heatmaps, and the average with a mirrored picture's heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import BackendError, UsageError

Floats = NDArray[np.float32]


def keypoints_from_heatmaps(heatmaps: NDArray[Any]) -> tuple[Floats, Floats]:
    """Find one keypoint in each heatmap: its maximum, moved a quarter cell towards the higher neighbor on each axis.

    The shift is what the maximum's rounding to a cell loses on average (Newell et al., arXiv 1603.06937). On an axis
    where the maximum lies at the border there is none.

    Args:
        heatmaps: (N, K, h, w), floating point.

    Returns:
        Coordinates (N, K, 2) float32, x then y in heatmap cells, where (0, 0) is the center of the first cell; and
        scores (N, K) float32, the maximum within 0..1. A heatmap without a positive value has score 0.

    Raises:
        UsageError: not of four axes, or heatmaps without a cell.
        BackendError: the heatmaps contain NaN or infinity.
    """
    if heatmaps.ndim != 4 or 0 in heatmaps.shape[2:]:
        raise UsageError(f"heatmaps of shape {heatmaps.shape} given, expected (people, keypoints, rows, columns)")
    people, keypoints, rows, columns = heatmaps.shape
    values = heatmaps.reshape(people * keypoints, rows, columns).astype(np.float32, copy=False)
    best = values.reshape(len(values), rows * columns).argmax(axis=1)
    y, x = np.divmod(best, columns)
    each = np.arange(len(values))
    scores = values[each, y, x]
    if not np.isfinite(scores).all():  # a NaN counts as the maximum
        raise BackendError(
            "the model's heatmaps contain NaN or infinity, so no keypoint can be trusted; "
            "a graph in FP16 has probably overflowed: run it in FP32, or export it again"
        )
    along_x = _quarter(values[each, y], x)
    along_y = _quarter(values[each, :, x], y)
    coordinates = np.stack([x + along_x, y + along_y], axis=-1).astype(np.float32)
    shape = people, keypoints
    return coordinates.reshape(*shape, 2), np.clip(scores, 0, 1).reshape(shape)


def _quarter(lines: Floats, peaks: NDArray[np.intp]) -> Floats:
    """Return 0.25, 0 or -0.25 for each line (M, n), by the values beside its peak (M,)."""
    each, last = np.arange(len(lines)), lines.shape[1] - 1
    before = lines[each, np.maximum(peaks - 1, 0)]
    after = lines[each, np.minimum(peaks + 1, last)]
    inside = (peaks > 0) & (peaks < last)
    # Compared rather than subtracted: two infinities have no difference.
    direction = (after > before).astype(np.float32) - (after < before).astype(np.float32)
    shifts: Floats = np.where(inside, np.float32(0.25) * direction, np.float32(0))
    return shifts


def average_with_mirrored(heatmaps: NDArray[Any], mirrored: NDArray[Any], flip_indices: Sequence[int]) -> Floats:
    """Return the mean of a picture's heatmaps and those of its mirror image, brought back.

    Args:
        heatmaps: (N, K, h, w), floating point.
        mirrored: the same for the mirror images.
        flip_indices: for each keypoint the one that it becomes in a mirror.
    """
    back = mirrored[:, list(flip_indices), :, ::-1].astype(np.float32)
    # A keypoint at pixel x lies at cell x / stride. Its mirror image, at W - 1 - x, comes back almost a cell too far
    # left; MMPose's shift_heatmap moves it by a whole one, and so do published figures.
    back[..., 1:] = back[..., :-1].copy()
    averaged: Floats = (heatmaps.astype(np.float32, copy=False) + back) / np.float32(2)
    return averaged
