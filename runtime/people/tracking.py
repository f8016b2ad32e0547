"""Who is who from frame to frame: found now and then, followed by their keypoints in between, told apart by overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import UsageError
from sfpp.runtime.people.detections import Boxes, PersonFinder, cut_to_frame, iou_matrix, kept_by_suppression

# Fewer points say nothing about where the person is and how large.
_FEWEST_KEYPOINTS = 3
# On each side, as a share of the longer one: keypoints are joints, and the body goes on beyond them. The longer one,
# since the joints of somebody seen from the side lie almost on a line.
_GROWTH = 0.1
# A box loses at most 3 % of its size a frame. A tighter crop shows the model less of the body, so that it sees fewer
# keypoints, and the next crop is tighter still: in ten frames of two clips, with the demonstration model, only 42 % and
# 58 % of the people stayed without this limit, and 100 % and 72 % with it.
_STRONGEST_SHRINK = 0.97
# Two followed people whose boxes are as alike as this are one, on whom both boxes have ended.
_SAME_PERSON_IOU = 0.8
Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class People:
    """Who is where in a frame: ``boxes_xywh`` (P, 4) float32 in frame pixels, ``ids`` (P,) int64."""

    boxes_xywh: Boxes
    ids: Ids


class Follower:
    """Says for each frame where the people are: from ``finder`` in every Nth frame, in between from their keypoints.

    For each frame call :meth:`find` or, where ``finds_next`` is false, :meth:`follow`; then :meth:`learn` with the
    keypoints. Boxes outside of the frame hold nobody. A person whose keypoints vanish is left out until the finder
    finds them again.

    Args:
        finder: finds people.
        detect_every: N.
        threshold: the score, 0..1, from which a keypoint counts as seen.

    Raises:
        UsageError: ``detect_every`` is less than 1.
    """

    def __init__(self, finder: PersonFinder, *, detect_every: int = 1, threshold: float = 0.3) -> None:
        if detect_every < 1:
            raise UsageError(f"detect_every is {detect_every}, expected 1 (find people in every frame) or more")
        self._finder = finder
        self._detect_every = detect_every
        self._threshold = threshold
        self._tracker = Tracker()
        self._frames = 0
        self._seen = People(np.empty((0, 4), np.float32), np.empty(0, np.int64))

    @property
    def finds_next(self) -> bool:
        """Whether it is the finder's turn."""
        return self._frames % self._detect_every == 0

    def find(self, frame_bgr: NDArray[Any], *, index: int = 0, name: str = "") -> People:
        """Ask the finder, whose arguments these are.

        Raises:
            SfppError: as the finder.
        """
        boxes_xywh = self._finder.find(frame_bgr, index=index, name=name).boxes_xywh
        boxes_xywh = boxes_xywh[_in_frame(boxes_xywh, frame_bgr)]
        return People(boxes_xywh, self._tracker.update(boxes_xywh))

    def follow(self, frame_bgr: NDArray[Any]) -> People:
        """Return the people of the last frame where their keypoints were, less those who have left the frame."""
        inside = _in_frame(self._seen.boxes_xywh, frame_bgr)
        people = People(self._seen.boxes_xywh[inside], self._seen.ids[inside])
        # Their ids are known: matching them anew could only confuse people who pass each other.
        self._tracker.follow(people.ids, people.boxes_xywh)
        return people

    def learn(self, people: People, keypoints_xy: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
        """Take the keypoints (P, K, 2) in frame pixels and scores (P, K) of ``people``, and go on to the next frame."""
        self._frames += 1
        seen = scores >= self._threshold
        present = np.flatnonzero(seen.sum(axis=1) >= _FEWEST_KEYPOINTS)
        boxes = [followed_box(people.boxes_xywh[row], keypoints_xy[row][seen[row]]) for row in present]
        boxes_xywh = np.array(boxes, np.float32).reshape(-1, 4)
        kept = kept_by_suppression(boxes_xywh, scores[present].mean(axis=1), max_iou=_SAME_PERSON_IOU)
        kept.sort()  # the order of people stays
        self._seen = People(boxes_xywh[kept], people.ids[present][kept])


def followed_box(last_xywh: Boxes, keypoints_xy: NDArray[np.float32]) -> Boxes:
    """Return the box around keypoints (K, 2), grown a little, and not much smaller than the last box (4,) was.

    Returns:
        (4,) float32: left, top, width, height.
    """
    left_top, right_bottom = keypoints_xy.min(axis=0), keypoints_xy.max(axis=0)
    growth = 2 * _GROWTH * (right_bottom - left_top).max()
    size_wh = np.maximum(right_bottom - left_top + growth, _STRONGEST_SHRINK * last_xywh[2:])
    return np.concatenate([(left_top + right_bottom - size_wh) / 2, size_wh]).astype(np.float32)


def _in_frame(boxes_xywh: Boxes, frame_bgr: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which boxes cover part of the frame; NaN passes, for the model to refuse in words."""
    visible = cut_to_frame(boxes_xywh, (frame_bgr.shape[0], frame_bgr.shape[1]))
    inside: NDArray[np.bool_] = ~np.any(visible[:, 2:] <= 0, axis=1)
    return inside


@dataclass
class _Track:
    """A person's last box, (4,) as left, top, width, height, and for how many frames it has not been seen."""

    box_xywh: Boxes
    lost: int = 0


class Tracker:
    """Gives each person a number, from 1 on, that stays while their boxes overlap from frame to frame.

    Args:
        min_iou: boxes that overlap by less are never the same person.
        max_lost: a person who is not seen for more frames than this is forgotten, and returns under a new number.

    Raises:
        UsageError: values out of range.
    """

    def __init__(self, *, min_iou: float = 0.3, max_lost: int = 30) -> None:
        if not 0 < min_iou <= 1 or max_lost < 0:
            raise UsageError(f"min_iou is {min_iou}, expected above 0 to 1; max_lost is {max_lost}, expected from 0")
        self._min_iou = min_iou
        self._max_lost = max_lost
        self._tracks: dict[int, _Track] = {}
        self._next_id = 1

    def update(self, boxes_xywh: Boxes) -> Ids:
        """Number the people of the next frame: (P, 4) boxes give (P,) ids. The best overlap chooses first."""
        ids = np.zeros(len(boxes_xywh), np.int64)
        for row, identity in self._matches(boxes_xywh):
            ids[row] = identity
        for new in np.flatnonzero(ids == 0):
            ids[new] = self._next_id
            self._next_id += 1
        self.follow(ids, boxes_xywh)
        return ids

    def follow(self, ids: Ids, boxes_xywh: Boxes) -> None:
        """Take the next frame's boxes of people whose ids are known; all others count as lost in it."""
        for identity in list(self._tracks):
            self._tracks[identity].lost += 1
            if self._tracks[identity].lost > self._max_lost:
                del self._tracks[identity]
        for identity, box in zip(ids.tolist(), boxes_xywh, strict=True):
            self._tracks[identity] = _Track(box)

    def _matches(self, boxes_xywh: Boxes) -> list[tuple[int, int]]:
        """Return pairs of row and id, greedily by overlap, each row and each id at most once."""
        known = list(self._tracks)
        if not known or not len(boxes_xywh):
            return []
        iou = iou_matrix(boxes_xywh, np.stack([self._tracks[identity].box_xywh for identity in known]))
        rows, columns = np.unravel_index(np.argsort(-iou, axis=None, kind="stable"), iou.shape)
        matches: dict[int, int] = {}
        # Optimal assignment would need another library, and differs from this only in dense crowds.
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            free = row not in matches and known[column] not in matches.values()
            if free and iou[row, column] >= self._min_iou:
                matches[row] = known[column]
        return list(matches.items())
