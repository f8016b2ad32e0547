"""Between the thread that reads a live source and the one that takes its frames: room for one message."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Python hears signals only between waits, on Windows at least.
_HEARING_S = 0.1


class Picture(NamedTuple):
    """A picture as it came.

    ``image_bgr`` is (H, W, 3) uint8 BGR; ``stamp_s`` is the time that the stream gives it, if any; ``arrived_s`` is
    when it came, on the clock ``time.monotonic``.
    """

    image_bgr: NDArray[np.uint8]
    stamp_s: float | None = None
    arrived_s: float = 0.0


@dataclass(frozen=True)
class Clip:
    """A plain file behind a URL: frames a second, and how many frames if it says so."""

    frames_per_second: Fraction
    count: int | None


@dataclass(frozen=True)
class Opened:
    """A connection stands.

    Attributes:
        detail: what to, for people: ``640x360 h264``.
        finite: its end is an end, and no loss.
        clip: it is a plain file, whose pictures wait to be taken and have their own times.
    """

    detail: str
    finite: bool = False
    clip: Clip | None = None


@dataclass(frozen=True)
class Ended:
    """A connection is closed, or could not be made; ``error`` is None where the source simply ended."""

    reason: str
    error: BaseException | None = field(default=None, repr=False)


Message = Picture | Opened | Ended


class Handover:
    """Room for one message. Whoever reads waits for room, so that nothing piles up; closing lets everybody go."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._message: Message | None = None
        self._closed = False
        self._wanted = True
        self._keeps_newest = False

    @property
    def closed(self) -> bool:
        """Whether nobody takes anything any more."""
        return self._closed

    @property
    def wanted(self) -> bool:
        """Whether the present connection shall go on."""
        return self._wanted and not self._closed

    def keep_newest(self) -> None:
        """Until the next message is taken, let a newer picture replace the one that waits."""
        with self._changed:
            self._keeps_newest = True

    def put(self, message: Message) -> bool:
        """Wait for room and put the message; False if nobody wants it. Only pictures can be unwanted."""
        with self._changed:
            self._wait_for(lambda: self._has_room() or self._refuses(message))
            if self._refuses(message):
                return False
            self._message = message
            self._changed.notify_all()
            return True

    def take(self, timeout_s: float | None) -> Message | None:
        """Wait for the next message and return it; None when none came in time (None: for ever), or when closed."""
        with self._changed:
            self._keeps_newest = False
            self._wait_for(lambda: self._closed or self._message is not None, timeout_s)
            message, self._message = self._message, None
            self._changed.notify_all()
            return None if self._closed else message

    def dismiss(self) -> None:
        """End the present connection: its pictures are not wanted any more, only the word that it has ended."""
        with self._changed:
            self._wanted = False
            if isinstance(self._message, Picture):
                self._message = None
            self._changed.notify_all()

    def welcome(self) -> None:
        """Want pictures again, from a new connection."""
        with self._changed:
            self._wanted = True

    def pause(self, seconds: float) -> bool:
        """Wait; return at once when closed. Whether it is still open."""
        with self._changed:
            self._wait_for(lambda: self._closed, seconds)
            return not self._closed

    def close(self) -> None:
        """Let go of what is in it, and of whoever waits."""
        with self._changed:
            self._closed = True
            self._message = None
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._message is None or (self._keeps_newest and isinstance(self._message, Picture))

    def _refuses(self, message: Message) -> bool:
        return self._closed or (isinstance(message, Picture) and not self._wanted)

    def _wait_for(self, condition: Callable[[], bool], timeout_s: float | None = None) -> None:
        deadline_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while not condition() and (remaining_s := deadline_s - time.monotonic()) > 0:
            self._changed.wait(min(remaining_s, _HEARING_S))
