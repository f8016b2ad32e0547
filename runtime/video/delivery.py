"""Answers to wherever they are wanted: each outlet in a thread of its own, pictures drawn once and only if needed."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.images import Image
from sfpp.runtime.model import SelfTestState
from sfpp.runtime.segmentation import Segmentation
from sfpp.runtime.timing import RateMeter
from sfpp.runtime.video.frame import Frame
from sfpp.runtime.video.pipeline import Answer
from sfpp.runtime.video.pose_run import TrackedPose
from sfpp.runtime.video.sinks.records import FrameRecord, pose_record, segmentation_record
from sfpp.runtime.video.sinks.thread import SinkThread

if TYPE_CHECKING:
    from sfpp.runtime.viewer import Viewer

Draw = Callable[[Answer], Image]


@dataclass(frozen=True)
class Outlets:
    """Where the answers for one source go; all of them entered by whoever opened them.

    Attributes:
        pictures: take the frames with what was found drawn over them.
        labels: take label values, (H, W) uint8; for segmentation.
        records: take a :class:`.outlets.FrameRecord` a frame.
        keypoints: files of :func:`sfpp.runtime.video.sinks.records`; for pose.
    """

    pictures: Sequence[SinkThread[Any]] = ()
    labels: Sequence[SinkThread[Any]] = ()
    records: Sequence[SinkThread[Any]] = ()
    keypoints: Sequence[SinkThread[Any]] = ()


@dataclass(frozen=True)
class Delivery:
    """Hands answers over.

    Attributes:
        draw: paints what was found onto a frame; called in an outlet's thread, once for all of them.
        outlets: by the source's name.
        viewer: shows every source's newest answer, to whoever looks.
        self_test: the model's, for the records; None leaves it out.
    """

    draw: Draw
    outlets: Mapping[str, Outlets] = field(default_factory=dict)
    viewer: Viewer | None = None
    self_test: SelfTestState | None = None
    _rates: dict[str, RateMeter] = field(default_factory=lambda: defaultdict(RateMeter), init=False, repr=False)

    def take(self, answer: Answer) -> None:
        """Hand an answer to all outlets of its source.

        Waits only for outlets of the policy ``every-frame``.

        Raises:
            SfppError: such an outlet failed.
        """
        outlets = self.outlets.get(answer.frame.source, Outlets())
        picture = _Drawn(answer, self.draw)
        for sink in outlets.pictures:
            sink.submit(partial(_write_picture, frame=answer.frame, picture=picture), source=answer.frame.source)
        if isinstance(answer.result, Segmentation):
            for sink in outlets.labels:
                sink.write(answer.frame, answer.result.labels)
        if isinstance(answer.result, TrackedPose):
            for sink in outlets.keypoints:
                sink.submit(partial(_write_keypoints, frame=answer.frame, found=answer.result))
        for sink in outlets.records:
            record = record_of(answer, self_test=self.self_test)
            sink.submit(partial(_write_record, record=record), source=answer.frame.source)
        rate = self._rates[answer.frame.source]
        rate.count()
        if self.viewer is not None:
            self.viewer.show(_update(answer, rate.per_second, self.draw))


def _write_picture(sink: Any, *, frame: Frame, picture: _Drawn) -> None:
    sink.write(frame, picture.image())


def _write_record(sink: Any, *, record: FrameRecord) -> None:
    sink.write_record(record)


def _write_keypoints(sink: Any, *, frame: Frame, found: TrackedPose) -> None:
    sink.write(frame, found.pose, found.ids)


class _Drawn:
    """A picture that is drawn by the first thread that wants it."""

    def __init__(self, answer: Answer, draw: Draw) -> None:
        self._answer = answer
        self._draw = draw
        self._image: NDArray[np.uint8] | None = None
        self._lock = threading.Lock()

    def image(self) -> NDArray[np.uint8]:
        """Return the picture."""
        with self._lock:
            if self._image is None:
                self._image = self._draw(self._answer)
            return self._image


def record_of(answer: Answer, *, self_test: SelfTestState | None = None) -> FrameRecord:
    """Return an answer as a line of JSON has it, with how the model's self-test stands."""
    if isinstance(answer.result, Segmentation):
        record = segmentation_record(answer.frame, answer.result, latency_ms=answer.latencies_ms)
    else:
        pose, ids = answer.result.pose, answer.result.ids
        record = pose_record(answer.frame, pose, ids, latency_ms=answer.latencies_ms)
    if self_test is None:
        return record
    return replace(record, self_test=self_test.outcome, self_test_agreement=self_test.agreement)


def draw_with(*, alpha: float = 0.5, legend: bool = True, threshold: float = 0.3) -> Draw:
    """Return how answers are drawn: classes' colors, or skeletons.

    Args:
        alpha: weight of the colors, 0..1.
        legend: whether the classes are named.
        threshold: keypoints of a lower score are left out.
    """

    def draw(answer: Answer) -> Image:
        frame_bgr = answer.frame.image_bgr
        if isinstance(answer.result, TrackedPose):
            return answer.result.pose.draw(frame_bgr, threshold=threshold, ids=answer.result.ids.tolist())
        return answer.result.draw(frame_bgr, alpha=alpha, legend=legend)

    return draw


def _update(answer: Answer, frames_per_second: float | None, draw: Draw) -> Any:
    from sfpp.runtime.viewer import ViewerUpdate

    facts: dict[str, Any] = {
        "source": answer.frame.source,
        "index": answer.frame.index,
        "image_bgr": answer.frame.image_bgr,
        "stages_ms": answer.latencies_ms,
        "age_ms": answer.age_ms,
        "frames_per_second": frames_per_second,
    }
    if isinstance(answer.result, Segmentation):
        return ViewerUpdate(labels=answer.result.labels, shares=answer.result.shares(), **facts)

    def skeletons(image_bgr: Image) -> Image:
        return draw(replace(answer, frame=replace(answer.frame, image_bgr=image_bgr)))

    return ViewerUpdate(people=len(answer.result.ids), draw=skeletons, **facts)
