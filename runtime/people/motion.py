"""Keypoints in motion: steadied from frame to frame, and on straight lines between the frames that the network saw."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import UsageError
from sfpp.runtime.motion.options import LONGEST_GAP_S, FromKey, Motion

if TYPE_CHECKING:
    from sfpp.runtime.pose import Pose
    from sfpp.runtime.video.frame import Frame

# Somebody who stands is filtered at 8 (1 - A) / A Hz: 2 Hz at the usual A of 0.8, and ever more the nearer A is to 0.
_CUTOFF_HZ = 8.0
# Hz for each diagonal of the person's box a second: the faster a joint, the less it is filtered, and so the less it
# lags behind. In diagonals, since near and far people shall be alike.
_BETA = 20.0
_VELOCITY_CUTOFF_HZ = 1.0
_Number = TypeVar("_Number", float, NDArray[np.float64])


def check_motion(motion: Motion, *, waits: bool) -> None:
    """Refuse what cannot be done with keypoints.

    Args:
        motion: what is asked for.
        waits: frames may wait for later ones: they come from a file, and nobody forbade to look ahead.

    Raises:
        UsageError: ``still``, or key frames where no frame may wait.
    """
    if motion.still:
        raise UsageError(
            "still (--still) is for segmentation models, and this is a pose model; leave it out, and find people less "
            "often with detect_every=5 (--detect-every 5)"
        )
    if not waits and not motion.key_every.is_every_frame:
        raise UsageError(
            f"key_every={motion.key_every} (--key-every) lets keypoints lie between those of the key frames before and "
            "after, and needs a file and its look ahead for that; leave it out, and find people less often with "
            "detect_every=5 (--detect-every 5), or take fewer frames with every=2 (--every 2)"
        )


class Succession:
    """Tells which frames of a source go on where the one before was."""

    def __init__(self) -> None:
        self._last: tuple[float, tuple[int, ...]] | None = None

    def step_s(self, frame: Frame) -> float | None:
        """Take the next frame; return how many seconds, 0..0.5, it comes after the last one.

        Returns:
            None where another begins: the first one, one of another size, earlier, or later than that.
        """
        last, self._last = self._last, (frame.time_s, frame.image_bgr.shape)
        if last is None or last[1] != self._last[1]:
            return None
        step_s = frame.time_s - last[0]
        return step_s if 0 <= step_s <= LONGEST_GAP_S else None


@dataclass(frozen=True, eq=False)
class Joints:
    """The filtered keypoints of a person.

    ``xy`` is (K, 2) float64 in frame pixels, ``velocity_xy`` (K, 2) float64 in pixels per second, ``seen`` (K,) bool.
    """

    xy: NDArray[np.float64]
    velocity_xy: NDArray[np.float64]
    seen: NDArray[np.bool_]


def one_euro(before: Joints | None, now: Joints, *, step_s: float, diagonal: float, min_cutoff_hz: float) -> Joints:
    """Take one step of the One-Euro filter (Casiez, Roussel and Vogel, CHI 2012), on each joint's place and speed.

    Args:
        before: what came out for the last frame; None begins anew.
        now: the keypoints as they are found, with any velocity; those that are not seen stay as they are, and begin
            anew once they are seen again.
        step_s: seconds between the two frames, above 0.
        diagonal: of the person's box, in pixels.
        min_cutoff_hz: below this, what a joint at rest does is kept.
    """
    if before is None:
        return replace(now, velocity_xy=np.zeros_like(now.xy))
    goes_on = (before.seen & now.seen)[:, np.newaxis]
    change = now.xy - before.xy
    velocity = before.velocity_xy + _gain(_VELOCITY_CUTOFF_HZ, step_s) * (change / step_s - before.velocity_xy)
    speed: NDArray[np.float64] = np.linalg.norm(velocity, axis=1, keepdims=True) / diagonal
    xy = before.xy + _gain(min_cutoff_hz + _BETA * speed, step_s) * change
    return Joints(np.where(goes_on, xy, now.xy), np.where(goes_on, velocity, 0.0), now.seen)


def _gain(cutoff_hz: _Number, step_s: float) -> _Number:
    """Return how much of a new value a low-pass filter takes, 0..1."""
    turn = 2 * math.pi * step_s * cutoff_hz
    return turn / (1 + turn)


class Steady:
    """Filters the keypoints of one source's people, who are known by their ids; scores stay.

    Who is not in a frame is forgotten. After a gap of more than half a second, at another size, or where the time does
    not go on, all begin anew.

    Args:
        smooth: 0 (not at all) to below 1.
        threshold: the score, 0..1, from which a keypoint counts as seen.
    """

    def __init__(self, smooth: float, *, threshold: float) -> None:
        self._min_cutoff_hz = _CUTOFF_HZ * (1 - smooth) / smooth if smooth else None
        self._threshold = threshold
        self._succession = Succession()
        self._people: dict[int, Joints] = {}

    def take(self, frame: Frame, pose: Pose) -> Pose:
        """Return the pose of the next frame, which has ids, with its keypoints filtered."""
        if self._min_cutoff_hz is None:
            return pose
        step_s = self._succession.step_s(frame) or 0.0
        before, self._people = self._people if step_s else {}, {}
        keypoints_xy, seen = pose.keypoints_xy.astype(np.float64), pose.above(self._threshold)
        diagonals = np.linalg.norm(pose.boxes_xywh[:, 2:], axis=1).tolist()
        for row, identity in enumerate(_ids(pose).tolist()):
            now = Joints(keypoints_xy[row], np.zeros_like(keypoints_xy[row]), seen[row])
            self._people[identity] = one_euro(
                before.get(identity),
                now,
                step_s=step_s,
                diagonal=diagonals[row],
                min_cutoff_hz=self._min_cutoff_hz,
            )
            keypoints_xy[row] = self._people[identity].xy
        return replace(pose, keypoints_xy=keypoints_xy.astype(np.float32))


def between(early: Pose, late: Pose, share: float) -> Pose:
    """Return the pose between those of two key frames, with everybody whom both have, in the order of the early one.

    Keypoints and boxes move on straight lines. A score is the lower of both, since a joint that was not seen at one end
    may be anywhere in between. Who is in one of the frames only came or went nobody knows when or where, and is left
    out.

    Args:
        early, late: the poses, with ids.
        share: of the way from the early to the late one, 0..1.
    """
    _, rows, others = np.intersect1d(_ids(early), _ids(late), return_indices=True)
    order = np.argsort(rows)
    one, other = early.of_people(rows[order]), late.of_people(others[order])
    weight = np.float32(share)
    return replace(
        one,
        keypoints_xy=one.keypoints_xy + weight * (other.keypoints_xy - one.keypoints_xy),
        scores=np.minimum(one.scores, other.scores),
        boxes_xywh=one.boxes_xywh + weight * (other.boxes_xywh - one.boxes_xywh),
    )


class Lines:
    """Gives the frames between the key frames of one source their poses, and brings all into order.

    Frames that no key frame follows before another scene or size, or a gap of more than half a second, have nobody in
    them.

    Args:
        threshold: people without any keypoint of this score, 0..1, are left out.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._key: tuple[Frame, Pose] | None = None
        self._waiting: list[Frame] = []

    def wait(self, frame: Frame) -> None:
        """Take the next frame, which is no key frame."""
        self._waiting.append(frame)

    def key(self, frame: Frame, pose: Pose, *, begins: bool) -> Iterator[tuple[Frame, Pose]]:
        """Take the next frame, a key frame, with its pose; yield those that waited for it, and it.

        Args:
            frame: of the source.
            pose: of everybody in it.
            begins: it does not go on where the frame before was.
        """
        if self._key is not None:
            yield from self._between(*self._key, frame, None if begins else pose)
        self._key, self._waiting = (frame, pose), []
        yield frame, pose

    def take_last(self) -> Frame | None:
        """Return the last frame that still waits, to be made a key frame; it waits no longer."""
        return self._waiting.pop() if self._waiting else None

    def _between(self, key: Frame, early: Pose, end: Frame, late: Pose | None) -> Iterator[tuple[Frame, Pose]]:
        for number, frame in enumerate(self._waiting, 1):
            from_key = FromKey(key.index, frame.time_s - key.time_s)
            if late is None:
                yield frame, replace(early.of_people(np.empty(0, np.intp)), from_key=from_key)
                continue
            whole_s = end.time_s - key.time_s
            # Pictures without times are counted.
            share = from_key.seconds / whole_s if whole_s > 0 else number / (len(self._waiting) + 1)
            pose = replace(between(early, late, share), from_key=from_key)
            yield frame, pose.of_people_above(self._threshold)


def _ids(pose: Pose) -> NDArray[np.int64]:
    assert pose.ids is not None, "the people are followed"
    return pose.ids
