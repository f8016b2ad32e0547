"""The one thing that the pipeline's threads and the viewer's share: the newest update of each source, and counts.

Everything under the lock takes microseconds, so that showing a frame never waits.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean

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
            return [each for each in record.samples if each.number >= number] if record else []

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

    def latencies(self, source: str) -> tuple[dict[str, LatencyWindow], LatencyWindow, LatencyWindow]:
        """Return the latest durations of a source's stages, by name, and the latest ages of its frames and labels."""
        with self._lock:
            record = self._records.get(source)
            # Copies: sorting them for quantiles takes longer, and is done when the lock is free again.
            if record is None:
                return {}, LatencyWindow(), LatencyWindow()
            stages = {name: each.copy() for name, each in record.stages.items()}
            return stages, record.age.copy(), record.labels_age.copy()

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
        age_ms, labels_age_ms: the mean; None if it is not known.
        frames_per_second: as of the last frame.
        stages_ms: the mean by stage.
    """

    number: int
    time_s: float
    age_ms: float | None
    labels_age_ms: float | None
    frames_per_second: float | None
    stages_ms: Mapping[str, float]


@dataclass
class LatencyWindow:
    """The latest durations in milliseconds, and count and sum of all there ever were."""

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
        return replace(self, latest_ms=self.latest_ms.copy())

    def quantiles_ms(self) -> dict[float, float]:
        """Return the latest durations' :data:`QUANTILES`; none of nothing."""
        values = np.quantile(self.latest_ms, QUANTILES) if self.latest_ms else ()
        return {quantile: float(value) for quantile, value in zip(QUANTILES, values, strict=False)}


@dataclass
class _Record:
    """A source's newest update and what is remembered of those before."""

    newest: ViewerUpdate
    frames: int = 0
    last_s: float = 0.0
    stages: defaultdict[str, LatencyWindow] = field(default_factory=lambda: defaultdict(LatencyWindow))
    age: LatencyWindow = field(default_factory=LatencyWindow)
    labels_age: LatencyWindow = field(default_factory=LatencyWindow)
    # One more than there are quarters in a minute: the first and the last are then a minute apart.
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=round(KEPT_S / SAMPLE_S) + 1))
    # Of the frames since the last sample.
    _stages_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _ages_ms: list[float] = field(default_factory=list)
    _labels_ages_ms: list[float] = field(default_factory=list)

    def take(self, update: ViewerUpdate, now_s: float) -> None:
        """Add a frame; it ends a sample if the last one has ended long enough ago, as every frame of a slow one."""
        self.newest = update
        self.frames += 1
        self.last_s = now_s
        for stage, duration_ms in update.stages_ms.items():
            self.stages[stage].add(duration_ms)
            self._stages_ms[stage].append(duration_ms)
        if update.age_ms is not None:
            self.age.add(update.age_ms)
            self._ages_ms.append(update.age_ms)
        if update.labels_age_ms is not None:
            self.labels_age.add(update.labels_age_ms)
            self._labels_ages_ms.append(update.labels_age_ms)
        if not self.samples or now_s - self.samples[-1].time_s >= SAMPLE_S:
            self._end_sample(now_s)

    def _end_sample(self, now_s: float) -> None:
        number = self.samples[-1].number + 1 if self.samples else 0
        stages_ms = {stage: fmean(values) for stage, values in self._stages_ms.items()}
        age_ms, labels_age_ms = (fmean(each) if each else None for each in (self._ages_ms, self._labels_ages_ms))
        self.samples.append(Sample(number, now_s, age_ms, labels_age_ms, self.newest.frames_per_second, stages_ms))
        self._stages_ms.clear()
        self._ages_ms.clear()
        self._labels_ages_ms.clear()
