"""What carrying labels would bring, tried on a few frames of a run in which the network sees every frame."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.model import Step
from sfpp.runtime.motion.carry import Carrier, Waiting, between, logits_from_scores, moved
from sfpp.runtime.motion.flow import Values
from sfpp.runtime.motion.options import KeyEvery, KeyFrames
from sfpp.runtime.motion.steps import scores_of
from sfpp.runtime.motion.watcher import Seen, Watcher

if TYPE_CHECKING:
    from sfpp.runtime.motion.options import Motion
    from sfpp.runtime.segmentation import Segmenter
    from sfpp.runtime.timing import StageTimer
    from sfpp.runtime.video.frame import Frame

KEY_EVERY = 4
# Frames of a window: three key frames, and those between them.
_WINDOW = 2 * KEY_EVERY + 1
# The first frames of a run take longer than others, and of a video they may show nothing yet.
_BEGIN = 4
# A run of fewer frames is over before anybody would want it faster.
LEAST_FRAMES = 20
# From here on the middle is tried too: a window costs about as much as a B0 does for one frame.
_TWICE = 100
# What is worth a line: so much faster, and carried labels that differ from the network's own by no more than so much
# more than those of two neighboring frames do, which nobody calls wrong.
_LEAST_GAIN = 1.3
_MOST_LOSS = 0.015
# Labels of neighboring frames that agree on less are no video's.
_LEAST_STEADY = 0.8
_NETWORK = ("prepare", "infer")  # the stages that key frames alone go through

_LOGGER = logging.getLogger("sfpp")


def can_try(model: Segmenter, expected: int | None) -> bool:
    """Whether labels of a model can be carried and compared, in a run of so many frames; None if that is unknown."""
    enough = expected is None or expected >= LEAST_FRAMES
    return enough and model.output.kind == "logits" and not model.contract.multi_label


class Trial:
    """A segmentation model whose labels are also carried, on the side, in two short windows of a run.

    A :class:`sfpp.runtime.model.Model` that answers as the other one does, for one run of one source. It costs about
    as much as the network does for a frame or two, and ends by itself where it fails.

    Args:
        model: gives logits, and each pixel one class.
        expected: how many frames there will be; None tries at the beginning only.
    """

    def __init__(self, model: Segmenter, expected: int | None = None) -> None:
        self._model = model
        self._begins = [_BEGIN, expected // 2] if expected is not None and expected >= _TWICE else [_BEGIN]
        self._frames = 0
        self._window: _Window | None = None
        self._finished: list[_Tried] = []

    @property
    def batch(self) -> int:
        """As the model's."""
        return self._model.batch

    @property
    def in_order(self) -> bool:
        """As the model's."""
        return self._model.in_order

    def steps(self, *, motion: Motion | None = None, ahead: Collection[str] = ()) -> Sequence[Step]:
        """Return the model's steps; without motion, the last one tries it."""
        *before, labels = self._model.steps(motion=motion, ahead=ahead)
        if motion:
            return [*before, labels]

        def work(frames: Sequence[Frame], inferred: Any) -> Any:
            answered = labels.work(frames, inferred)
            for frame, answer in zip(frames, self._model.checked_output(inferred[1]), strict=False):
                self._take(frame, answer)
            return answered

        return [*before, labels._replace(work=work)]

    def advice(self, timer: StageTimer) -> str | None:
        """Return what key frames would bring, in a line; None where they would not pay, or cannot be told.

        Args:
            timer: of the whole run, whose stages have the names of :meth:`Segmenter.steps`.
        """
        if not self._finished or self._frames < LEAST_FRAMES:
            return None
        same = _mean(share for window in self._finished for share in window.same)
        steady = _mean(share for window in self._finished for share in window.steady)
        carry_ms = _mean(window.carry_ms for window in self._finished)
        network_ms = sum(timer.latency(stage).p50_ms for stage in _NETWORK if stage in timer.stages)
        gain = _gain(timer, network_ms, carry_ms)
        if gain < _LEAST_GAIN or steady < _LEAST_STEADY or same < steady - _MOST_LOSS:
            return None
        return (
            f"--key-every {KEY_EVERY} would run about {gain:.1f}x as fast here (the network takes {network_ms:.0f} ms "
            f"a frame, carrying {carry_ms:.0f} ms), and label {same:.1%} of the pixels as the network does; its own "
            f"labels agree with those of the frame before on {steady:.1%}"
        )

    def _take(self, frame: Frame, answer: NDArray[Any]) -> None:
        """Take the network's answer for the next frame, (classes, h, w)."""
        if self._frames in self._begins:
            self._window = _Window(self._model)
        self._frames += 1
        if self._window is None:
            return
        try:
            goes_on = self._window.take(frame, answer)
        except Exception as error:  # noqa: BLE001 - a run does not fail for what is only tried
            _LOGGER.debug("key frames were not tried: %s", error)
            self._window, self._begins = None, []
            return
        if self._window.is_finished:
            self._finished.append(self._window.tried)
        if not goes_on or self._window.is_finished:
            self._window = None


class _Tried(NamedTuple):
    """What is known of a window.

    Attributes:
        same: of each frame but the first, the share of cells, 0..1, whose carried label is the network's.
        steady: the share whose label by the network is that of the frame before, moved to this frame.
        carry_ms: what carrying took for a frame, without upsampling labels, which each frame needs anyway.
    """

    same: list[float]
    steady: list[float]
    carry_ms: float


class _Window:
    """Neighboring frames whose labels are carried as a run with key frames would carry them, between the network's own.

    Args:
        model: whose answers these are.
    """

    def __init__(self, model: Segmenter) -> None:
        self._same: list[float] = []
        self._steady: list[float] = []
        self._model = model
        self._watcher = Watcher(model, KeyFrames(KeyEvery(KEY_EVERY), ahead=True), forth=True)
        self._carrier = Carrier()
        self._frames = 0
        # Of this thread's own time: the network is at work on all cores meanwhile, as it would not be.
        self._spent_s = 0.0
        self._own: list[NDArray[np.intp]] = []  # the network's labels since the last key frame
        self._before: Values | None = None
        self._early: Values | None = None
        self._waiting: list[Waiting] = []

    @property
    def is_finished(self) -> bool:
        """Whether all frames have come."""
        return self._frames == _WINDOW

    @property
    def tried(self) -> _Tried:
        """What came out."""
        return _Tried(self._same, self._steady, 1000 * self._spent_s / (_WINDOW - 1))

    def take(self, frame: Frame, answer: NDArray[Any]) -> bool:
        """Take the next frame with the network's answer, (classes, h, w); return whether the scene goes on."""
        start_s = time.thread_time()
        seen = self._watcher.see(frame)
        self._spent_s += time.thread_time() - start_s
        is_first, is_key = self._frames == 0, self._frames % KEY_EVERY == 0
        # Frames that lie far apart are key frames all, and there is nothing to gain.
        if seen.begins != is_first or seen.is_key != is_key:
            return False
        scores = scores_of(answer, seen, self._model, mixes=True)
        self._own.append(self._labels(scores))
        if seen.back is not None and self._before is not None:
            self._steady.append(_same(self._labels(moved(self._before, seen.back.offset)), self._own[-1]))
        self._before = scores
        self._carry(seen, scores)
        self._frames += 1
        if is_first:
            self._spent_s = 0.0  # it has found memory and libraries, once for a run
        return True

    def _carry(self, seen: Seen, scores: Values) -> None:
        start_s = time.thread_time()
        if seen.back is not None:
            self._carrier.step(seen.back)
            if self._waiting:
                self._waiting[-1].forth = seen.forth
        if not seen.is_key:
            path = self._carrier.path
            self._waiting.append(Waiting(float(len(self._waiting) + 1), path.offset, path.belief))
            self._spent_s += time.thread_time() - start_s
            return
        late = self._carrier.correct(scores)
        self._spent_s += time.thread_time() - start_s
        if self._early is not None:
            self._compare(self._early, late)
        self._early, self._own, self._waiting = late, [], []

    def _compare(self, early: Values, late: Values) -> None:
        """Compare the labels from one key frame on to the next with the network's own."""
        carried = between(early, late, self._waiting, (0.0, float(KEY_EVERY)))
        for own in self._own[:-1]:
            start_s = time.thread_time()
            scores = next(carried).scores
            self._spent_s += time.thread_time() - start_s
            self._same.append(_same(self._labels(scores), own))
        self._same.append(_same(self._labels(late), self._own[-1]))

    def _labels(self, scores: Values) -> NDArray[np.intp]:
        labels: NDArray[np.intp] = logits_from_scores(scores, len(self._model.contract.classes)).argmax(axis=0)
        return labels


def _same(labels: NDArray[np.intp], others: NDArray[np.intp]) -> float:
    return float((labels == others).mean())


def _mean(values: Iterable[float]) -> float:
    return float(np.mean([*values]))


def _gain(timer: StageTimer, network_ms: float, carry_ms: float) -> float:
    """Return how many times as fast a run would be, by what this one took for a frame.

    The network's time falls away in most frames and carrying comes on top, as where both share the cores; the other
    stages, such as encoding, take what they take.
    """
    frame_ms = max(1000 / timer.frames_per_second, network_ms)
    others_ms = [
        1000 * timer.busy_share(stage) / timer.frames_per_second for stage in timer.stages if stage not in _NETWORK
    ]
    then_ms = frame_ms - network_ms * (1 - 1 / KEY_EVERY) + carry_ms
    return frame_ms / max(then_ms, *others_ms, 1e-6)
