"""What `sfpp-run` says while cameras and streams run, and at the end."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sfpp.runtime.commands.session import note
from sfpp.runtime.events import Event
from sfpp.runtime.timing import RateMeter

if TYPE_CHECKING:
    from sfpp.runtime.viewer import Viewer

# Dropped frames are the rule for a live source; a line each second would hide what else happens.
_DROPS_EVERY_S = 10.0
_STATUS_EVERY_S = 1.0
_KEPT_AGES = 100_000


class Reporter:
    """What is said while a pipeline runs: events as lines, and a line of status for whoever looks at a terminal."""

    def __init__(self) -> None:
        self.frames = 0
        self.viewer: Viewer | None = None
        self.ages_ms: deque[float] = deque(maxlen=_KEPT_AGES)
        self.counts: Counter[tuple[str, str]] = Counter()
        self._start_s = time.monotonic()
        self._rate = RateMeter()
        self._dropped: Counter[str] = Counter()
        self._told_s = self._start_s
        self._shown_s = 0.0
        self._on_terminal = sys.stderr.isatty()
        self._lock = threading.Lock()

    def saw(self, age_ms: float) -> None:
        """Count an answer."""
        self.frames += 1
        self.ages_ms.append(age_ms)
        self._rate.count()
        self._show_status()

    def event(self, event: Event) -> None:
        """Say what happened, in one line; dropped frames are summed up."""
        if self.viewer is not None:
            self.viewer.event(event)
        with self._lock:
            self.counts[event.source, event.kind] += max(1, event.count)
            if event.kind != "dropped":
                self._line(event.line())
                return
            self._dropped[event.source] += event.count
            if time.monotonic() - self._told_s >= _DROPS_EVERY_S:
                self._tell_dropped()

    def has_failed(self, outlet: str) -> bool:
        """Whether the outlet of this name failed while the rest went on."""
        return bool(self.counts[outlet, "sink-failed"] or self.counts[outlet, "gave-up"])

    def was_opened(self, outlet: str) -> bool:
        """Whether the receiver of this name was ever connected."""
        return bool(self.counts[outlet, "opened"])

    def ages_line(self) -> str:
        """Return the ages of the answers in one line; there must have been one."""
        p50, p99 = np.percentile(self.ages_ms, (50, 99))
        return f"age from a frame's coming to its answer: {p50:.0f} ms (median), {p99:.0f} ms (99 %)"

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Within the block the status is shown; at its end the terminal is left clean."""
        try:
            yield
        finally:
            with self._lock:
                self._tell_dropped()
                if self._on_terminal:
                    print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _tell_dropped(self) -> None:
        seconds = time.monotonic() - self._told_s
        for name, count in self._dropped.items():
            self._line(f"{name}: dropped: {count} in {seconds:.0f} s, to stay fresh")
        self._dropped.clear()
        self._told_s = time.monotonic()

    def _line(self, line: str) -> None:
        if self._on_terminal:
            print("\r\x1b[K", end="", file=sys.stderr)
        note(line)

    def _show_status(self) -> None:
        now = time.monotonic()
        if not self._on_terminal or now - self._shown_s < _STATUS_EVERY_S:
            return
        self._shown_s = now
        rate = self._rate.per_second or 0.0
        with self._lock:
            status = f"{self.frames} frames, {rate:.1f} a second, {self.ages_ms[-1]:.0f} ms old when done"
            print(f"\r\x1b[K{status}", end="", file=sys.stderr, flush=True)
