"""When to take a frame, so that it reaches the model just when the model is free."""

from __future__ import annotations

import threading
import time

from sfpp.runtime.video.mailbox import POLL_S

# Weight of the latest duration in the averages: a change of load is followed within about five frames.
_WEIGHT = 0.3
# A frame that comes a little early waits; one that comes late lets the model wait, which costs frames a second.
_MARGIN = 1.25


class Pacer:
    """Holds frames back until the model is about to be free: a frame that waits in a queue only gets older.

    With every stage in a thread of its own and a frame in every queue, what is shown would be five frames old; with one
    frame at a time the model would be idle while frames are prepared. So the next frame is taken while the model still
    works, as much earlier as preparing has lately taken.

    Args:
        holds: without, no frame is held back.
    """

    def __init__(self, *, holds: bool) -> None:
        self._holds = holds
        self._changed = threading.Condition()
        self._stopped = False
        self._released_s = 0.0
        self._before = 0  # frames that were released and that the model has not begun
        self._after = 0  # frames that the model is done with, and the stages behind it are not
        self._waiting = 0  # answers that nobody has taken
        self._began_s: float | None = None
        self._lead_s = 0.0
        self._infer_s = 0.0

    def wait(self) -> bool:
        """Wait until a frame should be taken; False when the pipeline is stopped."""
        with self._changed:
            while not self._stopped:
                remaining = self._remaining_s()
                if remaining <= 0:
                    return True
                self._changed.wait(min(remaining, POLL_S))  # a change wakes this
            return False

    def released(self) -> None:
        """A frame was taken from its source."""
        with self._changed:
            self._before += 1
            self._released_s = time.monotonic()

    def ready(self) -> None:
        """A frame is prepared, and waits for the model if that is busy."""
        with self._changed:
            self._lead_s = _averaged(self._lead_s, time.monotonic() - self._released_s)

    def begins(self) -> None:
        """The model begins with a frame."""
        with self._changed:
            self._before -= 1
            self._began_s = time.monotonic()
            self._changed.notify_all()

    def ends(self) -> None:
        """The model is done with a frame."""
        with self._changed:
            assert self._began_s is not None
            self._infer_s = _averaged(self._infer_s, time.monotonic() - self._began_s)
            self._began_s = None
            self._after += 1
            self._changed.notify_all()

    def finished(self) -> None:
        """All stages are done with a frame."""
        with self._changed:
            self._after -= 1
            self._waiting += 1

    def taken(self) -> None:
        """Somebody has taken an answer."""
        with self._changed:
            self._waiting -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Let go of whoever waits."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _remaining_s(self) -> float:
        """Return in how many seconds a frame should be taken, infinity for not before something changes."""
        if not self._holds:
            return 0.0
        if self._before or self._waiting or self._after > 1:
            return float("inf")  # one more would only wait, for the model, for what is behind it, or for its reader
        if self._began_s is None:
            return 0.0
        return self._began_s + self._infer_s - _MARGIN * self._lead_s - time.monotonic()


def _averaged(average: float, latest: float) -> float:
    return latest if not average else (1 - _WEIGHT) * average + _WEIGHT * latest
