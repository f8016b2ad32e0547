"""When a source is lost: what is told of it, how long to wait, and how often to try."""

from __future__ import annotations

import random
from collections.abc import Callable

from sfpp.runtime.video.events import EventKind

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
_JITTER = 0.2

Tell = Callable[[EventKind, str], object]


def pause_s(tries: int) -> float:
    """Return how long to wait after so many tries in vain: 0.5 s, doubled with each, at most 15 s.

    It varies by a fifth, so that many sources do not return to a server all at once.
    """
    pause = min(_FIRST_PAUSE_S * 2.0 ** min(tries, 30), _LONGEST_PAUSE_S)
    return pause * random.uniform(1 - _JITTER, 1 + _JITTER)


class Outages:
    """Tells of each outage once: when it begins, and when it ends one way or the other.

    Args:
        tell: takes the kind of an event and its detail.
        tries: how many connections may fail in a row; None for any number.
        now_s: the time, on the clock of all other times here.
    """

    def __init__(self, tell: Tell, *, tries: int | None, now_s: float) -> None:
        self._tell = tell
        self._most_tries = tries
        self._tries = 0
        self._lost = False
        self._last_s = now_s

    def picture_came(self, now_s: float) -> None:
        """Note a picture; it ends an outage."""
        if self._lost:
            self._tell("back", f"after {now_s - self._last_s:.1f} s, at try {self._tries}")
        self._lost, self._tries, self._last_s = False, 0, now_s

    def begin(self, reason: str) -> None:
        """Note that no picture comes any more; within an outage that is nothing new."""
        if not self._lost:
            again = "" if self._most_tries == 0 else "; connecting again"
            self._tell("lost", f"{reason}{again}")
        self._lost = True

    def next_pause_s(self) -> float | None:
        """Return how long to wait before the next try, and count it; None if there shall be no more."""
        if self._most_tries is not None and self._tries >= self._most_tries:
            return None
        self._tries += 1
        return pause_s(self._tries - 1)

    def give_up(self, reason: str) -> str:
        """Tell that it is over; return why, for a warning."""
        tried = f"gave up after {self._tries} {'try' if self._tries == 1 else 'tries'}: " if self._tries else ""
        self._tell("gave-up", f"{tried}{reason}")
        return f"{tried}{reason}"
