"""Frames with marks where the two answers differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sfpp.export.parity.comparison import Outcome
from sfpp.export.parity.frames import NamedFrame
from sfpp.export.parity.report import MarkedFrame
from sfpp.runtime.images import Image
from sfpp.runtime.overlay import Palette
from sfpp.runtime.pose import Pose
from sfpp.tooling.marks import marked_keypoints, marked_labels


def marked(frame_bgr: Image, answer: Any, expected: Any, palette: Palette) -> Image:
    """Return the frame with what differs between two answers marked, (H, W, 3) uint8 BGR: labels, or keypoints."""
    if isinstance(answer, Pose):
        everything = np.ones(answer.keypoints_xy.shape[:2], np.bool_)
        return marked_keypoints(frame_bgr, answer.keypoints_xy, expected.keypoints_xy, everything)
    return marked_labels(frame_bgr, answer, expected, palette)


class WorstFrames:
    """The frames on which the answers differ most; only so many pictures are held.

    Args:
        palette: a color for each class; empty for poses.
        limit: how many.
    """

    def __init__(self, palette: Palette, limit: int = 4) -> None:
        self._palette, self._limit = palette, limit
        self._kept: list[MarkedFrame] = []

    def add(self, outcome: Outcome, frames: Sequence[NamedFrame]) -> None:
        """Keep those of a batch that belong to the worst."""
        rows = zip(frames, outcome.answers, outcome.expected, outcome.agreements, strict=False)
        for frame, answer, expected, agreement in rows:
            if agreement.same == 1 or (len(self._kept) == self._limit and agreement.same >= self._kept[-1].same):
                continue
            # Drawn at once: keeping the frame and both answers until the end would take three times as much.
            picture = marked(frame.image_bgr, answer, expected, self._palette)
            kept = sorted([*self._kept, MarkedFrame(frame.name, picture, agreement.same)], key=lambda each: each.same)
            self._kept = kept[: self._limit]

    def pictures(self) -> tuple[MarkedFrame, ...]:
        """Return them, the worst first."""
        return tuple(self._kept)
