"""The one thing that the pipeline's threads and the viewer's share: the newest update of each source, and counts.

Everything under the lock takes microseconds, so whoever shows a frame waits for nobody.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from sfpp.runtime.events import Event
from sfpp.runtime.viewer.history import History, LatencyWindow, Quantiles, Sample
from sfpp.runtime.viewer.update import ViewerUpdate

# Each source holds a frame, and each is a label of every metric: whoever makes up new names must not fill the memory.
_MOST_SOURCES = 64
_MOST_EVENT_COUNTS = 1024
_EVENTS_KEPT = 200
OTHERS = "(others)"


@dataclass(frozen=True)
class SourceFacts:
    """A source as it stands: its newest update, how many there were, and how long ago the last one came."""

    newest: ViewerUpdate
    frames: int
    idle_s: float

    @property
    def name(self) -> str:
        """The source's name."""
        return self.newest.source


@dataclass(frozen=True)
class SourceLatencies:
    """Quantiles of a source's stages, by name, and of the age of its frames."""

    stages: Mapping[str, Quantiles]
    age: Quantiles


@dataclass(frozen=True)
class NumberedEvent:
    """An event and its place among all events, from 0."""

    number: int
    event: Event


class Store:
    """What was shown, for any number of threads.

    Args:
        clock: seconds from any origin.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = {}
        self._events: deque[NumberedEvent] = deque(maxlen=_EVENTS_KEPT)
        self._events_seen = 0
        self._event_counts: Counter[tuple[str, str]] = Counter()
        self._dropped: Counter[str] = Counter()

    def put(self, update: ViewerUpdate) -> None:
        """Keep the update in the place of its source's last one."""
        now_s = self.clock()
        with self._lock:
            record = self._records.get(update.source)
            if record is None:
                self._make_room()
                record = self._records[update.source] = _Record(update)
            record.take(update, now_s)

    def add_event(self, event: Event) -> None:
        """Keep and count an event.

        Drops of a source that follow each other become one, with all their frames: a busy model tells of some every
        second, and nothing else would be left.
        """
        with self._lock:
            self._keep(event)
            key = event.source, event.kind
            full = key not in self._event_counts and len(self._event_counts) >= _MOST_EVENT_COUNTS
            source = OTHERS if full else event.source
            self._event_counts[source, event.kind] += 1
            if event.kind == "dropped":
                self._dropped[source] += event.count

    def newest(self) -> dict[str, ViewerUpdate]:
        """Return the newest update by source, in the order in which the sources first came."""
        with self._lock:
            return {name: record.newest for name, record in self._records.items()}

    def sources(self) -> list[SourceFacts]:
        """Return the sources as they stand, in the order in which they first came."""
        now_s = self.clock()
        with self._lock:
            return [
                SourceFacts(record.newest, record.frames, max(0.0, now_s - record.last_s))
                for record in self._records.values()
            ]

    def samples(self, source: str, number: int) -> list[Sample]:
        """Return a source's samples from this number on; none of a source that is not known."""
        with self._lock:
            record = self._records.get(source)
            return [] if record is None else record.history.since(number)

    def events(self, number: int) -> list[NumberedEvent]:
        """Return the events from this number on, as far as they are kept."""
        with self._lock:
            return [each for each in self._events if each.number >= number]

    def event_counts(self) -> dict[tuple[str, str], int]:
        """Return how many events there were, by source and kind."""
        with self._lock:
            return dict(self._event_counts)

    def dropped(self) -> dict[str, int]:
        """Return how many frames were dropped by source, as events have told."""
        with self._lock:
            return dict(self._dropped)

    def latencies(self, source: str) -> SourceLatencies | None:
        """Return quantiles of a source's latest frames; None of a source that is not known."""
        with self._lock:
            record = self._records.get(source)
            if record is None:
                return None
            stages = {name: each.copy() for name, each in record.stages.items()}
            age = record.age.copy()
        # Sorting takes longer than copying, so the lock is free again.
        return SourceLatencies({name: each.quantiles() for name, each in stages.items()}, age.quantiles())

    def _keep(self, event: Event) -> None:
        last = next((each for each in reversed(self._events) if each.event.source == event.source), None)
        kept = event
        if last is not None and last.event.kind == event.kind == "dropped":
            self._events.remove(last)
            kept = replace(event, count=last.event.count + event.count)
        self._events.append(NumberedEvent(self._events_seen, kept))
        self._events_seen += 1

    def _make_room(self) -> None:
        if len(self._records) >= _MOST_SOURCES:
            # The one that has been still for the longest; if it comes back, it counts anew.
            del self._records[min(self._records, key=lambda name: self._records[name].last_s)]


@dataclass
class _Record:
    """A source's newest update and what is remembered of those before."""

    newest: ViewerUpdate
    frames: int = 0
    last_s: float = 0.0
    history: History = field(default_factory=History)
    stages: dict[str, LatencyWindow] = field(default_factory=dict)
    age: LatencyWindow = field(default_factory=LatencyWindow)

    def take(self, update: ViewerUpdate, now_s: float) -> None:
        self.newest = update
        self.frames += 1
        self.last_s = now_s
        self.history.take(update, now_s)
        for stage, duration_ms in update.stages_ms.items():
            self.stages.setdefault(stage, LatencyWindow()).add(duration_ms)
        if update.age_ms is not None:
            self.age.add(update.age_ms)
