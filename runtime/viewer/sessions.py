"""All pages that look, and the clock that tells them of newer frames."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from sfpp.runtime.viewer.session import Session


class Sessions:
    """The pages that look. All methods belong to the event loop's thread.

    Args:
        most: how many there may be.
        on_change: told whether anybody looks, whenever a page comes or goes.
    """

    def __init__(self, most: int, on_change: Callable[[bool], None]) -> None:
        self._most = most
        self._on_change = on_change
        self._all: set[Session] = set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._all)

    @property
    def full(self) -> bool:
        """Whether there is no room for another one."""
        return len(self._all) >= self._most

    @contextlib.contextmanager
    def joined(self, session: Session) -> Iterator[None]:
        """Count a page within the block."""
        self._all.add(session)
        self._on_change(True)
        try:
            yield
        finally:
            self._all.discard(session)
            self._on_change(bool(self._all))

    def wake(self) -> None:
        """Tell all of newer frames."""
        for session in self._all:
            session.wake()

    async def close(self) -> None:
        """Tell all that the viewer ends."""
        await asyncio.gather(*(session.close() for session in self._all), return_exceptions=True)


class Ticker:
    """Calls ``tick`` in the event loop after it was notified, at most so often; notifying it never waits.

    Args:
        loop: the event loop.
        period_s: the least time between two ticks.
        tick: what to do.

    Attributes:
        watched: whether to do it at all; without anybody who looks, a notification costs next to nothing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, period_s: float, tick: Callable[[], None]) -> None:
        self.watched = False
        self._loop = loop
        self._period_s = period_s
        self._tick = tick
        self._notified = False
        self._last_s = float("-inf")

    def notify(self) -> None:
        """Ask for a tick, from any thread."""
        # No lock: should two threads come here at once, there are two ticks, which is as good as one.
        if self.watched and not self._notified:
            self._notified = True
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._schedule)

    def _schedule(self) -> None:
        self._loop.call_at(self._last_s + self._period_s, self._run)

    def _run(self) -> None:
        # First of all: whoever shows a frame from here on is heard again, if this tick does not have that frame.
        self._notified = False
        self._last_s = self._loop.time()
        self._tick()
