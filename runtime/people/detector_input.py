"""A frame as detectors take it, and boxes back in the frame's pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.contract import InputSpec
from sfpp.runtime.images import Image, Placement, place_frame
from sfpp.runtime.opencv import import_cv2
from sfpp.runtime.people.boxes import Boxes, cut_to_frame
from sfpp.runtime.people.detector_output import DetectorContract


def letterboxed(image_bgr: Image, contract: DetectorContract, spec: InputSpec) -> tuple[NDArray[np.float32], Placement]:
    """Make a detector's input from a frame, with the frame's aspect ratio kept.

    Args:
        image_bgr: (H, W, 3) uint8 BGR.
        contract: color order, normalization, and where the frame lies amid which padding.
        spec: name and size of the input.

    Returns:
        (1, 3, height, width) float32, and where the frame lies in it.
    """
    placement = place_frame(image_bgr.shape[:2], spec)
    if contract.letterbox == "top-left":
        placement = replace(placement, top=0, left=0)
    cv2 = import_cv2(purpose="preparing a detector's input")
    # Linear even when it shrinks a lot, unlike for segmentation: detectors are trained with it.
    resized = cv2.resize(image_bgr, (placement.width, placement.height), interpolation=cv2.INTER_LINEAR)
    canvas = np.full((*spec.size_hw, 3), contract.pad_value, np.uint8)
    canvas[placement.top :, placement.left :][: placement.height, : placement.width] = resized
    ordered = canvas if contract.color_order == "BGR" else canvas[..., ::-1]
    values = (ordered - np.array(contract.mean, np.float32)) / np.array(contract.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis]), placement


def boxes_in_frame(boxes_xywh: NDArray[Any], placement: Placement) -> Boxes:
    """Move boxes (P, 4), left, top, width, height, from model pixels to frame pixels, and cut them to the frame."""
    scale_xy = np.array(placement.scale_yx[::-1], np.float32)
    left_top = (boxes_xywh[:, :2] - np.array([placement.left, placement.top], np.float32)) / scale_xy
    boxes = np.concatenate([left_top, boxes_xywh[:, 2:] / scale_xy], axis=1)
    return cut_to_frame(boxes, placement.frame_size_hw)
