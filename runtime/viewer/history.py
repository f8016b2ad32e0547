"""What is remembered of a source's latencies: the last minute for charts, and the latest values for percentiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sfpp.runtime.viewer.update import ViewerUpdate

SAMPLE_S = 0.25
KEPT_S = 60.0
QUANTILES = (0.5, 0.9, 0.99)

# A camera runs for weeks: percentiles speak of the latest values.
_LATEST = 1024


@dataclass(frozen=True)
class Sample:
    """The frames of about a quarter of a second: a point of each chart.

    Attributes:
        number: counts the samples of a source from 0.
        time_s: of the last of its frames, on the clock ``time.monotonic``.
        age_ms: the mean; None if it is not known.
        frames_per_second: as the last frame told it.
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
