"""A run from sources through a model to sinks, as `sfpp-run` makes one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from sfpp.runtime.video import Delivery, Pipeline, SinkThread, SourceSinks


class Collected:
    """A sink that keeps what it is given."""

    def __init__(self):
        self.frames, self.given = [], []

    def write(self, frame, given):
        self.frames.append(frame)
        self.given.append(given)


@dataclass
class Report:
    """What a run did."""

    frames: int
    last: Any
    pipeline: Pipeline

    @property
    def timer(self):
        return self.pipeline.timer


def run(
    model,
    source,
    overlays=(),
    *,
    masks=(),
    keypoints=(),
    style=None,
    should_stop=lambda: False,
    on_frame=lambda done: None,
    **options,
):
    """Run one source that waits; sinks are given opened."""
    done, last = 0, None
    with contextlib.ExitStack() as stack:
        pipeline = stack.enter_context(Pipeline(model, [source], policy="every-frame", **options))

        def threads(stage, sinks):
            opened = [SinkThread(contextlib.nullcontext(sink), name=stage, policy="every-frame") for sink in sinks]
            return {stage + "+" * n: stack.enter_context(thread) for n, thread in enumerate(opened)}

        drawing = threads("drawing", [None])["drawing"] if overlays else None
        sinks = SourceSinks(
            threads("encode", overlays), threads("masks", masks), {}, threads("people", keypoints), drawing
        )
        delivery = Delivery({source.name: sinks}, style=style, timer=pipeline.timer)
        for answer in pipeline:
            delivery.take(answer)
            done, last = done + 1, answer.result
            on_frame(done)
            if should_stop():
                pipeline.stop()
    return Report(done, last, pipeline)
