"""A model at work on one or several sources: answers as they come, and nothing older than it must be."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, get_args

from sfpp.runtime.errors import UsageError, did_you_mean
from sfpp.runtime.events import EventHandler, ignore
from sfpp.runtime.people.detections import PersonFinder
from sfpp.runtime.pose import PoseEstimator
from sfpp.runtime.segmentation import Segmentation, Segmenter
from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.frame import Frame, Source
from sfpp.runtime.video.model_stages import Work, pose_stages, segmentation_stages
from sfpp.runtime.video.pacer import Pacer
from sfpp.runtime.video.pose_run import TrackedPose
from sfpp.runtime.video.readers import Readers, check_names
from sfpp.runtime.video.sinks.thread import Policy
from sfpp.runtime.video.sources.opening import open_source
from sfpp.runtime.video.stages import Stage, run_stages

POLICIES: tuple[Policy, ...] = get_args(Policy)

# How long a source that is stuck is waited for at the end.
_PATIENCE_S = 2.0


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model says of a frame.

    Attributes:
        frame: the frame, with its source's name.
        result: a :class:`sfpp.runtime.Segmentation`, or for a pose model a
            :class:`sfpp.runtime.video.TrackedPose`.
        age_ms: from when the frame came to now.
        latencies_ms: of each stage, for this frame; of frames that were computed together, for all of them.
    """

    frame: Frame
    result: Segmentation | TrackedPose
    age_ms: float
    latencies_ms: dict[str, float] = field(default_factory=dict)


class Pipeline:
    """A model and its sources. Iterate it for answers; it is a context manager, and ends with the sources.

        with Pipeline(model, ["rtsp://camera/street"]) as pipeline:
            for answer in pipeline:
                ...

    Each stage has a thread of its own. Under the policy ``freshest`` a source is read as fast as it delivers, and the
    model gets the newest frame when it is about to be free; older ones are dropped, so that what comes out is never
    older than it must be. Under ``every-frame`` nothing is dropped, and a source waits.

    Several sources take turns. A model that takes several frames at a time gets one of each that has a new one.

    Args:
        model: an opened model; it stays open.
        sources: what :func:`sfpp.runtime.video.open_source` takes, or opened sources; those that are opened here are
            closed here.
        policy: None takes ``freshest`` if a source is live, and drops frames of live sources only.
        smooth: how steady labels are kept, 0 to below 1; see :class:`.steadiness.Steady`. For logits only.
        finder: finds people, for a pose model; see :func:`sfpp.runtime.people.choose_finder`.
        detect_every: ask it in every Nth frame only, and follow people in between.
        threshold: keypoints of a lower score are not shown.
        on_event: told of what happens to the sources, from their threads.

    Raises:
        UsageError: an unknown policy, no source, smoothing where there are no logits, a pose model without a finder or
            with several sources of which people are to be followed.
        MediaError: a source cannot be opened.
    """

    def __init__(
        self,
        model: Segmenter | PoseEstimator,
        sources: Sequence[Source | str],
        *,
        policy: Policy | None = None,
        smooth: float = 0.0,
        finder: PersonFinder | None = None,
        detect_every: int = 1,
        threshold: float = 0.3,
        on_event: EventHandler | None = None,
    ) -> None:
        _check(policy, sources)
        self.timer = StageTimer(stages=("decode", "detect", "prepare", "infer", "labels", "keypoints"))
        self._batch = 1
        if isinstance(model, Segmenter):
            self._batch = model.contract.input.batch
            self._stages = segmentation_stages(model, self.timer, smooth=smooth)
        else:
            if smooth:
                raise UsageError("smoothing is for segmentation models, and this is a pose model; leave it off")
            self._stages = pose_stages(
                model, self.timer, finder=finder, detect_every=detect_every, threshold=threshold, sources=len(sources)
            )
        with contextlib.ExitStack() as stack:
            tell = on_event or ignore
            opened = [
                stack.enter_context(open_source(each, on_event=tell)) if isinstance(each, str) else each
                for each in sources
            ]
            check_names(opened)
            self.policy: Policy = policy or ("freshest" if any(source.live for source in opened) else "every-frame")
            self._given_policy = policy
            self.sources = tuple(opened)
            for source in opened:
                if source.on_event is ignore:
                    source.on_event = tell
            fresh = [source for source in opened if self.policy_of(source) == "freshest"]
            self._readers = Readers(opened, newest=fresh, on_event=tell)
            self._opened = stack.pop_all()
        self._pacer = Pacer()
        self._answers: Iterator[Answer] | None = None

    def policy_of(self, source: Source) -> Policy:
        """Return what becomes of a source's frames for which there is no time: unless told, files lose none."""
        return self._given_policy or ("freshest" if source.live else "every-frame")

    @property
    def dropped(self) -> dict[str, int]:
        """How many frames of each source were dropped."""
        return {reader.source.name: reader.dropped for reader in self._readers.all}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the sources could not be read."""
        return tuple(warning for source in self.sources for warning in source.warnings)

    def __iter__(self) -> Iterator[Answer]:
        """Yield answers until the sources end; a second iteration goes on with the first.

        Raises:
            SfppError: the model failed, or all sources have.
        """
        if self._answers is None:
            self._answers = self._run()
        return self._answers

    def stop(self) -> None:
        """End soon, from any thread or signal handler: the iteration ends after the present answer."""
        self._pacer.stop()
        self._readers.halt()

    def close(self) -> None:
        """End the threads and close the sources that were opened here."""
        self.stop()
        if self._answers is not None:
            self._answers.close()  # type: ignore[attr-defined]  # it is a generator
        # First the sources, which lets go a reader that waits for a lost camera.
        self._opened.close()
        self._readers.stop(timeout_s=_PATIENCE_S)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> Iterator[Answer]:
        fresh = self.policy == "freshest"
        stages = _paced(self._stages, self._pacer) if fresh else self._stages
        wait: Callable[[], bool] = self._pacer.wait if fresh else self._pacer.goes_on
        frames = self._readers.frames(batch=self._batch, wait=wait)
        work = map(partial(_begun, pacer=self._pacer if fresh else None), frames)
        with run_stages(work, stages, source_name="take") as results:
            try:
                for done in results:
                    if fresh:
                        self._pacer.taken()
                    yield from self._answered(done)
            finally:
                # Before the threads are waited for: the first one may be waiting for a frame.
                self.stop()

    def _answered(self, done: Work) -> Iterator[Answer]:
        for frame, result in done.answers:
            self.timer.frame_done()
            yield Answer(frame, result, 1e3 * (time.monotonic() - frame.taken_s), done.latencies_ms)


def _begun(frames: tuple[Frame, ...], *, pacer: Pacer | None) -> Work:
    if pacer is not None:
        pacer.released()
    return Work(frames)


def _paced(stages: Sequence[Stage], pacer: Pacer) -> list[Stage]:
    """Let the pacer know when a frame is prepared, and when the model begins and ends."""
    names = [stage.name for stage in stages]
    model = names.index("infer") if "infer" in names else 0
    found = list(stages)
    found[model] = Stage(names[model], partial(_with_model, inner=stages[model].work, pacer=pacer))
    if model:
        found[model - 1] = stages[model - 1].then(partial(_told, tell=pacer.ready))
    found[-1] = found[-1].then(partial(_told, tell=pacer.finished))
    return found


def _with_model(work: Any, *, inner: Callable[[Any], Any], pacer: Pacer) -> Any:
    pacer.begins()
    done = inner(work)
    pacer.ends()
    return done


def _told(work: Any, *, tell: Callable[[], None]) -> Any:
    tell()
    return work


def _check(policy: str | None, sources: Sequence[object]) -> None:
    if policy is not None and policy not in POLICIES:
        raise UsageError(
            f"there is no policy {policy!r}{did_you_mean(policy, POLICIES)}; expected {' or '.join(POLICIES)}"
        )
    if isinstance(sources, str):
        raise UsageError("the sources are one text, expected a list of them; put brackets around it")
    for each in sources:
        if not isinstance(each, str | Source):
            raise UsageError(
                f"a source is given as {type(each).__name__}, expected a text, such as a file's name, '0' for a webcam "
                "or 'rtsp://…', or what open_source returned; stream() takes several one by one, and not as a list"
            )
    if not sources:
        raise UsageError("there is no source; give at least one, such as a file, rtsp://… or test://")
