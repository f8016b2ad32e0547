"""Boxes as (left, top, width, height): overlap, suppression, cutting to the frame. Plain numpy, for few boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]


def iou_matrix(boxes_xywh: Boxes, others_xywh: Boxes) -> NDArray[np.float32]:
    """Return the intersection over union, 0..1, of each box with each other one: (P, 4) and (Q, 4) give (P, Q)."""
    first, second = boxes_xywh[:, np.newaxis], others_xywh[np.newaxis]
    left_top = np.maximum(first[..., :2], second[..., :2])
    right_bottom = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    common = np.clip(right_bottom - left_top, 0, None).prod(axis=-1)
    union = first[..., 2:].prod(axis=-1) + second[..., 2:].prod(axis=-1) - common
    iou: NDArray[np.float32] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


def kept_by_suppression(boxes_xywh: Boxes, scores: NDArray[np.float32], *, max_iou: float) -> NDArray[np.intp]:
    """Non-maximum suppression: of boxes that overlap by more than ``max_iou`` only the one with the best score stays.

    Returns:
        Indices of the boxes that stay, best score first.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while waiting.size:
        best, rest = waiting[0], waiting[1:]
        kept.append(best)
        # Row by row: a model may give thousands of candidates, whose whole matrix would not fit into memory.
        waiting = rest[iou_matrix(boxes_xywh[[best]], boxes_xywh[rest])[0] <= max_iou]
    return np.array(kept, np.intp)


def cut_to_frame(boxes_xywh: Boxes, frame_size_hw: tuple[int, int]) -> Boxes:
    """Return the part of each box that lies in the frame; a box outside gets width or height 0."""
    limit_xy = np.array(frame_size_hw[::-1], np.float32)
    left_top = np.clip(boxes_xywh[:, :2], 0, limit_xy)
    right_bottom = np.clip(boxes_xywh[:, :2] + boxes_xywh[:, 2:], 0, limit_xy)
    return np.concatenate([left_top, right_bottom - left_top], axis=1).astype(np.float32)
