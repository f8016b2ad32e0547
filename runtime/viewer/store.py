"""The one thing that the pipeline's threads and the viewer's share: the newest update of each source, and counts.

Everything under the lock takes microseconds, so that showing a frame never waits.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from sfpp.runtime.events import Event
from sfpp.runtime.viewer.update import ViewerUpdate

# Each source holds a frame, and each is a label of every metric: made-up names must not fill the memory.
_MOST_SOURCES = 64
_MOST_EVENT_COUNTS = 1024
_EVENTS_KEPT = 200
OTHERS = "(others)"
SAMPLE_S = 0.25
KEPT_S = 60.0
QUANTILES = (0.5, 0.9, 0.99)
# A camera runs for weeks: percentiles speak of the latest values.
_LATEST = 1024


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


class Store:
    """What was shown, for any number of threads.

    Args:
        clock: seconds from any origin.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = {}
        self._events: deque[tuple[int, Event]] = deque(maxlen=_EVENTS_KEPT)
        self._events_seen = 0
        self._event_counts: Counter[tuple[str, str]] = Counter()
        self._dropped: Counter[str] = Counter()

    def put(self, update: ViewerUpdate) -> None:
        """Keep the update in place of its source's last one."""
        now_s = self.clock()
        with self._lock:
            record = self._records.get(update.source)
            if record is None:
                self._make_room()
                record = self._records[update.source] = _Record(update)
            record.take(update, now_s)

    def add_event(self, event: Event) -> None:
        """Keep and count an event.

        Drops of a source that follow each other become one, with all their frames: a busy model reports some every
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

    def events(self, number: int) -> list[tuple[int, Event]]:
        """Return the events from this number on, as far as they are kept, with their place among all events."""
        with self._lock:
            return [each for each in self._events if each[0] >= number]

    def event_counts(self) -> dict[tuple[str, str], int]:
        """Return how many events there were, by source and kind."""
        with self._lock:
            return dict(self._event_counts)

    def dropped(self) -> dict[str, int]:
        """Return how many frames were dropped by source, as events have reported."""
        with self._lock:
            return dict(self._dropped)

    def latencies(self, source: str) -> tuple[dict[str, Quantiles], Quantiles]:
        """Return quantiles of a source's stages, by name, and of the age of its frames; of the latest of them."""
        with self._lock:
            record = self._records.get(source)
            stages = {name: each.copy() for name, each in record.stages.items()} if record else {}
            age = record.age.copy() if record else LatencyWindow()
        # Sorting takes longer than copying, so the lock is free again.
        return {name: each.quantiles() for name, each in stages.items()}, age.quantiles()

    def _keep(self, event: Event) -> None:
        last = next((each for each in reversed(self._events) if each[1].source == event.source), None)
        if last is not None and last[1].kind == event.kind == "dropped":
            self._events.remove(last)
            event = replace(event, count=last[1].count + event.count)
        self._events.append((self._events_seen, event))
        self._events_seen += 1

    def _make_room(self) -> None:
        if len(self._records) >= _MOST_SOURCES:
            # The one that has been still for the longest; if it comes back, it counts anew.
            del self._records[min(self._records, key=lambda name: self._records[name].last_s)]


@dataclass(frozen=True)
class Sample:
    """The frames of about a quarter of a second: a point of each chart.

    Attributes:
        number: counts the samples of a source from 0.
        time_s: of the last of its frames, on the clock ``time.monotonic``.
        age_ms: the mean; None if it is not known.
        frames_per_second: as of the last frame.
        stages_ms: the mean by stage.
    """

    number: int
    time_s: float
    age_ms: float | None
    frames_per_second: float | None
    stages_ms: Mapping[str, float]


class History:
    """The samples of the last minute."""

    def __init__(self) -> None:
        # One more than there are quarters in a minute: the first and the last are then a minute apart.
        self._samples: deque[Sample] = deque(maxlen=round(KEPT_S / SAMPLE_S) + 1)
        self._count = 0
        self._last_end_s = float("-inf")
        self._stages: dict[str, list[float]] = {}
        self._ages: list[float] = []

    def take(self, update: ViewerUpdate, now_s: float) -> None:
        """Add a frame; it ends a sample if the last one has ended long enough ago, as every frame of a slow one."""
        for stage, duration_ms in update.stages_ms.items():
            self._stages.setdefault(stage, []).append(duration_ms)
        if update.age_ms is not None:
            self._ages.append(update.age_ms)
        if now_s - self._last_end_s >= SAMPLE_S:
            self._end_sample(update, now_s)

    def since(self, number: int) -> list[Sample]:
        """Return the samples from this number on, as far as they are remembered."""
        return [sample for sample in self._samples if sample.number >= number]

    def _end_sample(self, update: ViewerUpdate, now_s: float) -> None:
        stages_ms = {stage: _mean(values) for stage, values in self._stages.items()}
        age_ms = _mean(self._ages) if self._ages else None
        self._samples.append(Sample(self._count, now_s, age_ms, update.frames_per_second, stages_ms))
        self._count += 1
        self._last_end_s = now_s
        self._stages, self._ages = {}, []


@dataclass(frozen=True)
class Quantiles:
    """Of the latest durations, in seconds, by quantile 0..1; and count and sum of all there ever were."""

    values_s: Mapping[float, float]
    count: int
    sum_s: float


@dataclass
class LatencyWindow:
    """The latest durations in milliseconds, and count and sum of all."""

    count: int = 0
    sum_ms: float = 0.0
    latest_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))

    def add(self, duration_ms: float) -> None:
        """Add a duration; one that is not finite is no measurement."""
        if np.isfinite(duration_ms):
            self.latest_ms.append(duration_ms)
            self.count += 1
            self.sum_ms += duration_ms

    def copy(self) -> LatencyWindow:
        """Return a copy that can be read while this one grows."""
        return LatencyWindow(self.count, self.sum_ms, self.latest_ms.copy())

    def quantiles(self) -> Quantiles:
        """Return what a monitoring system wants to know, in seconds; no quantiles of nothing."""
        values = np.quantile(self.latest_ms, QUANTILES) / 1000 if self.latest_ms else ()
        by_quantile = {q: float(value) for q, value in zip(QUANTILES, values, strict=False)}
        return Quantiles(by_quantile, self.count, self.sum_ms / 1000)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


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
