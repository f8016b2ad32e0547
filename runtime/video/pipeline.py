"""A model at work on one or several sources, files and cameras alike: answers as they come, in order."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sfpp.runtime.errors import UsageError, check_known
from sfpp.runtime.events import Event, EventHandler, ignore
from sfpp.runtime.motion.options import KeyEvery, Motion, carried_s, key_every_from
from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.frame import FitsSources, Follows, Frame, Source
from sfpp.runtime.video.mailbox import POLICIES, Policy
from sfpp.runtime.video.pacer import Pacer
from sfpp.runtime.video.readers import Readers, check_names, expected_frames, policy_for
from sfpp.runtime.video.sources.opening import open_source
from sfpp.runtime.video.stages import Background, Stage, run_stages

if TYPE_CHECKING:
    from sfpp.runtime.model import Model, Step

# How long a source that is stuck is waited for at the end.
_PATIENCE_S = 2.0


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model found in a frame.

    Attributes:
        frame: the frame, with its source's name.
        result: the model's :class:`sfpp.runtime.model.Result`: a :class:`sfpp.runtime.Segmentation` or a
            :class:`sfpp.runtime.Pose`.
        age_ms: from when the frame came to now.
        latencies_ms: of each stage, for this frame; of frames that were computed together, for all of them.
    """

    frame: Frame
    result: Any
    age_ms: float
    latencies_ms: dict[str, float] = field(default_factory=dict)

    @property
    def labels_age_ms(self) -> float:
        """From when the frame came that the network saw to now: ``age_ms``, and more where labels were carried."""
        return self.age_ms + 1e3 * carried_s(self.result)


class Pipeline(contextlib.AbstractContextManager["Pipeline"]):
    """A model and its sources. Iterate it for answers; it is a context manager, and ends with the sources.

        with Pipeline(model, ["rtsp://camera/street"]) as pipeline:
            for answer in pipeline:
                ...

    Each stage has a thread of its own. Under the policy ``follow`` every frame comes out at once: the network takes the
    newest one whenever it is free, and its labels are carried along the motion of the picture to all others. Under
    ``freshest`` a source is read as fast as it delivers, and the model gets the newest frame when it is about to be
    free; older ones are dropped, so that what comes out is never older than it must be. Under ``every-frame`` nothing
    is dropped, and a source waits.

    Several sources take turns. A model that takes several frames at a time gets one of each that has a new one.

    Args:
        model: a :class:`sfpp.runtime.model.Model`, such as :func:`sfpp.runtime.load` opens, or a
            :class:`sfpp.runtime.people.FollowedPose`; it stays open.
        sources: what :func:`sfpp.runtime.video.open_source` takes, or opened sources; those that are opened here are
            closed here.
        policy: None takes ``follow`` for live segmentation, if carrying costs little enough here; else ``freshest`` if
            a source is live, and drops frames of live sources only.
        key_every: which frames the network sees; labels are carried to those in between, in files from both sides.
            A number of frames, a time such as ``"0.25s"``, or ``"auto"`` for what keeps up with the source. Frames with
            which another scene begins are always seen. Under ``follow`` at most so many.
        smooth: how much of earlier frames' labels stays, 0 (none) to below 1; None is 0.8 where labels are carried, and
            else 0.
        still: the network is left out while nothing moves, for two seconds at most.
        look_ahead: between key frames of a file, use the next one too; frames then come out in groups.
        every: take only every Nth frame of each source, beginning with the first.
        max_frames: end after so many frames.
        on_event: takes what happens to the sources, from their threads.

    Raises:
        UsageError: an unknown policy, no source, a number below 1, motion where the model cannot, boxes of another
            source; ``follow`` for files.
        MediaError: a source cannot be opened.
    """

    def __init__(
        self,
        model: Model,
        sources: Sequence[Source | str | os.PathLike[str]],
        *,
        policy: Policy | None = None,
        key_every: KeyEvery | str | int = 1,
        smooth: float | None = None,
        still: bool = False,
        look_ahead: bool = True,
        every: int = 1,
        max_frames: int | None = None,
        on_event: EventHandler | None = None,
    ) -> None:
        _check(policy, sources, every=every, max_frames=max_frames)
        motion = self.motion = Motion(key_every_from(key_every), smooth, still)
        plain = model.steps()
        self._batch, self._every, self._max_frames = model.batch, every, max_frames
        self.timer = StageTimer()
        self._latencies_ms: dict[Frame, dict[str, float]] = {}
        with contextlib.ExitStack() as stack:
            tell = on_event or ignore
            opened = [
                each if isinstance(each, Source) else stack.enter_context(open_source(each, on_event=tell))
                for each in sources
            ]
            check_names(opened)
            if isinstance(model, FitsSources):
                for source in opened:
                    model.fit(source)
            self._given_policy = policy
            self.sources = tuple(opened)
            for source in opened:
                if source.on_event is ignore:
                    source.on_event = tell
            fresh = [source for source in opened if self.policy_of(source) == "freshest"]
            follows = policy == "follow" or (policy is None and len(fresh) == len(opened) and _can_follow(model))
            self.policy: Policy = "follow" if follows else "freshest" if fresh else "every-frame"
            if follows:
                steps = self._following(_followed(model, opened), motion, plain, stack, tell)
            else:
                ahead = [source.name for source in opened if look_ahead and not source.live]
                steps = model.steps(motion=motion, ahead=ahead) if motion else plain
            names = (each.name for each in (*(plain[:-1] if follows else ()), *steps))
            self.timer.expect(("decode", *names, "draw"))
            self._readers = Readers(opened, newest=fresh, every=every, most=max_frames, timer=self.timer, on_event=tell)
            self._opened = stack.pop_all()
        self._pacer = Pacer(holds=bool(fresh))
        self._stages = _paced(_stages(steps, self.timer, in_order=model.in_order), self._pacer)
        self._answers: Iterator[Answer] | None = None
        self.stopped = False

    def policy_of(self, source: Source) -> Policy:
        """Return what becomes of a source's frames for which there is no time: by default, files lose none."""
        return policy_for(source, self._given_policy)

    @property
    def dropped(self) -> dict[str, int]:
        """How many frames of each source were dropped."""
        return self._readers.replaced

    @property
    def expected(self) -> int | None:
        """How many answers there will be, as far as the sources know their own length; with drops there are fewer."""
        counts = [expected_frames(each, every=self._every, max_frames=self._max_frames) for each in self.sources]
        total = sum(count for count in counts if count is not None)
        if None in counts:
            return self._max_frames
        return total if self._max_frames is None else min(total, self._max_frames)

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
        """End soon, from any thread: the iteration ends after the present answer. Frames on their way are dropped."""
        self.stopped = True
        self._end()

    def close(self) -> None:
        """End the threads and close the sources that were opened here."""
        self._end()
        if self._answers is not None:
            self._answers.close()  # type: ignore[attr-defined]  # it is a generator
        # First the sources, which lets go a reader that waits for a lost camera.
        self._opened.close()
        self._readers.stop(timeout_s=_PATIENCE_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt) and self._answers is not None:
            # Then stages that are stuck are not waited for.
            with contextlib.suppress(KeyboardInterrupt, StopIteration):
                self._answers.throw(error)  # type: ignore[attr-defined]
        self.close()

    def _end(self) -> None:
        self._pacer.stop()
        self._readers.halt()

    def _run(self) -> Iterator[Answer]:
        work = map(self._begun, self._readers.frames(batch=self._batch, wait=self._pacer.wait))
        answered = 0
        with run_stages(work, self._stages, source_name="decode") as results:
            try:
                for done in results:
                    if done.frames:
                        self._pacer.taken()
                    for answer in self._answered(done):
                        yield answer
                        del answer  # the next one may be long in coming
                        answered += 1
                        if self.stopped or answered == self._max_frames:
                            return
                    del done
            finally:
                # Before the threads are waited for: the first one may be waiting for a frame.
                self._end()

    def _following(
        self, model: Follows, motion: Motion, plain: Sequence[Step], stack: contextlib.ExitStack, tell: EventHandler
    ) -> Sequence[Step]:
        """Return the steps that show every frame at once, with the network in a thread of its own."""
        network = Background("sfpp-infer")
        stack.callback(network.close)
        stages = [_stage(step, self.timer) for step in plain[:-1]]

        def ask(frame: Frame) -> Future[Any]:
            return network.submit(lambda: _through(stages, _Work((frame,))).made)

        def give_up(why: str) -> None:
            tell(Event("note", self.sources[0].name, why))

        return model.following_steps(motion, ask, give_up if self._given_policy is None else None)

    def _begun(self, frames: tuple[Frame, ...]) -> _Work:
        self._pacer.released()
        work = _Work(frames)
        for frame in frames:
            self._latencies_ms[frame] = work.latencies_ms
        return work

    def _answered(self, done: _Work) -> Iterator[Answer]:
        for frame, result in done.made:
            self.timer.frame_done()
            yield Answer(frame, result, 1e3 * (time.monotonic() - frame.taken_s), self._latencies_ms.pop(frame))


@dataclass(eq=False)
class _Work:
    """Frames on their way: what the last stage has made of them, and how long each stage took."""

    frames: tuple[Frame, ...]
    made: Any = None
    latencies_ms: dict[str, float] = field(default_factory=dict)


def _stages(steps: Sequence[Step], timer: StageTimer, *, in_order: bool) -> list[Stage]:
    """Return a stage for each step, or where a frame needs the last one's result, one stage for all of them."""
    stages = [_stage(step, timer) for step in steps]
    if not in_order:
        return stages
    return [Stage("model", partial(_through, stages), rest=stages[-1].rest)]


def _stage(step: Step, timer: StageTimer) -> Stage:
    def rest() -> _Work | None:
        pairs = step.rest()
        return _Work((), pairs) if pairs else None

    return Stage(step.name, partial(_stepped, name=step.name, step=step.work, timer=timer), rest, step.room)


def _through(stages: Sequence[Stage], work: _Work) -> _Work:
    return functools.reduce(lambda made, stage: stage.work(made), stages, work)


def _stepped(work: _Work, *, name: str, step: Callable[[Sequence[Frame], Any], Any], timer: StageTimer) -> _Work:
    """Take frames one step on, measured for the run and for them."""
    start_s = time.perf_counter()
    made = step(work.frames, work.made)
    if made is not None:
        work.made = made
        end_s = time.perf_counter()
        timer.add(name, start_s, end_s)
        work.latencies_ms[name] = 1e3 * (end_s - start_s)
    return work


def _paced(stages: Sequence[Stage], pacer: Pacer) -> list[Stage]:
    """Let the pacer know when a frame is prepared, when the model begins and ends, and when all is done."""
    names = [stage.name for stage in stages]
    last = len(names) - 1
    # Where the network has a thread of its own, frames wait for the last stage.
    model = names.index("infer") if "infer" in names else last

    def paced(number: int, stage: Stage) -> Stage:
        at = (model - 1, pacer.ready), (model, pacer.ends), (last, pacer.finished)
        after = [note for place, note in at if place == number]

        def work(item: Any) -> Any:
            if number == model:
                pacer.begins()
            done = stage.work(item)
            for note in after:
                note()
            return done

        return replace(stage, work=work)

    return [paced(number, stage) for number, stage in enumerate(stages)]


def _can_follow(model: Model) -> bool:
    """Whether labels can be carried to later frames, and a model takes one frame at a time."""
    if not isinstance(model, Follows) or not model.takes_one:
        return False
    try:
        model.following_steps(Motion(), lambda _: Future(), None)
    except UsageError:
        return False
    return True


def _followed(model: Model, sources: Sequence[Source]) -> Follows:
    """Return the model, if its answers can be carried and no source is a file; UsageError if not."""
    if not isinstance(model, Follows):
        raise UsageError("the policy follow is for segmentation models; take freshest, which drops frames")
    check_live(sources)
    return model


def check_live(sources: Sequence[Source]) -> None:
    """Refuse sources that the policy ``follow`` cannot have.

    Raises:
        UsageError: some are files.
    """
    files = [source.name for source in sources if not source.live]
    if files:
        raise UsageError(
            f"the policy follow is for cameras and streams, and {', '.join(files)} is not live; leave it out, and let "
            "the network see every 4th frame with key_every=4 (--key-every 4)"
        )


def _check(policy: str | None, sources: Sequence[object], *, every: int, max_frames: int | None) -> None:
    if policy is not None:
        check_known("policy", policy, POLICIES)
    for name, value in (("every", every), ("max_frames", max_frames)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}, expected 1 or more")
    if isinstance(sources, str | os.PathLike):
        kind = "text" if isinstance(sources, str) else "path"
        raise UsageError(f"the sources are one {kind}, expected a list of them; put brackets around it")
    for each in sources:
        if not isinstance(each, str | os.PathLike | Source):
            raise UsageError(
                f"a source is given as {type(each).__name__}, expected a text, such as a file's name, '0' for a webcam "
                "or 'rtsp://…', or what open_source returned; stream() takes several one by one, and not as a list"
            )
    if not sources:
        raise UsageError("there is no source; give at least one, such as a file, rtsp://… or test://")
