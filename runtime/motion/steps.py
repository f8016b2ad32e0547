"""A segmentation model's steps in a pipeline where the network does not see every frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.backends.protocol import Arrays
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.labels import logit
from sfpp.runtime.model import Step
from sfpp.runtime.motion.carry import (
    Carried,
    Carrier,
    Waiting,
    between,
    finite,
    logits_from_scores,
    scores_from_logits,
)
from sfpp.runtime.motion.flow import Values
from sfpp.runtime.motion.options import FromKey, KeyFrames, Motion
from sfpp.runtime.motion.watcher import Seen, Watcher

if TYPE_CHECKING:
    from sfpp.runtime.segmentation import PreparedFrames, Segmentation, Segmenter
    from sfpp.runtime.video.frame import Frame


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

    def see(frame: Frame) -> NDArray[Any]:
        answer: NDArray[Any] = model.checked_output(model.infer(model.prepare(frame.image_bgr)))[0]
        return answer

    def rest() -> list[tuple[Frame, Segmentation]]:
        return [each for source in carried.values() for each in source.last(see)]

    return [
        Step("motion", watch),
        Step("prepare", prepare),
        Step("infer", infer),
        Step("labels", labels, rest=rest, room=motion.key_every.room),
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
            yield from self._finished(None, None)
            self._carrier.forget()
        elif seen.back is not None:
            self._carrier.step(seen.back)
            if self._waiting:
                self._waiting[-1][2].forth = seen.forth
        yield from self._between_keys(frame, seen) if answer is None else self._at_key(frame, seen, answer)

    def last(self, see: Callable[[Frame], NDArray[Any]]) -> Iterator[tuple[Frame, Segmentation]]:
        """Yield the frames that no key frame follows: the last one is made one, which ``see`` gives the network."""
        if self._waiting:
            frame, seen, _ = self._waiting.pop()
            yield from self._at_key(frame, seen, see(frame))

    def _at_key(self, frame: Frame, seen: Seen, answer: NDArray[Any]) -> Iterator[tuple[Frame, Segmentation]]:
        scores = self._carrier.correct(scores_of(answer, seen, self._model, mixes=self._mix > 0))
        yield from self._finished(scores, frame)
        self._key, self._early = frame, scores
        yield frame, labels_of(scores, seen, self._model)

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
        # Without times, or where that of the next key frame is an earlier one, frames are counted.
        if key is not None and not times[0] < times[1] >= waiting[-1][0].time_s:
            times = 0.0, float(len(waiting) + 1)
            for number, (_, _, each) in enumerate(waiting, 1):
                each.time = float(number)
        at = between(self._early, late, [each for _, _, each in waiting], times)
        for (frame, seen, _), now in zip(waiting, at, strict=True):
            yield frame, self._labels(now, frame, seen)

    def _labels(self, now: Carried, frame: Frame, seen: Seen) -> Segmentation:
        assert self._key is not None
        return labels_of(now.scores, seen, self._model, from_key=came_from(self._key, frame, now))


def came_from(key: Frame, frame: Frame, now: Carried) -> FromKey:
    """Return what is said of a frame whose labels come from a key frame."""
    return FromKey(key.index, frame.time_s - key.time_s, float(now.belief.mean()))


def scores_of(answer: NDArray[Any], seen: Seen, model: Segmenter, *, mixes: bool) -> Values:
    """Return the network's answer, (classes, h, w), as scores on the grid of the ways, to be mixed or not."""
    cv2 = import_cv2(purpose="following motion")
    values = np.asarray(answer, np.float32)
    rows, columns = seen.cells_hw
    if values.shape[1:] != (rows, columns):
        values = finite(values)  # or infinities, as FP16 has them, would become NaN beside others
        values = np.stack([cv2.resize(each, (columns, rows), interpolation=cv2.INTER_AREA) for each in values])
    threshold = 0.0 if model.contract.threshold is None else logit(model.contract.threshold)
    return scores_from_logits(values, exclusive=not model.contract.multi_label, bounded=mixes, threshold=threshold)


def labels_of(scores: Values, seen: Seen, model: Segmenter, from_key: FromKey | None = None) -> Segmentation:
    """Return what scores say of a frame, at its size."""
    logits = logits_from_scores(scores, len(model.contract.classes))
    return replace(model.answer(logits, seen.placement), from_key=from_key)
