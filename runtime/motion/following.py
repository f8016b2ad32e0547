"""Live: every frame is shown at once, with the labels of an earlier one carried to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfpp.runtime.backends.protocol import Arrays
from sfpp.runtime.model import Step
from sfpp.runtime.motion.carry import Carrier
from sfpp.runtime.motion.flow import Values
from sfpp.runtime.motion.options import MIX, KeyFrames, Motion
from sfpp.runtime.motion.steps import came_from, labels_of, scores_of
from sfpp.runtime.motion.watcher import Seen, Watcher
from sfpp.runtime.resources import usable_cores

if TYPE_CHECKING:
    from sfpp.runtime.segmentation import PreparedFrames, Segmentation, Segmenter
    from sfpp.runtime.video.frame import Frame

# A source whose frames are further apart asks the network although it is busy, and is not waited for: until its next
# frame others would have old labels, and it may have stopped.
_SELDOM_S = 0.25


class _Cost:
    """What carrying takes of a camera's time: processor time, since the network is at work on all cores meanwhile.

    Attributes:
        share: of one core, if every frame is carried; 0 until it is known.
    """

    _FRAMES = 30

    def __init__(self) -> None:
        self.share = 0.0
        self._spent_s: list[float] = []
        self._first: Frame | None = None

    def add(self, frame: Frame, spent_s: float) -> str | None:
        """Count a frame; return what it takes in words, each time that it is known anew."""
        if self._first is None:
            self._first, self._spent_s = frame, []
            return None
        self._spent_s.append(spent_s)
        if len(self._spent_s) < self._FRAMES:
            return None
        # With those that were dropped, since the last one was not finished.
        frame_s = (frame.taken_s - self._first.taken_s) / (frame.index - self._first.index)
        cost_s, self._first = sum(self._spent_s) / self._FRAMES, None
        self.share = cost_s / max(frame_s, 1e-6)
        return (
            f"carrying labels takes {1e3 * cost_s:.0f} ms a frame here, and frames come every {1e3 * frame_s:.0f} ms, "
            "so frames wait for the network; --policy follow carries all the same"
        )


@dataclass(eq=False)
class _Followed:
    """A source that is shown at once: what it carries, and what the network does for it."""

    watcher: Watcher
    carrier: Carrier
    cost: _Cost
    key: Frame | None = None  # whose answer is carried
    asked: Frame | None = None  # that the network got last
    answer: Future[tuple[PreparedFrames, Arrays]] | None = None
    asked_s: float = 0.0
    seen_s: float = 0.0
    is_seldom: bool = False
    due: bool = False  # a frame of it goes to the network as soon as that is free


def following_steps(
    model: Segmenter,
    motion: Motion,
    ask: Callable[[Frame], Future[tuple[PreparedFrames, Arrays]]],
    give_up: Callable[[str], object] | None = None,
) -> list[Step]:
    """Return the steps of a run in which every frame is shown at once, with the labels of an earlier one carried to it.

    Args:
        model: gives logits.
        motion: at least so far apart are the frames that the network gets; it may take longer.
        ask: hands a frame to preparing and the network, which answers in another thread.
        give_up: told why, once carrying every frame costs more than half of the machine; from then on each frame waits
            for the network. None never gives up.
    """
    run = _Following(model, motion, ask, give_up)
    return [Step("motion", run.watch), Step("labels", run.labels)]


class _Following:
    """The steps of one run, each in a thread of its own; the arguments are those of :func:`following_steps`."""

    def __init__(
        self,
        model: Segmenter,
        motion: Motion,
        ask: Callable[[Frame], Future[tuple[PreparedFrames, Arrays]]],
        give_up: Callable[[str], object] | None,
    ) -> None:
        self._model = model
        self._motion = motion
        self._ask = ask
        self._give_up = give_up
        self._mix = MIX if motion.smooth is None else motion.smooth
        self._followed: dict[str, _Followed] = {}
        self._waits = threading.Event()

    def watch(self, frames: Sequence[Frame], _: None) -> tuple[list[Seen], float]:
        """Follow the motion of frames, and say what processor time that took, in seconds."""
        start_s = time.thread_time()
        seen = [self._source_of(frame).watcher.see(frame, follow=not self._waits.is_set()) for frame in frames]
        return seen, time.thread_time() - start_s

    def _source_of(self, frame: Frame) -> _Followed:
        if frame.source not in self._followed:
            keys = KeyFrames(self._motion.key_every, ahead=False)
            self._followed[frame.source] = _Followed(
                Watcher(self._model, keys, live=True, still=self._motion.still), Carrier(self._mix), _Cost()
            )
        return self._followed[frame.source]

    def labels(self, frames: Sequence[Frame], watched: tuple[list[Seen], float]) -> list[tuple[Frame, Segmentation]]:
        """Return the frames, each with its labels."""
        done, (seen, watched_s) = [], watched
        for frame, each in zip(frames, seen, strict=True):
            start_s = time.thread_time()
            done.append((frame, self._shown(frame, each)))
            spent_s = watched_s / len(frames) + time.thread_time() - start_s
            why = None if each.begins else self._followed[frame.source].cost.add(frame, spent_s)
            if self._give_up is not None and why is not None and self._share() > usable_cores() / 2:
                self._waits.set()
                self._give_up(why)
        return done

    def _share(self) -> float:
        return sum(each.cost.share for each in list(self._followed.values()))

    def _shown(self, frame: Frame, seen: Seen) -> Segmentation:
        source = self._followed[frame.source]
        now_s = time.monotonic()
        source.is_seldom, source.seen_s = now_s - source.seen_s > _SELDOM_S, now_s
        if seen.begins or source.key is None:
            return self._begun(source, frame, seen)
        assert seen.back is not None
        source.carrier.step(seen.back)
        if source.answer is not None and source.answer.done():
            source.carrier.correct(self._scores(source.answer, seen), marked=True)
            source.key, source.answer = source.asked, None
        now = source.carrier.now()
        assert now is not None
        source.due |= seen.is_key
        if source.due and self._may_ask(source):
            source.carrier.mark(now)
            source.asked, source.asked_s, source.answer = frame, time.monotonic(), self._ask(frame)
            source.due = False
        assert source.key is not None
        return labels_of(now.scores, seen, self._model, from_key=came_from(source.key, frame, now))

    def _begun(self, source: _Followed, frame: Frame, seen: Seen) -> Segmentation:
        """Wait for the network: of another scene nothing is known yet."""
        source.carrier.forget()
        source.key = source.asked = frame
        source.answer, source.due, source.asked_s = None, False, time.monotonic()
        return labels_of(source.carrier.correct(self._scores(self._ask(frame), seen)), seen, self._model)

    def _scores(self, answer: Future[tuple[PreparedFrames, Arrays]], seen: Seen) -> Values:
        return scores_of(self._model.checked_output(answer.result()[1])[0], seen, self._model, mixes=self._mix > 0)

    def _may_ask(self, source: _Followed) -> bool:
        """Whether the network is free, and no other source has waited for longer."""
        if source.answer is not None or source.is_seldom:
            return source.answer is None
        others = [each for each in list(self._followed.values()) if each is not source]
        if any(each.answer is not None and not each.answer.done() for each in others):
            return False
        waiting = [each for each in others if each.due and each.answer is None]
        return all(source.asked_s <= each.asked_s or source.seen_s - each.seen_s > _SELDOM_S for each in waiting)
