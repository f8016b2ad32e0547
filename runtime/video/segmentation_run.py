"""Segmentation from a source to the sinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sfpp.runtime.backends.protocol import Arrays
from sfpp.runtime.images import Image
from sfpp.runtime.segmentation import PreparedFrames, Segmentation, Segmenter
from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.frame import Frame, Source
from sfpp.runtime.video.run import RunReport, measured, run_frames, write_to
from sfpp.runtime.video.sinks.opening import Sink
from sfpp.runtime.video.stages import Stage, run_together

_STAGES = ("decode", "prepare", "infer", "labels", "draw", "encode", "masks")


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
) -> RunReport[Segmentation]:
    """Segment the frames of a source and hand each to the sinks, in order; several frames are under way at once.

    The report's stages are decode, prepare, infer, labels, and where there are sinks draw, encode, masks. Each has a
    thread of its own; encode, and all calls of ``should_stop`` and ``on_frame``, are in the caller's.

    Args:
        model: what segments.
        source: where the frames come from.
        overlays: take each frame with the classes' colors over it; nothing is drawn if there are none.
        masks: take each frame's labels, (H, W) uint8.
        every: take only every Nth frame, beginning with the first.
        max_frames: end after so many segmented frames; None goes on to the source's end.
        alpha: weight of the colors in overlays, 0..1.
        legend: whether overlays name the classes.
        should_stop: asked after every finished frame; the sinks then close as if the source had ended.
        on_frame: told after every finished frame how many are done.

    Raises:
        SfppError: the source holds no frame, the model failed, or a sink cannot write.
    """
    timer = StageTimer(stages=_STAGES)
    draw = partial(_draw, alpha=alpha, legend=legend) if overlays else None

    def finish(segmented: _Segmented) -> Segmentation:
        # PNGs of masks take longer than H.264 frames; beside each other, the frame is done with the slower of the two.
        run_together(*_writing(segmented, overlays, masks, timer))
        return segmented.result

    return run_frames(
        _stages(model, draw, timer),
        finish,
        source,
        timer=timer,
        every=every,
        max_frames=max_frames,
        should_stop=should_stop,
        on_frame=on_frame,
    )


@dataclass(frozen=True, eq=False)
class _Prepared:
    frame: Frame
    prepared: PreparedFrames


@dataclass(frozen=True, eq=False)
class _Inferred:
    frame: Frame
    prepared: PreparedFrames
    outputs: Arrays


@dataclass(frozen=True, eq=False)
class _Segmented:
    frame: Frame
    result: Segmentation
    picture_bgr: Image | None = None


def _stages(model: Segmenter, draw: Callable[[_Segmented], _Segmented] | None, timer: StageTimer) -> tuple[Stage, ...]:
    """Preparing, inference and labels, and drawing if there is somebody to look at it."""
    stages = (
        measured(timer, "prepare", lambda frame: _Prepared(frame, model.prepare(frame.image_bgr))),
        measured(timer, "infer", lambda at: _Inferred(at.frame, at.prepared, model.infer(at.prepared))),
        measured(timer, "labels", lambda at: _Segmented(at.frame, model.finish(at.outputs, at.prepared))),
    )
    return stages if draw is None else (*stages, measured(timer, "draw", draw))


def _draw(segmented: _Segmented, *, alpha: float, legend: bool) -> _Segmented:
    frame, result = segmented.frame, segmented.result
    return _Segmented(frame, result, result.draw(frame.image_bgr, alpha=alpha, legend=legend))


def _writing(
    segmented: _Segmented, overlays: Sequence[Sink], masks: Sequence[Sink], timer: StageTimer
) -> list[Callable[[], None]]:
    """Return what is to be written of one frame, as tasks."""
    frame, tasks = segmented.frame, list[Callable[[], None]]()
    if segmented.picture_bgr is not None:
        tasks.append(partial(write_to, overlays, frame, segmented.picture_bgr, timer, stage="encode"))
    if masks:
        tasks.append(partial(write_to, masks, frame, segmented.result.labels, timer, stage="masks"))
    return tasks
