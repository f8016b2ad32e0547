"""Class scores that are carried from the frames that the network saw to all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.motion.flow import Path, Step, Values, cells, looked_up
from sfpp.runtime.motion.options import MIX

# Scores are the softmax at this temperature: bounded, so that one answer cannot outvote others by its logits' size.
_TEMPERATURE = 2.0
# The most channels that every version of cv2.remap takes.
_GROUP = 4
# Infinities of an FP16 graph count as this; sums of a few such values are still finite.
_LARGEST = np.float32(1e37)
# Logits of classes that do not exclude each other are carried as they are; so far from the threshold they are sure.
_SURE = np.float32(8.0)


def finite(logits: NDArray[Any]) -> Values:
    """Return logits of any shape as float32 with infinities, as FP16 has them, as large numbers; a NaN stays one."""
    values: Values = np.clip(logits, -_LARGEST, _LARGEST, dtype=np.float32)
    return values


def scores_from_logits(
    logits: NDArray[Any], *, exclusive: bool = True, bounded: bool = True, threshold: float = 0.0
) -> Values:
    """Return what is carried of a network's answer.

    Args:
        logits: (classes, h, w), floating point; infinities, as FP16 has them, count as large.
        exclusive: each cell has one class; else logits are kept, cut at 8 on either side of the threshold.
        bounded: answers are mixed; else logits are kept as they are, so that where nothing moves labels stay exactly.
        threshold: the logit from which a cell has a class, where classes do not exclude each other.

    Returns:
        (groups, h, w, 4) float32, four classes a group; the last group ends with zeros.
    """
    values = finite(logits)
    if bounded and exclusive:
        values -= values.max(axis=0)
        values *= np.float32(1 / _TEMPERATURE)
        np.exp(values, out=values)
        values /= values.sum(axis=0)
    elif bounded:
        np.clip(values, threshold - _SURE, threshold + _SURE, out=values)
    classes, rows, columns = values.shape
    grouped = np.zeros((-(-classes // _GROUP), rows, columns, _GROUP), np.float32)
    for first in range(0, classes, _GROUP):
        some = values[first : first + _GROUP]
        grouped[first // _GROUP, ..., : len(some)] = some.transpose(1, 2, 0)
    return grouped


def logits_from_scores(scores: Values, classes: int) -> Values:
    """Return scores (groups, h, w, 4) as (classes, h, w) float32, which decide as logits do."""
    groups, rows, columns, _ = scores.shape
    return np.ascontiguousarray(scores.transpose(0, 3, 1, 2)).reshape(groups * _GROUP, rows, columns)[:classes]


def moved(scores: Values, offset: Values) -> Values:
    """Return scores (groups, h, w, 4) as seen from each cell plus its ``offset``, (h, w, 2) in cells."""
    places = offset + cells(offset.shape[:2])
    result = np.empty_like(scores)
    for group, into in zip(scores, result, strict=True):
        looked_up(group, places, into=into)
    return result


def mixed(carried: Values, answer: Values, share: Values) -> Values:
    """Return ``share * carried + (1 - share) * answer``; scores (groups, h, w, 4), share (h, w) of 0..1."""
    result = carried - answer
    result *= share[..., np.newaxis]
    result += answer
    return result


@dataclass(frozen=True, eq=False)
class Carried:
    """Scores (groups, h, w, 4) at a frame, and the belief in them, (h, w) of 0..1."""

    scores: Values
    belief: Values


class Carrier:
    """The scores of the last answer, brought to the newest frame; of one source.

    Call :meth:`step` with each frame's way to the one before; :meth:`correct` where the network has an answer for the
    newest frame. Where answers come late, :meth:`mark` the frame that the network gets, and correct with ``marked``:
    the way back to that frame is kept, so no picture need be.

    Args:
        mix: how much of what was carried stays at an answer, 0..1, where the picture fits perfectly.
    """

    def __init__(self, mix: float = MIX) -> None:
        self._mix = np.float32(mix)
        self._scores: Values | None = None
        self._path: Path | None = None
        self._marked: tuple[Path, Carried] | None = None

    @property
    def path(self) -> Path:
        """The way from the newest frame back to the last answer's."""
        assert self._path is not None, "there was no answer yet"
        return self._path

    def step(self, step: Step) -> None:
        """Go on to the next frame, from which ``step`` leads back to the last one."""
        if self._path is not None:
            self._path.extend(step)
        if self._marked is not None:
            self._marked[0].extend(step)

    def now(self) -> Carried | None:
        """Return the scores at the newest frame; None before any answer."""
        if self._scores is None or self._path is None:
            return None
        return Carried(moved(self._scores, self._path.offset), self._path.belief)

    def mark(self, now: Carried) -> None:
        """Keep the newest frame in mind, at which scores are as :meth:`now` says: the network answers it later."""
        self._marked = Path(now.belief.shape), now

    def correct(self, answer: Values, *, marked: bool = False) -> Values:
        """Take the scores that the network gives the newest frame, or the marked one; return those that are kept."""
        known: Carried | None
        if marked:
            assert self._marked is not None, "no frame was marked"
            (path, known), self._marked = self._marked, None
        else:
            path, known = Path(answer.shape[1:3]), self.now()
        self._scores = answer if known is None else mixed(known.scores, answer, self._mix * known.belief)
        self._path = path
        return self._scores

    def forget(self) -> None:
        """Begin anew, as at another scene or size."""
        self._scores = self._path = self._marked = None


@dataclass(eq=False)
class Waiting:
    """A frame between two key frames.

    Attributes:
        time: of the frame, in any unit.
        offset: the way back to the key frame before, (h, w, 2) in cells.
        belief: in it, (h, w).
        forth: the way to the next frame; None until that has come.
    """

    time: float
    offset: Values
    belief: Values
    forth: Step | None = field(default=None)


def between(
    early: Values, late: Values | None, waiting: Sequence[Waiting], times: tuple[float, float]
) -> Iterator[Carried]:
    """Yield the scores of the frames between two key frames, from the scores of both.

    Each end counts by how far it is believed, and the more the nearer it is.

    Args:
        early: scores (groups, h, w, 4) of the key frame before.
        late: of the one after; None where none follows.
        waiting: the frames, in order, each with its way forth.
        times: of the two key frames.
    """
    if late is None:
        yield from (Carried(moved(early, each.offset), each.belief) for each in waiting)
        return
    ways: list[tuple[Values, Values]] = []
    path = Path(early.shape[1:3])
    for each in reversed(waiting):
        assert each.forth is not None, "the next frame has come"
        path.extend(each.forth)
        ways.insert(0, (path.offset, path.belief))
    for each, (offset, belief) in zip(waiting, ways, strict=True):
        from_late = belief * np.float32(each.time - times[0])
        from_early = each.belief * np.float32(times[1] - each.time)
        share = from_late / (from_late + from_early + np.float32(1e-3 * (times[1] - times[0])))
        scores = mixed(moved(late, offset), moved(early, each.offset), share)
        yield Carried(scores, np.maximum(each.belief, belief))
