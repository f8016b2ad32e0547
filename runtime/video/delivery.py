"""Answers to wherever they are wanted: each sink in a thread of its own, frames drawn once and only if needed."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sfpp.runtime.images import Image
from sfpp.runtime.model import SelfTestState
from sfpp.runtime.timing import RateMeter, StageTimer
from sfpp.runtime.video.frame import Frame
from sfpp.runtime.video.pipeline import Answer
from sfpp.runtime.video.sinks.records import frame_record
from sfpp.runtime.video.sinks.thread import SinkThread

if TYPE_CHECKING:
    from sfpp.runtime.viewer import Viewer, ViewerUpdate


@dataclass(frozen=True)
class SourceSinks:
    """Where the answers for one source go, by the names of the stages; all of them entered by whoever opened them.

    Attributes:
        overlays: take the frames with what was found drawn over them.
        masks: take label values, (H, W) uint8, or a mask of each class under the frame's name and the class's; for
            segmentation.
        records: take what :func:`sfpp.runtime.video.frame_record` returns of each frame.
        keypoints: files of :func:`sfpp.runtime.video.keypoints_file`; for pose.
        drawing: draws the next frame while the last one is still being encoded; None leaves drawing to the overlays,
            which is less work where they take only some of the frames.
    """

    overlays: Mapping[str, SinkThread] = field(default_factory=dict)
    masks: Mapping[str, SinkThread] = field(default_factory=dict)
    records: Mapping[str, SinkThread] = field(default_factory=dict)
    keypoints: Mapping[str, SinkThread] = field(default_factory=dict)
    drawing: SinkThread | None = None


class Delivery:
    """Hands answers over to sinks and the page.

    Args:
        sinks: by the source's name.
        style: arguments of the results' ``draw``, such as ``alpha``, ``legend``, ``threshold``.
        viewer: shows every source's newest answer, to whoever looks.
        self_test: the model's, for the records; None leaves it out.
        timer: measures drawing and each sink.
    """

    def __init__(
        self,
        sinks: Mapping[str, SourceSinks] | None = None,
        *,
        style: Mapping[str, Any] | None = None,
        viewer: Viewer | None = None,
        self_test: SelfTestState | None = None,
        timer: StageTimer | None = None,
    ) -> None:
        self._sinks = sinks or {}
        self._style = style or {}
        self._viewer = viewer
        self._self_test = self_test
        self._timer = timer or StageTimer()
        for each in self._sinks.values():
            self._timer.expect((*each.overlays, *each.masks, *each.records, *each.keypoints))
        self._rates: dict[str, RateMeter] = defaultdict(RateMeter)

    def take(self, answer: Answer) -> None:
        """Hand an answer to all sinks of its source.

        Waits only for sinks of the policy ``every-frame``.

        Raises:
            SfppError: such a sink failed.
        """
        frame, result = answer.frame, answer.result
        sinks = self._sinks.get(frame.source, SourceSinks())
        drawn = _Drawn(answer, self._style, self._timer)
        if sinks.drawing is not None:
            sinks.drawing.submit(lambda _: drawn.image(), source=frame.source)
        self._submit(sinks.overlays, frame, drawn.image, lambda sink, image: sink.write(frame, image))
        self._submit(sinks.masks, frame, lambda: result.mask_images(), partial(_write_masks, frame))
        self._submit(sinks.keypoints, frame, lambda: result, lambda sink, pose: sink.write(frame, pose))
        if sinks.records:
            record = frame_record(frame, result, latency_ms=answer.latencies_ms, self_test=self._self_test)
            self._submit(sinks.records, frame, lambda: record, lambda sink, line: sink.write_record(line))
        rate = self._rates[frame.source]
        rate.count()
        if self._viewer is not None:
            self._viewer.show(_update(answer, rate.per_second, self._style))

    def _submit(
        self,
        threads: Mapping[str, SinkThread],
        frame: Frame,
        make: Callable[[], Any],
        write: Callable[[Any, Any], object],
    ) -> None:
        def work(sink: Any, *, stage: str) -> None:
            made = make()  # before the clock starts: drawing is a stage of its own
            with self._timer.measure(stage):
                write(sink, made)

        for stage, thread in threads.items():
            thread.submit(partial(work, stage=stage), source=frame.source)


class _Drawn:
    """A frame that is drawn over by the first thread that wants it."""

    def __init__(self, answer: Answer, style: Mapping[str, Any], timer: StageTimer) -> None:
        self._answer = answer
        self._style = style
        self._timer = timer
        self._image: Image | None = None
        self._lock = threading.Lock()

    def image(self) -> Image:
        """Return (H, W, 3) uint8 BGR."""
        with self._lock:
            if self._image is None:
                with self._timer.measure("draw"):
                    self._image = self._answer.result.draw(self._answer.frame.image_bgr, **self._style)
            return self._image


def _write_masks(frame: Frame, sink: Any, images: Mapping[str, Image]) -> None:
    for ending, image in images.items():
        sink.write(replace(frame, name=f"{frame.name}{ending}"), image)


def _update(answer: Answer, frames_per_second: float | None, style: Mapping[str, Any]) -> ViewerUpdate:
    from sfpp.runtime.viewer import ViewerUpdate

    frame, result = answer.frame, answer.result
    facts: dict[str, Any] = {
        "source": frame.source,
        "index": frame.index,
        "image_bgr": frame.image_bgr,
        "stages_ms": answer.latencies_ms,
        "age_ms": answer.age_ms,
        "frames_per_second": frames_per_second,
    }
    if hasattr(result, "labels"):  # which the page draws itself, so that classes can be switched off
        facts["labels_age_ms"] = answer.labels_age_ms
        return ViewerUpdate(labels=result.labels, shares=result.shares(), **facts)
    people = len(result) if isinstance(result, Sized) else None
    return ViewerUpdate(people=people, draw=lambda image_bgr: result.draw(image_bgr, **style), **facts)
