"""Who is who from frame to frame, by the overlap of boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import UsageError
from sfpp.runtime.people.boxes import Boxes, iou_matrix

Ids = NDArray[np.int64]


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
