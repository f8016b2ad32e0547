"""The loop from a source through a model to the sinks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.segmentation import Segmentation, Segmenter
from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.frames import Frame, Source
from sfpp.runtime.video.sinks import Sink


@dataclass(frozen=True, eq=False)
class RunReport:
    """What a run did.

    Attributes:
        frames: how many frames were segmented.
        stopped: whether ``should_stop`` ended it before the source did.
        timer: latencies by stage: decode, prepare, infer, labels, and where there are sinks draw, encode, masks.
        warnings: what of the source could not be read, one line each.
        last: the answer for the last frame.
    """

    frames: int
    stopped: bool
    timer: StageTimer
    warnings: tuple[str, ...]
    last: Segmentation


def run_segmentation(
    model: Segmenter,
    source: Source,
    overlays: Sequence[Sink] = (),
    *,
    masks: Sequence[Sink] = (),
    every: int = 1,
    max_frames: int | None = None,
    alpha: float = 0.5,
    legend: bool = True,
    should_stop: Callable[[], bool] = lambda: False,
    on_frame: Callable[[int], object] = lambda done: None,
) -> RunReport:
    """Segment the frames of a source one after the other and hand each to the sinks.

    Args:
        model: what segments.
        source: where the frames come from.
        overlays: take each frame with the classes' colors over it; nothing is drawn if there are none.
        masks: take each frame's labels, (H, W) uint8.
        every: take only every Nth frame, beginning with the first.
        max_frames: end after so many segmented frames; None goes on to the source's end.
        alpha: weight of the colors in overlays, 0..1.
        legend: whether overlays name the classes.
        should_stop: asked after every frame; the sinks then close as if the source had ended.
        on_frame: told after every frame how many are done.

    Raises:
        SfppError: the source holds no frame, the model failed, or a sink cannot write.
    """
    timer = StageTimer()
    done, stopped, last = 0, False, None
    for frame in _chosen(source, timer, every=every, max_frames=max_frames):
        last = _segment(model, frame, timer)
        if overlays:
            with timer.measure("draw"):
                picture_bgr = last.draw(frame.image_bgr, alpha=alpha, legend=legend)
            _write(frame, picture_bgr, overlays, timer, stage="encode")
        if masks:
            _write(frame, last.labels, masks, timer, stage="masks")
        done += 1
        on_frame(done)
        stopped = should_stop()
        if stopped:
            break
    assert last is not None  # a source without a frame raises
    return RunReport(frames=done, stopped=stopped, timer=timer, warnings=tuple(source.warnings), last=last)


def expected_frames(source: Source, *, every: int = 1, max_frames: int | None = None) -> int | None:
    """How many frames a run will segment, as far as the source knows its own length."""
    count = None if source.count is None else -(-source.count // every)
    return min((number for number in (count, max_frames) if number is not None), default=None)


def _chosen(source: Source, timer: StageTimer, *, every: int, max_frames: int | None) -> Iterator[Frame]:
    stop = None if max_frames is None else (max_frames - 1) * every + 1
    frames = itertools.islice(source, 0, stop, every)
    while True:
        try:
            with timer.measure("decode"):
                frame = next(frames)
        except StopIteration:
            return
        yield frame


def _segment(model: Segmenter, frame: Frame, timer: StageTimer) -> Segmentation:
    with timer.measure("prepare"):
        prepared = model.prepare(frame.image_bgr)
    with timer.measure("infer"):
        outputs = model.infer(prepared)
    with timer.measure("labels"):
        return model.finish(outputs, prepared)


def _write(frame: Frame, image: NDArray[np.uint8], sinks: Sequence[Sink], timer: StageTimer, *, stage: str) -> None:
    with timer.measure(stage):
        for sink in sinks:
            sink.write(frame, image)
