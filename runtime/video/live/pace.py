"""Pictures by the clock, from a source that could deliver them faster."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """When each picture is due. One that is late moves all that follow, as with a camera: nothing is caught up.

    Args:
        slack_s: how late a picture may be before that happens.
        jump_s: a picture that would have to wait longer belongs to a stream that has begun anew, and is due at once.
        clock: seconds from any origin.
    """

    def __init__(
        self, *, slack_s: float, jump_s: float = float("inf"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slack_s = slack_s
        self._jump_s = jump_s
        self._clock = clock
        self._origin_s: float | None = None

    def delay_s(self, stamp_s: float) -> float:
        """Return how long the picture with that stamp has to wait, in seconds."""
        now_s = self._clock()
        delay_s = 0.0 if self._origin_s is None else self._origin_s + stamp_s - now_s
        if self._origin_s is None or not -self._slack_s <= delay_s <= self._jump_s:
            self._origin_s = now_s - stamp_s
            return 0.0
        return max(0.0, delay_s)
