"""Keypoints as JSON lines, in the form of COCO's keypoint results."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.files import whole_file
from sfpp.runtime.pose import Pose
from sfpp.runtime.video.frames import Frame

_PERSON = 1  # COCO's number of the category
_PIXEL_DIGITS = 2
_SCORE_DIGITS = 4
_TIME_DIGITS = 3


class KeypointsFile:
    """Writes one line a person to ``stream``; use it through :func:`keypoints_file`."""

    def __init__(self, path: Path, stream: TextIO) -> None:
        self.path = path
        self._stream = stream

    def write(self, frame: Frame, pose: Pose, ids: NDArray[np.int64]) -> None:
        """Write the people of ``frame``, (P,) ids with them.

        Raises:
            OSError: the disk is full, or similar.
        """
        for person in coco_people(pose, ids):
            line = {
                "image_id": frame.index,
                "category_id": _PERSON,
                **person,
                "time_s": round(frame.time_s, _TIME_DIGITS),
                "frame_name": frame.name,
            }
            self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def keypoints_file(path: str | os.PathLike[str]) -> Iterator[KeypointsFile]:
    """Write keypoints into a file that appears under its name when it is complete.

    A line has ``image_id`` (the frame's number in its source, from 0), ``category_id`` 1, ``keypoints`` (x, y in frame
    pixels and score, one after the other), ``score`` (their mean), ``bbox`` (left, top, width, height), ``track_id``
    (the same for the same person), ``time_s`` from the start, and ``frame_name``.

    Ctrl-C within the block keeps what was written so far; any other error leaves nothing behind.

    Raises:
        SfppError: the folder does not exist, or the disk is full.
    """
    interruption: KeyboardInterrupt | None = None
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        try:
            yield KeypointsFile(Path(path), stream)
        except KeyboardInterrupt as error:
            interruption = error
    if interruption is not None:
        raise interruption


def coco_people(pose: Pose, ids: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return of each person what a line of the file says beside the frame; (P,) ids."""
    return [
        {
            "keypoints": _coco_keypoints(pose.keypoints_xy[row], pose.scores[row]),
            "score": round(float(pose.scores[row].mean()), _SCORE_DIGITS),
            "bbox": _rounded(pose.boxes_xywh[row], _PIXEL_DIGITS),
            "track_id": identity,
        }
        for row, identity in enumerate(ids.tolist())
    ]


def _coco_keypoints(keypoints_xy: NDArray[np.float32], scores: NDArray[np.float32]) -> list[float]:
    """Return x, y, score of each keypoint, one after the other."""
    values: list[float] = []
    for (x, y), score in zip(keypoints_xy.tolist(), scores.tolist(), strict=True):
        values += [round(x, _PIXEL_DIGITS), round(y, _PIXEL_DIGITS), round(score, _SCORE_DIGITS)]
    return values


def _rounded(values: NDArray[Any], digits: int) -> list[float]:
    return [round(value, digits) for value in values.tolist()]
