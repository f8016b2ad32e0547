"""Human pose from a source to the sinks: people are found or followed, estimated, drawn and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sfpp.runtime.people.detections import PersonFinder
from sfpp.runtime.people.following import Follower, People
from sfpp.runtime.people.tracking import Ids
from sfpp.runtime.pose import Pose, PoseEstimator
from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.frames import Frame, Source
from sfpp.runtime.video.keypoints_file import KeypointsFile
from sfpp.runtime.video.run import RunReport, run_frames, write_to
from sfpp.runtime.video.sinks import Sink


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
    """Estimate the people of each frame of a source and hand them to the sinks.

    The report's stages are decode, detect, prepare, infer, keypoints, and where there are sinks draw, encode, json.

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
        should_stop: asked after every frame; the sinks then close as if the source had ended.
        on_frame: told after every frame how many are done.

    Raises:
        SfppError: the source holds no frame, the finder or the model failed, or a sink cannot write.
    """
    follower = Follower(finder, detect_every=detect_every, threshold=threshold)
    frames_by_people: Counter[int] = Counter()  # and not a list: a camera runs for weeks

    def answer(frame: Frame, timer: StageTimer) -> TrackedPose:
        shown = _shown(_estimate(model, follower, frame, timer), threshold)
        frames_by_people[len(shown.ids)] += 1
        if overlays:
            with timer.measure("draw"):
                picture_bgr = shown.pose.draw(frame.image_bgr, threshold=threshold, ids=shown.ids.tolist())
            write_to(overlays, frame, picture_bgr, timer, stage="encode")
        if keypoints:
            _write_keypoints(keypoints, frame, shown, timer)
        return shown

    report = run_frames(answer, source, every=every, max_frames=max_frames, should_stop=should_stop, on_frame=on_frame)
    people = sum(count * frames for count, frames in frames_by_people.items())
    return PoseReport(**vars(report), people=people, empty_frames=frames_by_people[0])


def _estimate(model: PoseEstimator, follower: Follower, frame: Frame, timer: StageTimer) -> TrackedPose:
    people = _people(follower, frame, timer)
    with timer.measure("prepare"):
        prepared = model.prepare(frame.image_bgr, people.boxes_xywh)
    with timer.measure("infer"):
        outputs = model.infer(prepared)
    with timer.measure("keypoints"):
        pose = model.finish(outputs, prepared)
    follower.learn(people, pose.keypoints_xy, pose.scores)
    return TrackedPose(pose, people.ids)


def _people(follower: Follower, frame: Frame, timer: StageTimer) -> People:
    if not follower.finds_next:
        return follower.follow(frame.image_bgr)
    with timer.measure("detect"):
        return follower.find(frame.image_bgr, index=frame.index, name=frame.name)


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
