"""Segmentation from a source to the sinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sfpp.runtime.segmentation import Segmentation, Segmenter
from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.frames import Frame, Source
from sfpp.runtime.video.run import RunReport, run_frames, write_to
from sfpp.runtime.video.sinks import Sink


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
    """Segment the frames of a source one after the other and hand each to the sinks.

    The report's stages are decode, prepare, infer, labels, and where there are sinks draw, encode, masks.

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

    def answer(frame: Frame, timer: StageTimer) -> Segmentation:
        result = _segment(model, frame, timer)
        if overlays:
            with timer.measure("draw"):
                picture_bgr = result.draw(frame.image_bgr, alpha=alpha, legend=legend)
            write_to(overlays, frame, picture_bgr, timer, stage="encode")
        if masks:
            write_to(masks, frame, result.labels, timer, stage="masks")
        return result

    return run_frames(answer, source, every=every, max_frames=max_frames, should_stop=should_stop, on_frame=on_frame)


def _segment(model: Segmenter, frame: Frame, timer: StageTimer) -> Segmentation:
    with timer.measure("prepare"):
        prepared = model.prepare(frame.image_bgr)
    with timer.measure("infer"):
        outputs = model.infer(prepared)
    with timer.measure("labels"):
        return model.finish(outputs, prepared)
