"""The pipeline from a source through a model: which frames, until when, and what is told about it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.frame import Frame, Source
from sfpp.runtime.video.sinks.opening import Sink
from sfpp.runtime.video.stages import Stage, run_stages

Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class RunReport(Generic[Answer]):
    """What a run did.

    Attributes:
        frames: how many frames went through the model and were written.
        stopped: whether ``should_stop`` ended it before the source did.
        timer: latencies by stage: decode, and those of the model and the sinks. A run that was stopped has begun a few
            frames more than it has finished.
        warnings: what of the source could not be read, one line each.
        last: the answer for the last frame.
    """

    frames: int
    stopped: bool
    timer: StageTimer
    warnings: tuple[str, ...]
    last: Answer


def run_frames(
    stages: Sequence[Stage],
    finish: Callable[[Any], Answer],
    source: Source,
    *,
    timer: StageTimer,
    every: int = 1,
    max_frames: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_frame: Callable[[int], object] = lambda done: None,
) -> RunReport[Answer]:
    """Take the frames of a source through the stages, each in a thread of its own, and finish them in this thread.

    Args:
        stages: the first one takes a :class:`Frame`.
        finish: takes what the last stage made, in the order of the source, writes it and returns the answer. Files are
            touched by this thread alone, so a stage left behind by an impatient Ctrl-C cannot write into a closed one.
        source: where the frames come from.
        timer: measures ``decode``, and knows how many frames are finished.
        every: take only every Nth frame, beginning with the first.
        max_frames: end after so many frames; None goes on to the source's end.
        should_stop: asked after every finished frame; frames that are still on their way are then dropped.
        on_frame: told after every finished frame how many are done.

    Raises:
        SfppError: the source holds no frame, or a stage or ``finish`` failed; all frames before are finished.
    """
    done, stopped = 0, False
    chosen = _chosen(source, timer, every=every, max_frames=max_frames)
    with run_stages(chosen, stages, source_name="decode") as results:
        for result in results:
            last = finish(result)
            done += 1
            timer.frame_done()
            on_frame(done)
            stopped = should_stop()
            if stopped:
                break
            del result  # the next one may be long in coming
    assert done  # a source without a frame raises
    return RunReport(frames=done, stopped=stopped, timer=timer, warnings=tuple(source.warnings), last=last)


def measured(timer: StageTimer, name: str, work: Callable[[Any], Any]) -> Stage:
    """Return a stage whose every pass is measured under its own name."""

    def measured_work(item: Any) -> Any:
        with timer.measure(name):
            return work(item)

    return Stage(name, measured_work)


def expected_frames(source: Source, *, every: int = 1, max_frames: int | None = None) -> int | None:
    """How many frames a run will take, as far as the source knows its own length."""
    count = None if source.count is None else -(-source.count // every)
    return min((number for number in (count, max_frames) if number is not None), default=None)


def write_to(sinks: Sequence[Sink], frame: Frame, image: NDArray[np.uint8], timer: StageTimer, *, stage: str) -> None:
    """Hand the picture made from ``frame`` to all sinks, as one pass of ``stage``.

    Raises:
        SfppError: a sink cannot write it.
    """
    with timer.measure(stage):
        for sink in sinks:
            sink.write(frame, image)


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
        del frame
