"""A segmentation model's steps in a pipeline where the network does not see every frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.backends.protocol import Arrays
from sfpp.runtime.images import Placement, place_frame
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.model import Step
from sfpp.runtime.motion.carry import (
    Carried,
    Carrier,
    Waiting,
    between,
    logits_from_scores,
    scores_from_logits,
)
from sfpp.runtime.motion.flow import WIDEST, Flow, Picture, Step as Way, Values
from sfpp.runtime.motion.options import MIX, KeyFrames, Motion
from sfpp.runtime.resources import usable_cores

if TYPE_CHECKING:
    from sfpp.runtime.segmentation import PreparedFrames, Segmentation, Segmenter
    from sfpp.runtime.video.frame import Frame

# Live, every frame that is shown is carried, ten for a run of the network: there the grid and the picture are kept
# small. Half a grid costs 0.8 to 1.5 points of mIoU at 960x720 and is still 1.4 above the network on every frame.
_LIVE_CELLS_HW = 270, 480
_LIVE_WIDEST = 480
# A network that nobody else waits for is free; a source that has shown nothing for so long does not wait.
_WAITING_S = 1.0


@dataclass(frozen=True)
class FromKey:
    """Where an answer comes from that the network did not give for this very frame.

    Attributes:
        index: of the key frame that the network saw last.
        seconds: how much older that is than this frame.
        belief: how far its labels are believed here, 0..1, on average over the frame; None for keypoints, which have
            scores of their own.
    """

    index: int
    seconds: float
    belief: float | None = None

    def to_record(self) -> dict[str, Any]:
        """Return ``from``, ``seconds`` and, of labels, ``belief``."""
        record: dict[str, Any] = {"from": self.index, "seconds": round(self.seconds, 3)}
        return record if self.belief is None else {**record, "belief": round(self.belief, 3)}


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of a frame before the network has seen it, or instead.

    Attributes:
        is_key: the network shall see it.
        begins: another scene begins, or another size; nothing is carried into it.
        back: the way to the frame before; None where it begins.
        forth: the way from the frame before to this one; None where it begins, or where nobody needs it.
        placement: where the frame lies in the model's input.
        cells_hw: the grid of the ways.
    """

    is_key: bool
    begins: bool
    back: Way | None
    forth: Way | None
    placement: Placement
    cells_hw: tuple[int, int]


class Watcher:
    """Follows the motion of one source, and decides which of its frames the network sees.

    Args:
        model: the network.
        keys: decides by time; None leaves all to who asks.
        forth: find the ways forth too.
        live: keep the work of each frame small.
        still: leave the network out while nothing moves.
    """

    def __init__(
        self, model: Segmenter, keys: KeyFrames, *, forth: bool = False, live: bool = False, still: bool = False
    ) -> None:
        self._model = model
        self._keys = keys
        self._forth = forth
        self._live = live
        self._still = Still() if still else None
        self._flow: Flow | None = None
        self._before: Picture | None = None
        self._placement: Placement | None = None
        self._cells_hw = (0, 0)

    def see(self, frame: Frame, *, infer_s: float | None = None, follow: bool = True) -> Seen:
        """Take the next frame.

        Args:
            frame: of the source.
            infer_s: how long the network lately took, if known.
            follow: find the way to the frame before; else the network sees it, as if another scene began.
        """
        height, width = frame.image_bgr.shape[:2]
        if self._placement is None or self._placement.frame_size_hw != (height, width):
            self._begin((height, width))
        assert self._flow is not None
        assert self._placement is not None
        if not follow:
            return Seen(True, True, None, None, self._placement, self._cells_hw)
        picture, before = self._flow.picture(frame.image_bgr), self._before
        self._before = picture
        back = None if before is None else self._flow.between(picture, before)
        begins = back is None or back.is_cut
        is_key = self._keys.is_key(frame, begins=begins, infer_s=infer_s)
        if self._still is not None:
            is_key = self._still.needs_network(picture, frame.time_s, due=is_key, begins=begins)
        if begins or before is None:
            return Seen(is_key, True, None, None, self._placement, self._cells_hw)
        forth = self._flow.between(before, picture, forth=True) if self._forth else None
        return Seen(is_key, False, back, forth, self._placement, self._cells_hw)

    def _begin(self, frame_hw: tuple[int, int]) -> None:
        contract, output = self._model.contract, self._model.output
        rows, columns = self._model.cells_hw
        less = min(1.0, *(most / have for most, have in zip(_LIVE_CELLS_HW, (rows, columns), strict=True)))
        # Corners that are aligned would no longer be on a smaller grid.
        if self._live and not output.align_corners:
            rows, columns = max(1, round(rows * less)), max(1, round(columns * less))
        placement = place_frame(frame_hw, contract.input)
        region = placement.region(
            (rows, columns), model_size_hw=contract.input.size_hw, align_corners=output.align_corners
        )
        self._cells_hw, self._placement, self._before = (rows, columns), placement, None
        self._flow = Flow(
            (rows, columns),
            frame_hw,
            region,
            align_corners=output.align_corners,
            widest=_LIVE_WIDEST if self._live else WIDEST,
        )


class Still:
    """Tells whether anything has moved since the network last saw a frame.

    Cells of 8x8 pixels of a picture 480 wide are compared with the last key frame's, so that what moves slowly adds up.
    A change of all of them alike, as by light, does not count.
    """

    # Gray levels. Noise of 5 gray levels, and what compression adds to it, stay below; a walker does not.
    _LEAST = 8.0
    _COLUMNS = 60
    # Something as dark as what is behind it moves unseen.
    _LONGEST_S = 2.0

    def __init__(self) -> None:
        self._key: NDArray[np.float32] | None = None
        self._key_s = 0.0

    def needs_network(self, picture: Picture, time_s: float, *, due: bool, begins: bool) -> bool:
        """Whether the network sees a frame that is ``due``; one with which another scene ``begins`` always."""
        cv2 = import_cv2(purpose="following motion")
        height, width = picture.fine.shape
        size = self._COLUMNS, max(1, round(self._COLUMNS * height / width))
        cells = cv2.resize(picture.fine, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        if not due:
            return False
        if not begins and self._key is not None and 0 <= time_s - self._key_s < self._LONGEST_S:
            change = cells - self._key
            if np.abs(change - np.median(change)).max() < self._LEAST:
                return False
        self._key, self._key_s = cells, time_s
        return True


@dataclass(frozen=True, eq=False)
class _Underway:
    """Frames on their way through the steps; ``outputs`` are those of the key frames among them."""

    seen: tuple[Seen, ...]
    prepared: PreparedFrames | None = None
    outputs: Arrays | None = None


def motion_steps(model: Segmenter, motion: Motion, ahead: Collection[str] = ()) -> list[Step]:
    """Return the steps of a run in which the network sees key frames only.

    Args:
        model: gives logits.
        motion: which frames are key frames.
        ahead: names of the sources whose frames wait for the next key frame, so that both sides count.
    """
    watchers: dict[str, Watcher] = {}
    carried: dict[str, _Labels] = {}
    latest_s: list[float] = []

    def watch(frames: Sequence[Frame], _: None) -> _Underway:
        return _Underway(tuple(watcher(frame).see(frame, infer_s=min(latest_s, default=None)) for frame in frames))

    def watcher(frame: Frame) -> Watcher:
        if frame.source not in watchers:
            waits = waits_for_next(frame)
            keys = KeyFrames(motion.key_every, ahead=waits)
            watchers[frame.source] = Watcher(model, keys, forth=waits, still=motion.still)
        return watchers[frame.source]

    def waits_for_next(frame: Frame) -> bool:
        # A still scene may have no key frame for seconds.
        return frame.source in ahead and not motion.still and not motion.key_every.is_every_frame

    def prepare(frames: Sequence[Frame], at: _Underway) -> _Underway | None:
        keys = [frame.image_bgr for frame, seen in zip(frames, at.seen, strict=True) if seen.is_key]
        return replace(at, prepared=model.prepare_batch(keys)) if keys else None

    def infer(frames: Sequence[Frame], at: _Underway) -> _Underway | None:
        if at.prepared is None:
            return None
        start_s = time.perf_counter()
        outputs = model.infer(at.prepared)
        latest_s[:] = [*latest_s[-4:], time.perf_counter() - start_s]
        return replace(at, outputs=outputs)

    def labels(frames: Sequence[Frame], at: _Underway) -> list[tuple[Frame, Segmentation]]:
        answers = iter(() if at.outputs is None else model.checked_output(at.outputs))
        done: list[tuple[Frame, Segmentation]] = []
        for frame, seen in zip(frames, at.seen, strict=True):
            if frame.source not in carried:
                carried[frame.source] = _Labels(model, motion.mix, waits=waits_for_next(frame))
            done += carried[frame.source].take(frame, seen, next(answers) if seen.is_key else None)
        return done

    def rest() -> list[tuple[Frame, Segmentation]]:
        return [each for labels_of in carried.values() for each in labels_of.rest()]

    return [
        Step("motion", watch),
        Step("prepare", prepare),
        Step("infer", infer),
        Step("labels", labels, rest=rest, room=motion.key_every.frames or 1),
    ]


class _Labels:
    """Labels of the frames of one source, in their order.

    Args:
        model: gives logits.
        mix: as for :class:`Carrier`.
        waits: frames between key frames wait for the next one.
    """

    def __init__(self, model: Segmenter, mix: float, *, waits: bool) -> None:
        self._model = model
        self._mix = mix
        self._waits = waits
        self._carrier = Carrier(mix)
        self._key: Frame | None = None
        self._early: Values | None = None
        self._waiting: list[tuple[Frame, Seen, Waiting]] = []

    def take(self, frame: Frame, seen: Seen, answer: NDArray[Any] | None) -> Iterator[tuple[Frame, Segmentation]]:
        """Take the next frame, with the network's answer if it is a key frame; yield those that are finished."""
        if seen.begins:
            yield from self.rest()
            self._carrier.forget()
        elif seen.back is not None:
            self._carrier.step(seen.back)
            if self._waiting:
                self._waiting[-1][2].forth = seen.forth
        if answer is None:
            yield from self._between_keys(frame, seen)
            return
        scores = self._carrier.correct(scores_of(answer, seen, self._model, mixes=self._mix > 0))
        yield from self._finished(scores, frame)
        self._key, self._early = frame, scores
        yield frame, labels_of(scores, seen, self._model)

    def rest(self) -> Iterator[tuple[Frame, Segmentation]]:
        """Yield the frames that no key frame follows any more."""
        yield from self._finished(None, None)

    def _between_keys(self, frame: Frame, seen: Seen) -> Iterator[tuple[Frame, Segmentation]]:
        path = self._carrier.path
        if self._waits:
            self._waiting.append((frame, seen, Waiting(frame.time_s, path.offset, path.belief)))
            return
        now = self._carrier.now()
        assert now is not None, "the first frame is a key frame"
        yield frame, self._labels(now, frame, seen)

    def _finished(self, late: Values | None, key: Frame | None) -> Iterator[tuple[Frame, Segmentation]]:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        assert self._early is not None
        assert self._key is not None
        times = self._key.time_s, self._key.time_s if key is None else key.time_s
        if key is not None and times[0] >= times[1]:  # without times they are counted
            times = 0.0, float(len(waiting) + 1)
            for number, (_, _, each) in enumerate(waiting, 1):
                each.time = float(number)
        at = between(self._early, late, [each for _, _, each in waiting], times)
        for (frame, seen, _), now in zip(waiting, at, strict=True):
            yield frame, self._labels(now, frame, seen)

    def _labels(self, now: Carried, frame: Frame, seen: Seen) -> Segmentation:
        assert self._key is not None
        return labels_of(now.scores, seen, self._model, from_key=_from_key(self._key, frame, now))


def _from_key(key: Frame, frame: Frame, now: Carried) -> FromKey:
    return FromKey(key.index, frame.time_s - key.time_s, float(now.belief.mean()))


def scores_of(answer: NDArray[Any], seen: Seen, model: Segmenter, *, mixes: bool) -> Values:
    """Return the network's answer, (classes, h, w), as scores on the grid of the ways, to be mixed or not."""
    cv2 = import_cv2(purpose="following motion")
    values = np.asarray(answer, np.float32)
    rows, columns = seen.cells_hw
    if values.shape[1:] != (rows, columns):
        values = np.stack([cv2.resize(each, (columns, rows), interpolation=cv2.INTER_AREA) for each in values])
    return scores_from_logits(values, exclusive=not model.contract.multi_label, bounded=mixes)


def labels_of(scores: Values, seen: Seen, model: Segmenter, from_key: FromKey | None = None) -> Segmentation:
    """Return what scores say of a frame, at its size."""
    logits = logits_from_scores(scores, len(model.contract.classes))
    return replace(model.answer(logits, seen.placement), from_key=from_key)


@dataclass(eq=False)
class _Followed:
    """A source that is shown at once: what it carries, and what the network does for it."""

    watcher: Watcher
    carrier: Carrier
    key: Frame | None = None  # whose answer is carried
    asked: Frame | None = None  # that the network got last
    answer: Future[tuple[PreparedFrames, Arrays]] | None = None
    asked_s: float = 0.0
    seen_s: float = 0.0
    due: bool = False  # a frame of it goes to the network as soon as that is free


class _Cost:
    """Whether carrying keeps up with a camera: it shall leave half of the machine to the network."""

    _FRAMES = 10

    def __init__(self) -> None:
        self._spent_s = 0.0
        self._first_s = 0.0
        self._frames = 0

    def add(self, taken_s: float, spent_s: float) -> str | None:
        """Count a frame; return what to say if it costs too much."""
        if not self._frames:
            self._first_s = taken_s
        self._frames += 1
        self._spent_s += spent_s
        if self._frames != self._FRAMES:
            return None
        frame_s, cost_s = (taken_s - self._first_s) / (self._FRAMES - 1), self._spent_s / self._FRAMES
        self._frames, self._spent_s = 0, 0.0
        if cost_s <= frame_s * usable_cores() / 2:
            return None
        return (
            f"carrying labels takes {1e3 * cost_s:.0f} ms a frame here, and frames come every {1e3 * frame_s:.0f} ms, "
            "so frames wait for the network; --policy follow carries all the same"
        )


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
        give_up: told why, once carrying costs more than half of the machine; from then on each frame waits for the
            network. None never gives up.
    """
    followed: dict[str, _Followed] = {}
    mix = MIX if motion.smooth is None else motion.smooth
    cost, waits = _Cost(), threading.Event()

    def watch(frames: Sequence[Frame], _: None) -> tuple[list[Seen], float]:
        start_s = time.perf_counter()
        seen = [source_of(frame).watcher.see(frame, follow=not waits.is_set()) for frame in frames]
        return seen, time.perf_counter() - start_s

    def source_of(frame: Frame) -> _Followed:
        if frame.source not in followed:
            keys = KeyFrames(motion.key_every, ahead=False)
            followed[frame.source] = _Followed(Watcher(model, keys, live=True, still=motion.still), Carrier(mix))
        return followed[frame.source]

    def labels(frames: Sequence[Frame], watched: tuple[list[Seen], float]) -> list[tuple[Frame, Segmentation]]:
        done, (seen, watched_s) = [], watched
        for frame, each in zip(frames, seen, strict=True):
            start_s = time.perf_counter()
            done.append((frame, shown(frame, each)))
            spent_s = watched_s / len(frames) + time.perf_counter() - start_s
            if give_up is not None and not each.begins and (why := cost.add(frame.taken_s, spent_s)):
                waits.set()
                give_up(why)
        return done

    def shown(frame: Frame, seen: Seen) -> Segmentation:
        source = followed[frame.source]
        source.seen_s = time.monotonic()
        if seen.begins or source.key is None:
            return begun(source, frame, seen)
        assert seen.back is not None
        source.carrier.step(seen.back)
        if source.answer is not None and source.answer.done():
            source.carrier.correct(scores(source.answer, seen), marked=True)
            source.key, source.answer = source.asked, None
        source.due |= seen.is_key
        if source.due and may_ask(source):
            source.carrier.mark()
            source.asked, source.asked_s, source.answer = frame, time.monotonic(), ask(frame)
            source.due = False
        now = source.carrier.now()
        assert now is not None
        assert source.key is not None
        return labels_of(now.scores, seen, model, from_key=_from_key(source.key, frame, now))

    def begun(source: _Followed, frame: Frame, seen: Seen) -> Segmentation:
        """Wait for the network: of another scene nothing is known yet."""
        source.carrier.forget()
        source.key = source.asked = frame
        source.answer, source.due, source.asked_s = None, False, time.monotonic()
        return labels_of(source.carrier.correct(scores(ask(frame), seen)), seen, model)

    def scores(answer: Future[tuple[PreparedFrames, Arrays]], seen: Seen) -> Values:
        return scores_of(model.checked_output(answer.result()[1])[0], seen, model, mixes=mix > 0)

    def may_ask(source: _Followed) -> bool:
        """Whether the network is free, and no other source has waited for longer."""
        now_s = time.monotonic()
        others = [each for each in list(followed.values()) if each is not source]
        if source.answer is not None or any(each.answer is not None and not each.answer.done() for each in others):
            return False
        return all(
            source.asked_s <= each.asked_s or now_s - each.seen_s > _WAITING_S or each.answer is not None
            for each in others
        )

    return [Step("motion", watch), Step("labels", labels)]
