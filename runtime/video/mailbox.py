"""What one thread hands to the next: a bounded mailbox that keeps all or the newest, and that either side can end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar, get_args

from sfpp.runtime.events import Event, EventHandler

# Python handles a signal that comes just before a wait only when that wait is over, and on Windows any signal: so no
# wait is longer than this.
POLL_S = 0.1
_REPORT_EVERY_S = 1.0

# What becomes of a frame for which there is no time: a newer one takes its place, or the source waits. With "follow"
# the network alone takes the newest, and its labels are carried to all others.
Policy = Literal["follow", "freshest", "every-frame"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

Item = TypeVar("Item")


def wait_until(changed: threading.Condition, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
    """Wait until the condition holds; return whether it does.

    Args:
        changed: notified of each change; the caller holds its lock.
        condition: asked with the lock held.
        timeout_s: how long to wait at most; None waits for as long as it takes.
    """
    deadline_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    while not condition():
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            return False
        changed.wait(min(remaining_s, POLL_S))
    return True


class Mailbox(Generic[Item]):
    """Room for a few items between the thread that puts them and the one that takes them.

    Args:
        room: how many items may wait.
        newest: a newer item replaces the oldest one that waits, so that whoever puts never waits; else it waits for
            room.
        changed: notified of each change; several mailboxes may share it, so that one thread waits for all of them. Its
            lock is reentrant: should Ctrl-C strike a thread that holds the lock, it can still close the mailbox.

    Attributes:
        newest: as given; it may be changed at any time.
        replaced: how many items were replaced by newer ones.
    """

    def __init__(self, room: int = 1, *, newest: bool = False, changed: threading.Condition | None = None) -> None:
        self.newest = newest
        self.replaced = 0
        self._room = room
        self._changed = changed or threading.Condition()
        self._items: deque[Item] = deque()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many items can be taken."""
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether nothing can be put any more."""
        return self._closed

    def put(self, item: Item, *, unless: Callable[[], bool] = lambda: False) -> bool:
        """Wait for room and add the item; False when the mailbox is closed, or ``unless`` says it is not wanted."""
        with self._changed:

            def refused() -> bool:
                return self._closed or unless()

            wait_until(self._changed, lambda: refused() or self.newest or len(self._items) < self._room)
            if refused():
                return False
            if len(self._items) >= self._room:
                self._items.popleft()
                self.replaced += 1
            self._items.append(item)
            self._changed.notify_all()
            return True

    def take(self, timeout_s: float | None = None, *, default: Any = None) -> Item | Any:
        """Wait for the next item and return it; ``default`` when none came in time, or none can come any more."""
        with self._changed:
            wait_until(self._changed, lambda: self._closed or bool(self._items), timeout_s)
            if not self._items:
                return default
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def discard(self) -> None:
        """Let go of the items that wait."""
        with self._changed:
            self._items.clear()
            self._changed.notify_all()

    def close(self, *, discard: bool = True) -> None:
        """Take nothing more, and let go whoever waits; what is in it can still be taken if it is not discarded."""
        with self._changed:
            self._closed = True
            if discard:
                self._items.clear()
            self._changed.notify_all()


class DropReporter:
    """Reports what was replaced by newer items: the first time at once, and then at most once a second.

    Args:
        name: of the source or the sink.
        on_event: takes the events.
        words: makes the detail of how many there were and within how many seconds.
        clock: seconds from any origin.
    """

    def __init__(
        self,
        name: str,
        on_event: EventHandler,
        words: Callable[[int, float], str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._on_event = on_event
        self._words = words
        self._clock = clock
        self._lock = threading.Lock()
        self._reported = 0
        self._reported_s = clock()

    def report(self, total: int, *, always: bool = False) -> None:
        """Report what was dropped since the last report, of ``total`` so far; ``always`` does not wait for a second."""
        with self._lock:
            now_s = self._clock()
            count, seconds = total - self._reported, now_s - self._reported_s
            if not count or (self._reported and seconds < _REPORT_EVERY_S and not always):
                return
            self._reported, self._reported_s = total, now_s
        self._on_event(Event("dropped", self._name, self._words(count, seconds), count=count))
