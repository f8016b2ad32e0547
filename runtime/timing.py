"""Stage latencies of a running pipeline, and what share of frames stays below them."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sfpp.runtime.errors import UsageError

# A camera runs for weeks: percentiles speak of the latest so many frames, which bounds the memory.
_KEPT = 100_000


@dataclass(frozen=True)
class Latency:
    """Percentiles of a stage's duration in milliseconds, and how many durations were measured in all."""

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float


class StageTimer:
    """Durations by stage. Stages may be measured in different threads at once, one thread a stage.

    Args:
        clock: seconds from any origin.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._stages: dict[str, _Stage] = {}

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, in the order in which they were first measured."""
        return tuple(self._stages)

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Measure the block as one pass of ``stage``; a block that raises is not counted."""
        start = self._clock()
        yield
        self._stages.setdefault(stage, _Stage(first_start=start)).add(start, self._clock())

    def latency(self, stage: str) -> Latency:
        """Return the percentiles of one stage.

        Raises:
            UsageError: the stage was never measured.
        """
        if stage not in self._stages:
            known = ", ".join(self._stages) or "none"
            raise UsageError(f"the stage {stage!r} was never measured; measured: {known}")
        measured = self._stages[stage]
        p50, p90, p99 = (float(value) for value in np.percentile(list(measured.durations_ms), (50, 90, 99)))
        return Latency(count=measured.count, p50_ms=p50, p90_ms=p90, p99_ms=p99)

    @property
    def frames_per_second(self) -> float:
        """Frames a second of wall time, from the first start to the last end; 0 before anything was measured.

        Every frame passes a stage at most once, so the busiest stage has counted the frames; the time between stages,
        and stages that overlap, come out right.
        """
        stages = list(self._stages.values())
        if not stages:
            return 0.0
        elapsed = max(stage.last_end for stage in stages) - min(stage.first_start for stage in stages)
        return max(stage.count for stage in stages) / elapsed if elapsed > 0 else 0.0

    def summary(self) -> list[str]:
        """Return a table as lines of text: a header, one line a stage, and the frames a second."""
        if not self._stages:
            return ["nothing was measured"]
        width = max(len("stage"), *(len(stage) for stage in self._stages))
        lines = [f"{'stage':<{width}}  {'frames':>7}  {'p50 ms':>8}  {'p90 ms':>8}  {'p99 ms':>8}"]
        for stage in self.stages:
            latency = self.latency(stage)
            numbers = f"{latency.p50_ms:>8.1f}  {latency.p90_ms:>8.1f}  {latency.p99_ms:>8.1f}"
            lines.append(f"{stage:<{width}}  {latency.count:>7}  {numbers}")
        return [*lines, f"{self.frames_per_second:.1f} frames a second"]


class _Stage:
    """The passes of one stage."""

    def __init__(self, *, first_start: float) -> None:
        self.first_start = first_start
        self.last_end = first_start
        self.count = 0
        self.durations_ms: deque[float] = deque(maxlen=_KEPT)

    def add(self, start: float, end: float) -> None:
        self.durations_ms.append((end - start) * 1000)
        self.last_end = end
        self.count += 1
