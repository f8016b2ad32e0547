"""What is known of one frame, as one line of JSON for other programs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.pose import Pose
from sfpp.runtime.segmentation import Segmentation
from sfpp.runtime.typed_json import json_ready
from sfpp.runtime.video.frames import Frame
from sfpp.runtime.video.keypoints_file import coco_people

_TIME_DIGITS = 3  # of seconds
_LATENCY_DIGITS = 2  # of milliseconds
_AGE_DIGITS = 1
_SHARE_DIGITS = 4


@dataclass(frozen=True)
class FrameRecord:
    """What is known of one frame. None, and latencies that nobody measured, are left out of the JSON.

    Attributes:
        source: the source's name.
        frame: the frame's number in its source, from 0.
        frame_name: the frame's name, unique within the source.
        time_s: seconds since the source's first frame.
        taken_unix_s: when the frame came, in seconds since 1970; None if that is not known.
        age_ms: milliseconds from there to when the record was made.
        latency_ms: milliseconds by stage.
        self_test: whether the model is known to answer here as it did when it was exported: ``passed``, ``failed``,
            ``damaged``, ``not carried`` or ``off``.
        self_test_agreement: the share, 0..1, of its answer that was as expected, if it was replayed in this run.
        shares: the part of the frame, 0..1, that each class covers; classes that cover nothing are left out.
        people: per person ``track_id``, ``score``, ``bbox`` (left, top, width, height) and ``keypoints`` (x, y in frame
            pixels and score, one after the other), as in the keypoints file.
    """

    source: str
    frame: int
    frame_name: str
    time_s: float
    taken_unix_s: float | None = None
    age_ms: float | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    self_test: str | None = None
    self_test_agreement: float | None = None
    shares: Mapping[str, float] | None = None
    people: Sequence[Mapping[str, Any]] | None = None

    def to_json(self) -> str:
        """Return the record as one line of JSON, without a line break."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        if not self.latency_ms:
            del values["latency_ms"]
        return json.dumps(json_ready(values), ensure_ascii=False)


def frame_record(frame: Frame, *, latency_ms: Mapping[str, float] | None = None) -> FrameRecord:
    """Return what is known of a frame without an answer; its age is that of now.

    Args:
        frame: the frame.
        latency_ms: milliseconds by stage.
    """
    taken_unix_s = age_ms = None
    if frame.taken_s:
        age_s = time.monotonic() - frame.taken_s
        age_ms = round(1000 * age_s, _AGE_DIGITS)
        taken_unix_s = round(time.time() - age_s, _TIME_DIGITS)
    return FrameRecord(
        source=frame.source,
        frame=frame.index,
        frame_name=frame.name,
        time_s=round(frame.time_s, _TIME_DIGITS),
        taken_unix_s=taken_unix_s,
        age_ms=age_ms,
        latency_ms={stage: round(value, _LATENCY_DIGITS) for stage, value in (latency_ms or {}).items()},
    )


def segmentation_record(
    frame: Frame, segmentation: Segmentation, *, latency_ms: Mapping[str, float] | None = None
) -> FrameRecord:
    """Return what is known of a segmented frame: the classes' shares of it."""
    rounded = {name: round(share, _SHARE_DIGITS) for name, share in segmentation.shares().items()}
    shares = {name: share for name, share in rounded.items() if share}
    return replace(frame_record(frame, latency_ms=latency_ms), shares=shares)


def pose_record(
    frame: Frame, pose: Pose, ids: NDArray[np.int64], *, latency_ms: Mapping[str, float] | None = None
) -> FrameRecord:
    """Return what is known of the people of a frame, with (P,) ids; without people, an empty list."""
    return replace(frame_record(frame, latency_ms=latency_ms), people=coco_people(pose, ids))
