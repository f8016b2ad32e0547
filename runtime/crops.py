"""From a person's box to the crop that a pose model takes, and from the crop back to the frame.

Coordinates are those of OpenCV and MMPose: (0, 0) is the center of the frame's first pixel. A box (x, y, width, height)
is centered at (x + width / 2, y + height / 2); that point comes to lie in the middle of the crop, at (W / 2, H / 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfpp.runtime.errors import UsageError
from sfpp.runtime.images import Image
from sfpp.runtime.imports import import_cv2

Boxes = NDArray[np.float32]  # (P, 4): left, top, width, height
Doubles = NDArray[np.float64]


def checked_boxes(boxes_xywh: ArrayLike, frame_size_hw: tuple[int, int]) -> Boxes:
    """Return boxes as (P, 4) float32; an empty list gives (0, 4).

    Args:
        boxes_xywh: (P, 4), left, top, width and height in frame pixels; a box may reach beyond the frame.
        frame_size_hw: the frame's height and width.

    Raises:
        UsageError: another shape, NaN or infinity, no area, or a box that does not touch the frame; the first such box
            is named by its index.
    """
    boxes = _as_floats(boxes_xywh)
    left, top, width, height = boxes.astype(np.float64).T
    _refuse(np.isfinite(boxes).sum(axis=1) < 4, boxes, "expected finite numbers")
    _refuse((width <= 0) | (height <= 0), boxes, "expected a positive width and height")
    frame_height, frame_width = frame_size_hw
    outside = (left + width <= 0) | (top + height <= 0) | (left >= frame_width) | (top >= frame_height)
    size = f"{frame_width}x{frame_height} (width x height)"
    _refuse(outside, boxes, f"which does not touch the frame of {size}; leave such boxes out")
    return boxes


def _as_floats(boxes_xywh: ArrayLike) -> Boxes:
    expected = "expected (people, 4): left, top, width, height of each, in frame pixels"
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused later
            boxes = np.array(boxes_xywh, np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the boxes cannot be read as numbers ({error}); {expected}") from error
    if boxes.size == 0 and boxes.ndim <= 2:
        return np.zeros((0, 4), np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UsageError(f"the boxes have shape {boxes.shape}, {expected}")
    return boxes


def _refuse(wrong: NDArray[np.bool_], boxes: Boxes, reason: str) -> None:
    if wrong.any():
        index = int(wrong.argmax())
        box = ", ".join(f"{value:g}" for value in boxes[index])
        raise UsageError(f"box {index} is ({box}) (left, top, width, height), {reason}")


def region_from_box(
    box_xywh: Sequence[float] | NDArray[Any], input_size_hw: tuple[int, int], *, padding: float
) -> Doubles:
    """Return the part of the frame that becomes the crop: the box grown to the crop's aspect ratio, then by padding.

    Args:
        box_xywh: left, top, width, height.
        input_size_hw: the crop's height and width.
        padding: factor for both sides.

    Returns:
        (4,) float64: left, top, width, height in frame pixels; it may reach beyond the frame.
    """
    left, top, width, height = (float(value) for value in box_xywh)
    aspect = input_size_hw[1] / input_size_hw[0]
    # The shorter side grows: the whole box stays in the crop.
    grown = np.array([max(width, height * aspect), max(height, width / aspect)]) * padding
    center = np.array([left + width / 2, top + height / 2])
    return np.concatenate([center - grown / 2, grown])


def box_of_crop(size_hw: tuple[int, int], *, padding: float) -> Boxes:
    """Return the box (1, 4) that padding grows to the whole picture: for a picture that is one person's crop already.

    Args:
        size_hw: the picture's height and width, of the same ratio as the model's input.
        padding: factor for both sides, as for :func:`region_from_box`.
    """
    height, width = size_hw
    picture = np.array([width, height], np.float32)
    size = picture / np.float32(padding)
    return np.concatenate([(picture - size) / 2, size])[np.newaxis]


def warp_from_box(
    box_xywh: Sequence[float] | NDArray[Any], input_size_hw: tuple[int, int], *, padding: float = 1.25
) -> Doubles:
    """Return the affine map from frame pixels to crop pixels, as MMPose's ``get_warp_matrix`` without rotation.

    Args:
        box_xywh: left, top, width, height of a person in frame pixels.
        input_size_hw: the crop's height and width.
        padding: by how much the box grows, after it got the crop's aspect ratio.

    Returns:
        (2, 3) float64: crop (x, y) = matrix @ (x, y, 1).
    """
    left, top, width, _ = region_from_box(box_xywh, input_size_hw, padding=padding)
    scale = input_size_hw[1] / width
    return np.array([[scale, 0.0, -left * scale], [0.0, scale, -top * scale]])


def crop_from_box(
    image_bgr: Image, box_xywh: NDArray[Any], input_size_hw: tuple[int, int], *, padding: float = 1.25
) -> Image:
    """Return the crop, (H, W, 3) uint8 BGR of ``input_size_hw``; what lies beyond the frame is black."""
    cv2 = import_cv2(purpose="cropping people")
    matrix = warp_from_box(box_xywh, input_size_hw, padding=padding)
    # Linear and on black, even where the crop shrinks by much: so MMPose trains, and networks know what they saw.
    crop: Image = cv2.warpAffine(image_bgr, matrix, input_size_hw[::-1], flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))
    return crop


def frame_from_heatmap(
    coordinates: NDArray[Any],
    boxes_xywh: Boxes,
    heatmap_size_hw: tuple[int, int],
    input_size_hw: tuple[int, int],
    *,
    padding: float = 1.25,
) -> NDArray[np.float32]:
    """Bring keypoints from heatmap cells to frame pixels: the inverse of crop and stride.

    Cell (x, y) lies at crop pixel (x * W / w, y * H / h), which with MMPose's centers and scales is its
    ``keypoints / heatmap_size * scale + center - scale / 2``.

    Args:
        coordinates: (P, K, 2), x then y in heatmap cells.
        boxes_xywh: (P, 4), the people's boxes.
        heatmap_size_hw: the heatmaps' rows and columns.
        input_size_hw: the crop's height and width.
        padding: as it was for the crop.

    Returns:
        (P, K, 2) float32, x then y.
    """
    regions: Doubles = np.array([region_from_box(box, input_size_hw, padding=padding) for box in boxes_xywh]).reshape(
        -1, 1, 4
    )
    shares = coordinates / np.array(heatmap_size_hw[::-1], np.float64)
    keypoints_xy: Doubles = regions[..., :2] + shares * regions[..., 2:]
    return keypoints_xy.astype(np.float32)
