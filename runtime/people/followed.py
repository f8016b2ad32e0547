"""A pose model with what finds the people: frames in, people with their keypoints and numbers out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sfpp.runtime.backends.protocol import Arrays
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.model import Step
from sfpp.runtime.motion.options import check_logits
from sfpp.runtime.people.detections import PersonFinder
from sfpp.runtime.people.finders import choose_finder
from sfpp.runtime.people.tracking import Follower, People
from sfpp.runtime.video.frame import FitsSources

if TYPE_CHECKING:
    from sfpp.runtime.motion.options import Motion
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

        Raises:
            UsageError: motion was asked for.
        """
        if motion:
            check_logits(self.contract, wanted="carrying labels along motion")
        estimator = self._estimator
        followers: dict[str, Follower] = defaultdict(self._follower)

        def detect(frames: Sequence[Frame], _: None) -> _Estimating | None:
            (frame,) = frames
            follower = followers[frame.source]
            if not follower.finds_next:
                return None
            return _Estimating(follower.find(frame.image_bgr, index=frame.index, name=frame.name))

        def prepare(frames: Sequence[Frame], found: _Estimating | None) -> _Estimating:
            (frame,) = frames
            at = found or _Estimating(followers[frame.source].follow(frame.image_bgr))
            return replace(at, prepared=estimator.prepare(frame.image_bgr, at.people.boxes_xywh))

        def infer(frames: Sequence[Frame], at: _Estimating) -> _Estimating:
            assert at.prepared is not None
            return replace(at, outputs=estimator.infer(at.prepared))

        def keypoints(frames: Sequence[Frame], at: _Estimating) -> list[tuple[Frame, Pose]]:
            """Tell the keypoints, learn from them where to look next, and leave out people of whom nothing is sure."""
            assert at.prepared is not None
            pose = replace(estimator.finish(at.outputs, at.prepared), ids=at.people.ids)
            if self.in_order:
                followers[frames[0].source].learn(at.people, pose.keypoints_xy, pose.scores)
            return [(frames[0], pose.of_people(np.flatnonzero(pose.above(self._threshold).any(axis=1))))]

        return [
            Step("detect", detect),
            Step("prepare", prepare),
            Step("infer", infer),
            Step("keypoints", keypoints),
        ]

    def _follower(self) -> Follower:
        return Follower(self._finder, detect_every=self._detect_every, threshold=self._threshold)


@dataclass(frozen=True, eq=False)
class _Estimating:
    """What is known of a frame on its way."""

    people: People
    prepared: PreparedPeople | None = None
    outputs: Sequence[Arrays] = ()
