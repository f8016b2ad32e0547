"""One label a pixel at the frame's size, without the logits at the frame's size.

Bilinear interpolation is a convex combination of four corners. Where the four corners agree on the winning class, every
pixel between them has that class, and a table look-up fills it; only cells whose corners disagree (the borders of
objects, a few percent of a picture) need arithmetic, and there only the classes that can win. The answer is exactly the
argmax of the upsampled logits, which at 3840x2160 with 19 classes would be 630 MB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import BackendError, UsageError

Labels = NDArray[np.uint8]
Logits = NDArray[np.float32]
Masks = NDArray[np.uint8]
Region = tuple[float, float, float, float]
Positions = NDArray[np.float64]
NO_CLASS = 255  # label of a pixel that a multi-label model gives no class

# Pixels interpolated at a time: a few arrays of this many float32 stay in the cache of one core.
_CHUNK_PIXELS = 1 << 16
# Infinities of an FP16 graph count as this; the difference of two such values is still finite.
_LARGEST = np.float32(1e38)


def labels_from_logits(
    logits: NDArray[Any], size_hw: tuple[int, int], *, region: Region | None = None, align_corners: bool = False
) -> Labels:
    """Return the winning class of every pixel of a frame.

    The same as upsampling each class bilinearly (half-pixel centers, clamped at the border) and taking the argmax, the
    first class on a tie.

    Args:
        logits: (classes, h, w), floating point, any range.
        size_hw: the frame's height and width in pixels.
        region: the rectangle (top, left, height, width) of the logits, in logits cells, that the frame covers; all of
            it when None.
        align_corners: the centers of the frame's corner pixels lie on those of the logits' corner cells, and on the
            corners of ``region``, which is counted from the center of the first cell.

    Returns:
        (height, width) uint8 in 0..classes-1.

    Raises:
        UsageError: a shape that is not (classes, h, w), more than 256 classes, or an empty size.
        BackendError: the logits contain NaN.
    """
    _check(logits, size_hw)
    values = np.ascontiguousarray(logits, dtype=np.float32)
    cells_hw = values.shape[1], values.shape[2]
    down, across = _positions(size_hw, cells_hw, region, align_corners=align_corners)
    axes = _axis(down, cells_hw[0]), _axis(across, cells_hw[1])
    corner, mixed = _cells(_winners(values), *axes)
    labels: Labels = corner.take(axes[1].cell_of_pixel, axis=1).take(axes[0].cell_of_pixel, axis=0)
    _interpolate_cells(values, np.nonzero(mixed), axes, labels)
    return labels


def labels_resized(
    labels: Labels, size_hw: tuple[int, int], *, region: Region | None = None, align_corners: bool = False
) -> Labels:
    """Bring a label map (h, w) to a frame's size by nearest neighbour.

    ``region`` and ``align_corners`` are as in :func:`labels_from_logits`.

    Returns:
        (height, width) uint8.

    Raises:
        UsageError: an empty size.
    """
    _check(labels[np.newaxis], size_hw)
    cells_hw = labels.shape[0], labels.shape[1]
    down, across = _positions(size_hw, cells_hw, region, align_corners=align_corners)
    rows, columns = _nearest(down, cells_hw[0]), _nearest(across, cells_hw[1])
    resized: Labels = labels.take(columns, axis=1).take(rows, axis=0)
    return resized


def logits_resized(logits: NDArray[Any], size_hw: tuple[int, int], *, align_corners: bool = False) -> Logits:
    """Upsample logits (classes, h, w) bilinearly; ``align_corners`` as in :func:`labels_from_logits`.

    Returns:
        (classes, height, width) float32.

    Raises:
        UsageError: as there.
    """
    _check(logits, size_hw)
    values: Logits = np.clip(logits, -_LARGEST, _LARGEST, dtype=np.float32)  # a NaN stays one
    for axis, position in enumerate(_positions(size_hw, values.shape[1:], None, align_corners=align_corners), 1):
        last = values.shape[axis] - 1
        low = np.clip(np.floor(position).astype(np.intp), 0, last)
        fraction = np.clip(position - low, 0, 1).astype(np.float32)
        fraction = fraction[:, np.newaxis] if axis == 1 else fraction
        lower = values.take(low, axis=axis)
        values = np.asarray(lower + (values.take(np.minimum(low + 1, last), axis=axis) - lower) * fraction, np.float32)
    return values


def logit(probability: float) -> float:
    """Return the number whose sigmoid is a probability, above 0 and below 1."""
    return math.log(probability) - math.log1p(-probability)


def logits_beside(logits: NDArray[Any], threshold: float) -> Logits:
    """Return (2, h, w) float32, the logit of a threshold and one class's: class 1 wins where it is above.

    Args:
        logits: (h, w), of one class with a sigmoid.
        threshold: a probability, above 0 and below 1.
    """
    return np.stack([np.full(logits.shape, logit(threshold), np.float32), logits.astype(np.float32)])


def labels_of_masks(masks: Masks) -> Labels:
    """Return the first class of each pixel, (H, W) uint8, ``NO_CLASS`` where there is none, of masks (K, H, W)."""
    labels: Labels = masks.argmax(axis=0).astype(np.uint8)
    labels[~masks.any(axis=0)] = NO_CLASS
    return labels


@dataclass(frozen=True)
class _Axis:
    """One axis of the frame, cut into cells: a cell is the pixels whose centers lie between two neighbouring logits.

    Pixels beyond the outermost logits form cells of their own, whose two logits are the same one: that is the clamping.
    Cells without pixels (a frame smaller than the logits) are left out. ``pixels`` and ``fraction`` are (longest,
    cells); shorter cells repeat their last pixel, which is then computed twice and written twice with the same value.
    """

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    cell_of_pixel: NDArray[np.intp]
    pixels: NDArray[np.intp]
    fraction: Logits


def _positions(
    size_hw: tuple[int, int], cells_hw: tuple[int, int], region: Region | None, *, align_corners: bool
) -> tuple[Positions, Positions]:
    """Return where the centers of the frame's rows and columns lie on the smaller map, whose own lie at 0, 1, 2..."""
    less = 1.0 if align_corners else 0.0
    top, left, height, width = region if region is not None else (0.0, 0.0, cells_hw[0] - less, cells_hw[1] - less)
    place = _between_corners if align_corners else _half_pixels
    return place(size_hw[0], top, height), place(size_hw[1], left, width)


def _half_pixels(pixel_count: int, start: float, extent: float) -> Positions:
    # In float64: at 4K a float32 position has an error of a ten-thousandth of a cell.
    offsets = np.arange(pixel_count, dtype=np.float64) + 0.5
    return np.asarray(start + offsets * (extent / pixel_count) - 0.5, np.float64)


def _between_corners(pixel_count: int, start: float, extent: float) -> Positions:
    return np.asarray(start + np.arange(pixel_count) * (extent / max(1, pixel_count - 1)), np.float64)


def _axis(position: Positions, logit_count: int) -> _Axis:
    cell = np.clip(np.floor(position).astype(np.intp) + 1, 0, logit_count)
    used, cell_of_pixel, lengths = np.unique(cell, return_inverse=True, return_counts=True)
    first = np.cumsum(lengths) - lengths
    pixels = first + np.minimum(np.arange(lengths.max())[:, np.newaxis], lengths - 1)
    return _Axis(
        low=np.maximum(used - 1, 0),
        high=np.minimum(used, logit_count - 1),
        cell_of_pixel=cell_of_pixel,
        pixels=pixels,
        fraction=np.clip(position - (cell - 1), 0, 1).astype(np.float32)[pixels],
    )


def _nearest(position: Positions, cell_count: int) -> NDArray[np.intp]:
    return np.clip(np.floor(position + 0.5).astype(np.intp), 0, cell_count - 1)


def _winners(logits: Logits) -> Labels:
    """Return the argmax over classes, (h, w) uint8, by a running maximum: three times as fast as ``argmax``."""
    _, rows, columns = logits.shape
    winner = np.zeros((rows, columns), np.uint8)
    # Some rows at a time: at 3840x2160 the running maximum of all of them would go through memory once a class.
    step = max(1, _CHUNK_PIXELS // columns)
    for start in range(0, rows, step):
        best = _raise_winners(winner[start : start + step], logits[:, start : start + step])
        if np.isnan(best).any():  # the maximum carries every NaN to here
            raise BackendError(
                "the model's logits contain NaN, so no label can be trusted; "
                "a graph in FP16 has probably overflowed: run it in FP32, or export it again"
            )
    return winner


def _raise_winners(winner: Labels, logits: Logits) -> Logits:
    """Write the argmax over classes into ``winner``, which is 0, and return the maximum."""
    best: Logits = logits[0].copy()
    for index in range(1, len(logits)):
        _raise_label(winner, logits[index] > best, np.uint8(index))
        np.maximum(best, logits[index], out=best)
    return best


def _raise_label(label: Labels, won: NDArray[np.bool_], index: np.uint8 | Labels) -> None:
    """Write ``index`` into ``label`` where ``won``; classes come in rising order, so a maximum does it."""
    np.maximum(label, won.view(np.uint8) * index, out=label)


def _cells(winners: Labels, vertical: _Axis, horizontal: _Axis) -> tuple[Labels, NDArray[np.bool_]]:
    """Return each cell's class at its upper left corner, and whether its corners disagree, both (cells y, cells x)."""
    upper, lower = winners[vertical.low], winners[vertical.high]
    corner: Labels = upper[:, horizontal.low]
    mixed = corner != upper[:, horizontal.high]
    mixed |= corner != lower[:, horizontal.low]
    mixed |= corner != lower[:, horizontal.high]
    return corner, mixed


def _interpolate_cells(
    logits: Logits, cells: tuple[NDArray[np.intp], ...], axes: tuple[_Axis, _Axis], labels: Labels
) -> None:
    """Write the pixels of ``cells`` (indices y, x) into ``labels``, some cells at a time."""
    vertical, horizontal = axes
    per_cell = len(vertical.pixels) * len(horizontal.pixels)
    step = max(1, _CHUNK_PIXELS // per_cell)
    for start in range(0, len(cells[0]), step):
        y, x = cells[0][start : start + step], cells[1][start : start + step]
        corners = _corners(logits, y, x, axes)
        order, candidates = _candidates(corners)
        y, x = y[order], x[order]
        block = _block_labels(corners[:, :, order], candidates, vertical.fraction[:, y], horizontal.fraction[:, x])
        labels[vertical.pixels[:, np.newaxis, y], horizontal.pixels[np.newaxis, :, x]] = block


def _corners(logits: Logits, y: NDArray[np.intp], x: NDArray[np.intp], axes: tuple[_Axis, _Axis]) -> Logits:
    """Return the four corner logits of n cells, (4, classes, n): upper left, upper right, lower left, lower right."""
    vertical, horizontal = axes
    classes, _, width = logits.shape
    upper, lower = vertical.low[y] * width, vertical.high[y] * width
    left, right = horizontal.low[x], horizontal.high[x]
    flat = logits.reshape(classes, -1)
    corners = np.stack([flat.take(at, axis=1) for at in (upper + left, upper + right, lower + left, lower + right)])
    return np.clip(corners, -_LARGEST, _LARGEST, out=corners)


def _candidates(corners: Logits) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]]:
    """Find which classes can win somewhere in each cell: usually two or three.

    Somewhere between its corners a class reaches at most its largest corner, and the winner at least the largest of all
    classes' smallest corners; a class below that cannot win.

    Returns:
        An order of the cells, most candidates first; and for each rank j the class of the j-th candidate (rising by
        class) of those cells that have so many, which are the first ones in that order: a plain prefix.
    """
    possible = corners.max(axis=0) >= corners.min(axis=0).max(axis=0)
    counts = possible.sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    counts = counts[order]
    _, class_index = np.nonzero(possible.T[order])
    first = np.cumsum(counts) - counts
    by_rank = [class_index[first[: np.count_nonzero(counts > rank)] + rank] for rank in range(counts[0])]
    return order, by_rank


def _block_labels(corners: Logits, candidates: list[NDArray[np.intp]], down: Logits, right: Logits) -> Labels:
    """Return the labels (rows, columns, n) of n cells from corners (4, classes, n) and fractions (rows or columns, n).

    The cells are the last axis, so that every operation runs along thousands of neighbours in memory.
    """
    shape = len(down), len(right), corners.shape[-1]
    best, label = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.uint8)
    for index in candidates:
        n = len(index)
        value = _bilinear(corners[:, index, np.arange(n)], down[:, :n], right[:, :n])
        _raise_label(label[..., :n], value > best[..., :n], index.astype(np.uint8))
        np.maximum(best[..., :n], value, out=best[..., :n])
    return label


def _bilinear(corners: Logits, down: Logits, right: Logits) -> Logits:
    """Interpolate corners (4, n) at fractions (rows, n) and (columns, n): (rows, columns, n)."""
    upper_left, upper_right, lower_left, lower_right = corners
    at_left = upper_left + (lower_left - upper_left) * down
    at_right = upper_right + (lower_right - upper_right) * down
    value: Logits = (at_right - at_left)[:, np.newaxis] * right[np.newaxis]
    value += at_left[:, np.newaxis]
    return value


def _check(values: NDArray[Any], size_hw: tuple[int, int]) -> None:
    if values.ndim != 3 or values.size == 0:
        raise UsageError(f"the map has the shape {values.shape}, expected (classes, h, w) with at least one cell")
    if len(values) > 256:
        raise UsageError(f"the logits have {len(values)} classes, but labels are uint8: at most 256 can be told apart")
    if min(size_hw) < 1:
        raise UsageError(f"the frame's size {size_hw[0]}x{size_hw[1]} (height x width) must be positive")
