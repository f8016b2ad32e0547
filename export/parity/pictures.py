"""Frames with marks where the two answers differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.export.parity.comparison import Outcome
from sfpp.export.parity.frames import NamedFrame
from sfpp.export.parity.report import MarkedFrame
from sfpp.runtime.agreement import boundaries
from sfpp.runtime.images import Image, bgr_from_frame
from sfpp.runtime.opencv import import_cv2
from sfpp.runtime.pose import Pose

# Yellow as (B, G, R): it stands out of a dimmed grey picture by its brightness alone.
_MARK_BGR = (66, 228, 240)
_DIMMED, _BORDER = 0.45, 150


def marked(frame_bgr: Image, answer: Any, expected: Any) -> Image:
    """Return the frame in dark grey with marks, (H, W, 3) uint8 BGR.

    Labels: thin lines between PyTorch's classes, and in yellow the pixels whose label differs. Poses: a ring where
    PyTorch has a keypoint and a disc where the file has it.
    """
    cv2 = import_cv2(purpose="drawing on frames")
    grey = cv2.cvtColor(bgr_from_frame(frame_bgr), cv2.COLOR_BGR2GRAY)
    image: Image = cv2.cvtColor(cv2.convertScaleAbs(grey, alpha=_DIMMED), cv2.COLOR_GRAY2BGR)
    if isinstance(answer, Pose):
        _mark_keypoints(image, answer.keypoints_xy[0], expected.keypoints_xy[0])
    else:
        image[boundaries(expected) > 0] = _BORDER
        image[answer != expected] = _MARK_BGR
    return image


def _mark_keypoints(image: Image, found_xy: NDArray[Any], expected_xy: NDArray[Any]) -> None:
    cv2 = import_cv2(purpose="drawing on frames")
    radius = max(2, round(min(image.shape[:2]) / 60))
    for found, expected in zip(np.rint(found_xy).astype(int), np.rint(expected_xy).astype(int), strict=True):
        ends = tuple(map(int, found)), tuple(map(int, expected))
        cv2.line(image, *ends, _MARK_BGR, 1, cv2.LINE_AA)
        cv2.circle(image, ends[0], radius, _MARK_BGR, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(image, ends[1], radius + 1, (255, 255, 255), 1, cv2.LINE_AA)


class WorstFrames:
    """The frames on which the answers differ most; only so many pictures are held.

    Args:
        limit: how many.
    """

    def __init__(self, limit: int = 4) -> None:
        self._limit = limit
        self._kept: list[MarkedFrame] = []

    def add(self, outcome: Outcome, frames: Sequence[NamedFrame]) -> None:
        """Keep those of a batch that belong to the worst."""
        rows = zip(frames, outcome.answers, outcome.expected, outcome.agreements, strict=False)
        for frame, answer, expected, agreement in rows:
            if agreement.same == 1 or (len(self._kept) == self._limit and agreement.same >= self._kept[-1].same):
                continue
            # Drawn at once: keeping the frame and both answers until the end would take three times as much.
            picture = marked(frame.image_bgr, answer, expected)
            kept = sorted([*self._kept, MarkedFrame(frame.name, picture, agreement.same)], key=lambda each: each.same)
            self._kept = kept[: self._limit]

    def pictures(self) -> tuple[MarkedFrame, ...]:
        """Return them, the worst first."""
        return tuple(self._kept)
