"""A pose model with what finds the people: frames in, people with their keypoints and numbers out."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from sfpp.runtime.backends.protocol import Arrays
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.model import Step
from sfpp.runtime.motion.flow import Cuts
from sfpp.runtime.motion.options import KeyFrames, Motion
from sfpp.runtime.people.detections import PersonFinder
from sfpp.runtime.people.finders import choose_finder
from sfpp.runtime.people.motion import Lines, Steady, Succession, check_motion
from sfpp.runtime.people.tracking import Follower, People
from sfpp.runtime.video.frame import FitsSources

if TYPE_CHECKING:
    from sfpp.runtime.pose import Pose, PoseEstimator, PreparedPeople
    from sfpp.runtime.video.frame import Frame, Source


class FollowedPose:
    """A model for :class:`sfpp.runtime.video.Pipeline`: people are found or followed, and their keypoints estimated.

    Its results are poses with ``ids``, of the people who have a keypoint of at least ``threshold``: a box may hold
    nobody. Each source has its own people.

    Args:
        estimator: the pose model; it stays open.
        finder: finds people, and stays open; None takes HOG, or where OpenCV has none the whole frame for one person.
        detect_every: ask it in every Nth frame only, and follow people by their keypoints in between.
        threshold: the score, 0..1, from which a keypoint counts.

    Raises:
        UsageError: ``detect_every`` is less than 1.
    """

    batch = 1

    def __init__(
        self,
        estimator: PoseEstimator,
        finder: PersonFinder | None = None,
        *,
        detect_every: int = 1,
        threshold: float = 0.3,
    ) -> None:
        self._estimator = estimator
        self._finder = finder or choose_finder()[0]
        self._detect_every = detect_every
        self._threshold = threshold
        self._follower()

    @property
    def contract(self) -> ModelContract:
        """What the pose model takes and gives."""
        return self._estimator.contract

    @property
    def in_order(self) -> bool:
        """Who is found anew in every frame does not wait for the last frame's keypoints; who is followed does."""
        return self._detect_every > 1

    def fit(self, source: Source) -> None:
        """Let the finder know a source that will be read, if it wants to; UsageError if it has boxes of another one."""
        if isinstance(self._finder, FitsSources):
            self._finder.fit(source)

    def steps(self, *, motion: Motion | None = None, ahead: Collection[str] = ()) -> Sequence[Step]:
        """Return finding people, preparing, inference and keypoints.

        With ``motion``, keypoints are filtered (``smooth``, a One-Euro filter), and people are found and estimated in
        key frames only (``key_every``): those that are in both key frames go on straight lines in between.
        ``detect_every`` then counts key frames. The last frame of a source is a key frame too.

        Raises:
            UsageError: ``still``, or key frames without a source whose frames may wait; while it runs, of another one.
        """
        motion = motion or Motion()
        check_motion(motion, waits=bool(ahead))
        run = _Run(self._estimator, self._follower, motion, ahead, threshold=self._threshold, learns=self.in_order)
        return [
            Step("detect", run.detect),
            Step("prepare", run.prepare),
            # Where it is busy with a key frame, people are found in the next one meanwhile.
            Step("infer", run.infer, room=motion.key_every.room),
            Step("keypoints", run.keypoints, rest=run.rest),
        ]

    def _follower(self) -> Follower:
        return Follower(self._finder, detect_every=self._detect_every, threshold=self._threshold)


@dataclass(frozen=True, eq=False)
class _Estimating:
    """What is known of a key frame on its way."""

    people: People
    found_s: float = 0.0  # how long finding them took
    prepared: PreparedPeople | None = None
    outputs: Sequence[Arrays] = ()


class _Source:
    """What is kept of a source during a run."""

    def __init__(self, follower: Follower, motion: Motion, *, threshold: float) -> None:
        self.follower = follower
        self.succession = Succession()
        self.cuts = Cuts()
        self.keys = KeyFrames(motion.key_every, ahead=True)
        self.steady = Steady(motion.smooth or 0.0, threshold=threshold)
        self.lines = Lines(threshold)


class _Run:
    """The steps of one run; each may have a thread of its own.

    Args:
        estimator: the pose model.
        follower: makes what finds and follows the people of a source.
        motion: which frames are key frames, and how steady keypoints are.
        ahead: names of the sources whose frames may wait for the next key frame.
        threshold: the score, 0..1, from which a keypoint counts.
        learns: people are followed by their keypoints; all steps then share a thread.
    """

    def __init__(
        self,
        estimator: PoseEstimator,
        follower: Callable[[], Follower],
        motion: Motion,
        ahead: Collection[str],
        *,
        threshold: float,
        learns: bool,
    ) -> None:
        self._estimator = estimator
        self._follower = follower
        self._motion = motion
        self._ahead = ahead
        self._threshold = threshold
        self._learns = learns
        self._sources: dict[str, _Source] = {}
        self._between: set[Frame] = set()  # that are no key frames, on their way
        self._begins: set[Frame] = set()  # with which something else begins, on their way
        self._latest_s: list[float] = []  # that finding people and the network took for a key frame

    def detect(self, frames: Sequence[Frame], _: None) -> _Estimating | None:
        """Find people, where it is a key frame and they are not followed."""
        (frame,) = frames
        if frame.source not in self._sources:
            check_motion(self._motion, waits=frame.source in self._ahead)
            self._sources[frame.source] = _Source(self._follower(), self._motion, threshold=self._threshold)
        source, latest_s = self._sources[frame.source], list(self._latest_s)
        begins = source.succession.step_s(frame) is None
        if not self._motion.key_every.is_every_frame and source.cuts.begins(frame.image_bgr):
            begins = True
        if begins:
            self._begins.add(frame)
        if not source.keys.is_key(frame, begins=begins, infer_s=fmean(latest_s) if latest_s else None):
            self._between.add(frame)
            return None
        return self._found(frame)

    def _found(self, frame: Frame) -> _Estimating | None:
        follower, start_s = self._sources[frame.source].follower, time.perf_counter()
        if not follower.finds_next:
            return None
        people = follower.find(frame.image_bgr, index=frame.index, name=frame.name)
        return _Estimating(people, time.perf_counter() - start_s)

    def prepare(self, frames: Sequence[Frame], found: _Estimating | None) -> _Estimating | None:
        """Follow people that are not found anew, and make the network's input of a key frame."""
        (frame,) = frames
        if frame in self._between:
            return None
        at = found or _Estimating(self._sources[frame.source].follower.follow(frame.image_bgr))
        return replace(at, prepared=self._estimator.prepare(frame.image_bgr, at.people.boxes_xywh))

    def infer(self, _: Sequence[Frame], at: _Estimating | None) -> _Estimating | None:
        """Run the network on a key frame."""
        if at is None:
            return None
        assert at.prepared is not None
        start_s = time.perf_counter()
        outputs = self._estimator.infer(at.prepared)
        self._latest_s[:] = [*self._latest_s[-4:], at.found_s + time.perf_counter() - start_s]
        return replace(at, outputs=outputs)

    def keypoints(self, frames: Sequence[Frame], at: _Estimating | None) -> list[tuple[Frame, Pose]]:
        """Tell the keypoints, learn from them where to look next, and leave out people of whom nothing is sure."""
        (frame,) = frames
        source = self._sources[frame.source]
        if at is None:
            self._between.discard(frame)
            source.lines.wait(frame)
            return []
        assert at.prepared is not None
        pose = replace(self._estimator.finish(at.outputs, at.prepared), ids=at.people.ids)
        if self._learns:
            # From what the network saw: filtered keypoints lag, and so would the boxes in which it looks next.
            source.follower.learn(at.people, pose.keypoints_xy, pose.scores)
        begins = frame in self._begins
        self._begins.discard(frame)
        shown = source.steady.take(frame, pose.of_people_above(self._threshold))
        return list(source.lines.key(frame, shown, begins=begins))

    def rest(self) -> list[tuple[Frame, Pose]]:
        """Make a key frame of each source's last one, so that none is left without."""
        done: list[tuple[Frame, Pose]] = []
        for source in self._sources.values():
            if (frame := source.lines.take_last()) is not None:
                at = self.infer([frame], self.prepare([frame], self._found(frame)))
                done += self.keypoints([frame], at)
        return done
