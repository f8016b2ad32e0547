"""Human pose from a source to the sinks: people are found or followed, estimated, drawn and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from sfpp.runtime.backends.protocol import Arrays
from sfpp.runtime.images import Image
from sfpp.runtime.people.detections import PersonFinder
from sfpp.runtime.people.tracking import Follower, Ids, People
from sfpp.runtime.pose import Pose, PoseEstimator, PreparedPeople
from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.frame import Frame, Source
from sfpp.runtime.video.run import RunReport, measured, run_frames, write_to
from sfpp.runtime.video.sinks.opening import Sink
from sfpp.runtime.video.sinks.records import KeypointsFile
from sfpp.runtime.video.stages import Stage

_STAGES = ("decode", "detect", "prepare", "infer", "keypoints", "draw", "encode", "json")


@dataclass(frozen=True, eq=False)
class TrackedPose:
    """The people of a frame who have a keypoint above the threshold: their pose, and (P,) int64 who they are."""

    pose: Pose
    ids: Ids


@dataclass(frozen=True, eq=False)
class PoseReport(RunReport[TrackedPose]):
    """What a run did with people.

    Attributes:
        people: how many were shown, all frames together.
        empty_frames: how many frames showed nobody.
    """

    people: int
    empty_frames: int

    @property
    def people_per_frame(self) -> float:
        """The mean."""
        return self.people / self.frames


def run_pose(
    model: PoseEstimator,
    source: Source,
    overlays: Sequence[Sink] = (),
    *,
    finder: PersonFinder,
    detect_every: int = 1,
    threshold: float = 0.3,
    keypoints: Sequence[KeypointsFile] = (),
    every: int = 1,
    max_frames: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_frame: Callable[[int], object] = lambda done: None,
) -> PoseReport:
    """Estimate the people of each frame of a source and hand them to the sinks, in order.

    The report's stages are decode, detect, prepare, infer, keypoints, and where there are sinks draw, encode, json.
    Several frames are under way at once, each in another stage, in threads; the sinks are written to in the caller's.
    Where people are followed, a frame needs the last one's answer, so detect to keypoints have one thread together.

    Args:
        model: what estimates.
        source: where the frames come from.
        overlays: take each frame with the skeletons over it; nothing is drawn if there are none.
        finder: finds people; see :func:`sfpp.runtime.people.choose_finder`.
        detect_every: ask it in every Nth frame only, and follow people by their keypoints in between.
        threshold: keypoints of a lower score, 0..1, are not shown; nor is a person who has no other ones.
        keypoints: take the keypoints of the people who are shown.
        every: take only every Nth frame, beginning with the first.
        max_frames: end after so many frames; None goes on to the source's end.
        should_stop: asked after every finished frame; the sinks then close as if the source had ended.
        on_frame: told after every finished frame how many are done.

    Raises:
        SfppError: the source holds no frame, the finder or the model failed, or a sink cannot write.
    """
    timer = StageTimer(stages=_STAGES)
    follower = Follower(finder, detect_every=detect_every, threshold=threshold)
    stages = estimation_stages(model, follower, timer, detect_every=detect_every, threshold=threshold)
    if overlays:
        stages.append(measured(timer, "draw", partial(_draw, threshold=threshold)))
    frames_by_people: Counter[int] = Counter()  # and not a list: a camera runs for weeks

    def finish(estimated: _Estimated) -> TrackedPose:
        frame, shown = estimated.frame, estimated.tracked
        frames_by_people[len(shown.ids)] += 1
        if estimated.picture_bgr is not None:
            write_to(overlays, frame, estimated.picture_bgr, timer, stage="encode")
        if keypoints:
            _write_keypoints(keypoints, frame, shown, timer)
        return shown

    report = run_frames(
        stages,
        finish,
        source,
        timer=timer,
        every=every,
        max_frames=max_frames,
        should_stop=should_stop,
        on_frame=on_frame,
    )
    people = sum(count * frames for count, frames in frames_by_people.items())
    return PoseReport(**vars(report), people=people, empty_frames=frames_by_people[0])


def estimation_stages(
    model: PoseEstimator, follower: Follower, timer: StageTimer, *, detect_every: int, threshold: float
) -> list[Stage]:
    """Return the stages from a frame to its people; what the last one makes has them in ``tracked``."""
    # Who is found anew in every frame does not wait for the last frame's keypoints; who is followed does.
    estimating = _separate_stages if detect_every == 1 else _one_stage
    *before, last = estimating(model, follower, timer)
    return [*before, last.then(partial(_leave_out_unsure, threshold=threshold))]


@dataclass(frozen=True, eq=False)
class _Located:
    frame: Frame
    people: People


@dataclass(frozen=True, eq=False)
class _Prepared:
    frame: Frame
    people: People
    prepared: PreparedPeople


@dataclass(frozen=True, eq=False)
class _Inferred:
    frame: Frame
    people: People
    prepared: PreparedPeople
    outputs: Sequence[Arrays]


@dataclass(frozen=True, eq=False)
class _Estimated:
    frame: Frame
    tracked: TrackedPose
    picture_bgr: Image | None = None


def _separate_stages(model: PoseEstimator, follower: Follower, timer: StageTimer) -> tuple[Stage, ...]:
    """Finding, preparing, inference and keypoints, each of another frame at a time."""

    def detect(frame: Frame) -> _Located:
        return _Located(frame, follower.find(frame.image_bgr, index=frame.index, name=frame.name))

    def prepare(at: _Located) -> _Prepared:
        return _Prepared(at.frame, at.people, model.prepare(at.frame.image_bgr, at.people.boxes_xywh))

    def infer(at: _Prepared) -> _Inferred:
        return _Inferred(at.frame, at.people, at.prepared, model.infer(at.prepared))

    def keypoints(at: _Inferred) -> _Estimated:
        return _Estimated(at.frame, TrackedPose(model.finish(at.outputs, at.prepared), at.people.ids))

    named: dict[str, Callable[[Any], Any]] = {
        "detect": detect,
        "prepare": prepare,
        "infer": infer,
        "keypoints": keypoints,
    }
    return tuple(measured(timer, name, work) for name, work in named.items())


def _one_stage(model: PoseEstimator, follower: Follower, timer: StageTimer) -> tuple[Stage, ...]:
    """All of that one frame after the other, since a frame's boxes are made of the last frame's keypoints."""
    detect, prepare, infer, keypoints = (stage.work for stage in _separate_stages(model, follower, timer))

    def estimate(frame: Frame) -> _Estimated:
        located = detect(frame) if follower.finds_next else _Located(frame, follower.follow(frame.image_bgr))
        estimated: _Estimated = keypoints(infer(prepare(located)))
        pose = estimated.tracked.pose
        follower.learn(located.people, pose.keypoints_xy, pose.scores)
        return estimated

    return (Stage("estimate", estimate),)


def _leave_out_unsure(estimated: _Estimated, *, threshold: float) -> _Estimated:
    return replace(estimated, tracked=_shown(estimated.tracked, threshold))


def _draw(estimated: _Estimated, *, threshold: float) -> _Estimated:
    pose, ids = estimated.tracked.pose, estimated.tracked.ids.tolist()
    return replace(estimated, picture_bgr=pose.draw(estimated.frame.image_bgr, threshold=threshold, ids=ids))


def _shown(tracked: TrackedPose, threshold: float) -> TrackedPose:
    """Leave out people of whom nothing is sure: a box may hold nobody."""
    pose = tracked.pose
    rows = np.flatnonzero(pose.above(threshold).any(axis=1))
    shown = replace(
        pose, keypoints_xy=pose.keypoints_xy[rows], scores=pose.scores[rows], boxes_xywh=pose.boxes_xywh[rows]
    )
    return TrackedPose(shown, tracked.ids[rows])


def _write_keypoints(files: Sequence[KeypointsFile], frame: Frame, shown: TrackedPose, timer: StageTimer) -> None:
    with timer.measure("json"):
        for file in files:
            file.write(frame, shown.pose, shown.ids)
