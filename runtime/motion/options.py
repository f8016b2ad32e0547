"""Which frames the network sees, and what becomes of its answers in between."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfpp.runtime.contract import ModelContract
from sfpp.runtime.errors import UsageError

if TYPE_CHECKING:
    from sfpp.runtime.video.frame import Frame

# How much of the carried scores stays at a key frame, where the picture fits perfectly. 0.5 to 0.9 differ by 0.1 points
# of mIoU (CamVid, 480x360, key frames every 2nd and 4th).
MIX = 0.8
# CamVid at 15 Hz, network at 480x360: with a look ahead labels are as good as every frame's up to this distance of key
# frames, and without one up to a quarter of it.
FREE_AHEAD_S = 0.5
FREE_S = 0.15
# Flow between frames that are further apart follows nothing.
LONGEST_GAP_S = 0.5
_ROUNDING_S = 1e-4
# Frames that wait for the next key frame are held in memory, 25 MB each at 3840x2160.
MOST_WAITING = 32
_MOST_ROOM = 8  # more of them, between two stages, make no run faster
_LATEST = 5

_EXPECTED = "expected a number of frames such as 4, a time such as 0.25s, or auto"


@dataclass(frozen=True)
class KeyEvery:
    """How far apart the frames are that the network sees: ``frames``, ``seconds``, or neither for what keeps up.

    Raises:
        UsageError: less than one frame, or no time.
    """

    frames: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.frames is not None and self.frames < 1) or (
            self.seconds is not None and not 0 < self.seconds < math.inf
        ):
            raise UsageError(f"key frames every {self} were asked for, {_EXPECTED}")

    def __str__(self) -> str:
        """As on a command line."""
        if self.seconds is not None:
            return f"{self.seconds:g}s"
        return "auto" if self.frames is None else str(self.frames)

    @property
    def is_every_frame(self) -> bool:
        """Whether the network sees every frame."""
        return self.frames == 1

    @property
    def room(self) -> int:
        """For how many frames a stage need not wait while the next one is busy with a key frame."""
        return min(self.frames or 1, _MOST_ROOM)


def key_every_from(value: KeyEvery | str | float) -> KeyEvery:
    """Read ``4`` or ``"4"`` (frames), ``"0.25s"`` (time) or ``"auto"``.

    Raises:
        UsageError: anything else.
    """
    if isinstance(value, KeyEvery):
        return value
    text = str(value).strip().lower()
    if text == "auto":
        return KeyEvery()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return KeyEvery(frames=int(text))
    if re.fullmatch(r"[0-9]*\.?[0-9]+ ?(s|ms)", text):
        amount = float(text.rstrip("ms "))
        return KeyEvery(seconds=amount / 1000 if text.endswith("ms") else amount)
    raise UsageError(f"key frames every {value!r} were asked for, {_EXPECTED}")


@dataclass(frozen=True)
class Motion:
    """How the network's answers are carried along the motion of the picture.

    Attributes:
        key_every: which frames the network sees.
        smooth: how much of what was carried stays at a key frame, 0 to below 1; None is 0.8.
        still: the network is left out while nothing moves, for two seconds at most.

    Raises:
        UsageError: another amount.
    """

    key_every: KeyEvery = KeyEvery(1)
    smooth: float | None = None
    still: bool = False

    def __post_init__(self) -> None:
        if self.smooth is not None and not (isinstance(self.smooth, int | float) and 0 <= self.smooth < 1):
            raise UsageError(
                f"smoothing by {self.smooth!r} was asked for, expected a number, 0 (none) to below 1, such as {MIX}"
            )

    @property
    def mix(self) -> float:
        """How much of what was carried stays at a key frame."""
        if self.smooth is not None:
            return self.smooth
        return 0.0 if self.key_every.is_every_frame else MIX

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.smooth or self.still or not self.key_every.is_every_frame)


def check_logits(contract: ModelContract, *, wanted: str) -> None:
    """Refuse a model whose answers cannot be carried.

    Raises:
        UsageError: a model for pose, or one that gives no logits.
    """
    if contract.task != "segmentation":
        raise UsageError(f"{wanted} is for segmentation models, and this is a pose model; leave it off")
    if not any(output.kind == "logits" for output in contract.outputs):
        kind = contract.outputs[0].kind
        raise UsageError(f"{wanted} needs logits, and this model gives {kind}; export it with --output logits")


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


def carried_s(result: object) -> float:
    """Return how much older than its own frame the one is that the network saw, in seconds; 0 where it saw this one."""
    key = getattr(result, "from_key", None)
    return 0.0 if key is None else float(key.seconds)


class KeyFrames:
    """Decides which frames of one source the network sees.

    Args:
        every: how far apart.
        ahead: labels wait for the next key frame, which then comes after 32 frames at the latest.
    """

    def __init__(self, every: KeyEvery, *, ahead: bool) -> None:
        self._every = every
        self._free_s = FREE_AHEAD_S if ahead else FREE_S
        self._most = MOST_WAITING if ahead else math.inf
        self._count = 0
        self._key_s = self._latest_s = 0.0
        self._steps_s: list[float] = []

    def is_key(self, frame: Frame, *, begins: bool, infer_s: float | None) -> bool:
        """Whether the network sees a frame.

        Args:
            frame: the next one of the source.
            begins: it shows another scene than the one before, or is the first.
            infer_s: how long the network lately took, if known.
        """
        gap_s, self._latest_s = frame.time_s - self._latest_s, frame.time_s
        self._count += 1
        if not begins:
            self._steps_s = [*self._steps_s[1 - _LATEST :], gap_s]
        due = begins or not 0 <= gap_s <= LONGEST_GAP_S or self._is_due(frame.time_s - self._key_s, infer_s)
        if due:
            self._count, self._key_s = 0, frame.time_s
        return due

    def _is_due(self, since_s: float, infer_s: float | None) -> bool:
        if self._count >= self._most:
            return True
        if self._every.seconds is not None:
            return since_s >= self._every.seconds - _ROUNDING_S
        return self._count >= (self._every.frames or self._fitting(infer_s))

    def _fitting(self, infer_s: float | None) -> int:
        """Return the fewest frames from key frame to key frame with which the network keeps up, if labels stay good."""
        step_s = sorted(self._steps_s)[len(self._steps_s) // 2] if self._steps_s else 0.0
        if infer_s is None or step_s <= 0:
            return 1
        return max(1, min(math.ceil(infer_s / step_s), int(self._free_s / step_s)))
