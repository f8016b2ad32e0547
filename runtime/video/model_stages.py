"""The stages of a model, on frames one by one or several at once, with the time that each took of them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sfpp.runtime.backends.protocol import Arrays
from sfpp.runtime.errors import UsageError
from sfpp.runtime.people.detections import PersonFinder
from sfpp.runtime.people.tracking import Follower
from sfpp.runtime.pose import PoseEstimator
from sfpp.runtime.segmentation import PreparedFrames, Segmenter
from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.frame import Frame
from sfpp.runtime.video.pose_run import estimation_stages
from sfpp.runtime.video.stages import Stage
from sfpp.runtime.video.steady import Steady


@dataclass(eq=False)
class Work:
    """Frames on their way: what a stage has made of them, and how long each stage took."""

    frames: tuple[Frame, ...]
    state: Any = None
    answers: list[tuple[Frame, Any]] = field(default_factory=list)
    latencies_ms: dict[str, float] = field(default_factory=dict)


def timed(timer: StageTimer, name: str, work: Callable[[Work], None]) -> Stage:
    """Return a stage that changes its work item, measured for the run and for the item."""

    def step(item: Work) -> Work:
        start = time.perf_counter()
        with timer.measure(name):
            work(item)
        item.latencies_ms[name] = 1e3 * (time.perf_counter() - start)
        return item

    return Stage(name, step)


def segmentation_stages(model: Segmenter, timer: StageTimer, *, smooth: float) -> list[Stage]:
    """Return preparing, inference and labels, of as many frames at once as a work item has.

    Raises:
        UsageError: smoothing for a model whose output are labels.
    """
    output = model.contract.output_of_kind("logits", "labels")
    steady: dict[str, Steady] = defaultdict(partial(Steady, smooth))
    if smooth:
        Steady(smooth)  # refuses what cannot be meant, before anything runs
        if output.kind != "logits":
            raise UsageError("smoothing needs logits, and this model gives labels; export it with --output logits")

    def prepare(work: Work) -> None:
        work.state = model.prepare_batch([frame.image_bgr for frame in work.frames])

    def infer(work: Work) -> None:
        work.state = work.state, model.infer(work.state)

    def labels(work: Work) -> None:
        prepared: PreparedFrames
        outputs: Arrays
        prepared, outputs = work.state
        if smooth:
            values = outputs[output.name].astype("float32")
            for row, frame in enumerate(work.frames):
                values[row] = steady[frame.source].smoothed(values[row], frame.image_bgr)
            outputs = {**outputs, output.name: values}
        work.answers = list(zip(work.frames, model.finish_batch(outputs, prepared), strict=True))
        work.state = None

    return [timed(timer, each.__name__, each) for each in (prepare, infer, labels)]


def pose_stages(
    model: PoseEstimator,
    timer: StageTimer,
    *,
    finder: PersonFinder | None,
    detect_every: int,
    threshold: float,
    sources: int,
) -> list[Stage]:
    """Return finding people, preparing, inference and keypoints; one stage for all where people are followed.

    Raises:
        UsageError: no finder, or people to be followed in several sources at once.
    """
    if finder is None:
        raise UsageError(
            "a pose model needs somebody to find people; give finder=choose_finder(...) of sfpp.runtime.people"
        )
    if detect_every > 1 and sources > 1:
        raise UsageError("people are followed in one source only; leave detect_every at 1 with several sources")
    follower = Follower(finder, detect_every=detect_every, threshold=threshold)
    *steps, last = estimation_stages(model, follower, timer, detect_every=detect_every, threshold=threshold)
    wrapped = [Stage(step.name, partial(_stepped, step=step)) for step in (*steps, last)]
    wrapped[-1] = wrapped[-1].then(_with_answer)
    return wrapped


def _stepped(item: Work, *, step: Stage) -> Work:
    """Take a work item one step on; frames come one by one here."""
    (frame,) = item.frames
    start = time.perf_counter()
    item.state = step.work(frame if item.state is None else item.state)
    item.latencies_ms[step.name] = 1e3 * (time.perf_counter() - start)
    return item


def _with_answer(item: Work) -> Work:
    item.answers = [(item.frames[0], item.state.tracked)]
    item.state = None
    return item
