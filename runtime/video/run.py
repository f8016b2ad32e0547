"""The loop from a source through a model: which frames, until when, and what is told about it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.frames import Frame, Source
from sfpp.runtime.video.sinks import Sink

Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class RunReport(Generic[Answer]):
    """What a run did.

    Attributes:
        frames: how many frames went through the model.
        stopped: whether ``should_stop`` ended it before the source did.
        timer: latencies by stage: decode, and those of the model and the sinks.
        warnings: what of the source could not be read, one line each.
        last: the answer for the last frame.
    """

    frames: int
    stopped: bool
    timer: StageTimer
    warnings: tuple[str, ...]
    last: Answer


def run_frames(
    answer: Callable[[Frame, StageTimer], Answer],
    source: Source,
    *,
    every: int = 1,
    max_frames: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_frame: Callable[[int], object] = lambda done: None,
) -> RunReport[Answer]:
    """Answer the frames of a source one after the other.

    Args:
        answer: does all that is to be done with one frame, and measures its stages.
        source: where the frames come from.
        every: take only every Nth frame, beginning with the first.
        max_frames: end after so many frames; None goes on to the source's end.
        should_stop: asked after every frame.
        on_frame: told after every frame how many are done.

    Raises:
        SfppError: the source holds no frame, or ``answer`` failed.
    """
    timer = StageTimer()
    done, stopped = 0, False
    for frame in _chosen(source, timer, every=every, max_frames=max_frames):
        last = answer(frame, timer)
        done += 1
        on_frame(done)
        stopped = should_stop()
        if stopped:
            break
    assert done  # a source without a frame raises
    return RunReport(frames=done, stopped=stopped, timer=timer, warnings=tuple(source.warnings), last=last)


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
