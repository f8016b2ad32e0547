"""Stage latencies of a running pipeline, what share of frames stays below them, and which stage holds up the others."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sfpp.runtime.errors import UsageError
from sfpp.runtime.text import aligned

# A camera runs for weeks: percentiles speak of the latest so many frames, which bounds the memory.
_KEPT = 100_000


@dataclass(frozen=True)
class Summary:
    """Latencies in milliseconds; percentiles are interpolated, so p99 of a few runs is close to the slowest one.

    ``spread`` is the distance between the quartiles over the median: 0.02 on a quiet machine, 0.3 on a busy one.
    """

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    fastest_ms: float
    spread: float


def summarize(samples_ms: Sequence[float]) -> Summary:
    """Summarize latencies.

    Raises:
        UsageError: no sample.
    """
    if not samples_ms:
        raise UsageError("there is no sample to summarize: run at least once")
    # Quartiles rather than the standard deviation: one run that the system interrupted would dominate it.
    q1, p50, q3, p90, p99 = (float(value) for value in np.percentile(samples_ms, (25, 50, 75, 90, 99)))
    return Summary(
        count=len(samples_ms),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        mean_ms=float(np.mean(samples_ms)),
        fastest_ms=float(np.min(samples_ms)),
        spread=(q3 - q1) / p50 if p50 > 0 else 0.0,
    )


class StepClock:
    """Says which step of a longer work begins, and keeps how long each took.

    Args:
        notify: told of each step.

    Attributes:
        notify: the same.
        seconds: by step, in the order in which they first began.
    """

    def __init__(self, notify: Callable[[str], object]) -> None:
        self.notify = notify
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step that ends well; the time of steps of the same name adds up."""
        self.notify(f"{name} ...")
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


class RateMeter:
    """Events a second, from the latest of them.

    Args:
        latest: how many events.
        clock: seconds from any origin.
    """

    def __init__(self, *, latest: int = 30, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times_s: deque[float] = deque(maxlen=latest)

    def count(self) -> None:
        """Note that an event happened just now."""
        self._times_s.append(self._clock())

    @property
    def per_second(self) -> float | None:
        """The rate; None before the second event, or where all happened at once."""
        if len(self._times_s) < 2 or self._times_s[0] == self._times_s[-1]:
            return None
        return (len(self._times_s) - 1) / (self._times_s[-1] - self._times_s[0])


class StageTimer:
    """Durations by stage. Stages may be measured and read in different threads at once, one thread a stage.

    What is read while others measure may lack the pass that is just ending.

    Args:
        clock: seconds from any origin.
        stages: names in the order in which to list them; others follow in the order in which they are first measured.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter, stages: Sequence[str] = ()) -> None:
        self._clock = clock
        self._known: dict[str, _Stage] = {stage: _Stage() for stage in stages}
        self._finished = 0
        self._last_finish = 0.0
        self._lock = threading.Lock()

    def expect(self, stages: Iterable[str]) -> None:
        """List these stages, once they are measured, before others that were not named."""
        with self._lock:
            for stage in stages:
                self._known.setdefault(stage, _Stage())

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that were measured."""
        return tuple(self._measured())

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Measure the block as one pass of ``stage``; a block that raises is not counted."""
        start = self._clock()
        yield
        self.add(stage, start, self._clock())

    def add(self, stage: str, start: float, end: float) -> None:
        """Count a pass of ``stage`` that was measured by the clock from start to end."""
        with self._lock:
            self._known.setdefault(stage, _Stage()).add(start, end)

    def frame_done(self) -> None:
        """Count a frame that has passed all stages.

        A pipeline that is stopped has frames in its first stages that never come out; without this they would count.
        """
        with self._lock:
            self._finished += 1
            self._last_finish = self._clock()

    def latency(self, stage: str) -> Summary:
        """Summarize the durations of one stage; they are counted all, and of the latest are the other figures.

        Raises:
            UsageError: the stage was never measured.
        """
        measured = self._stage(stage)
        with self._lock:
            count, durations_ms = measured.count, list(measured.durations_ms)
        return replace(summarize(durations_ms), count=count)

    def busy_share(self, stage: str) -> float:
        """Return the part of the run's wall time, 0..1, in which the stage worked rather than waited for others.

        Raises:
            UsageError: the stage was never measured.
        """
        measured = self._stage(stage)
        frames, elapsed_s = self._progress()
        return min(1.0, measured.busy_s_of(frames) / elapsed_s) if elapsed_s > 0 else 0.0

    def bottleneck(self) -> tuple[str, float] | None:
        """Return the slowest stage by the times of this run, and the frames a second that it would allow by itself.

        None before anything was measured. Where stages share cores, each would be faster alone than these times say.
        """
        frames, _ = self._progress()
        busy_s = {name: stage.busy_s_of(frames) for name, stage in self._measured().items()}
        slowest = max(busy_s, key=busy_s.__getitem__, default=None)
        if slowest is None or busy_s[slowest] <= 0:
            return None
        return slowest, frames / busy_s[slowest]

    @property
    def frames_per_second(self) -> float:
        """Frames a second of wall time, from the first start to the last end; 0 before anything was measured.

        The time between stages, and stages that overlap, come out right.
        """
        frames, elapsed_s = self._progress()
        return frames / elapsed_s if elapsed_s > 0 else 0.0

    def summary(self) -> list[str]:
        """Return a table as lines of text: a header, one line a stage, and the frames a second."""
        if not self.stages:
            return ["nothing was measured"]
        rows = [("stage", "frames", "p50 ms", "p90 ms", "p99 ms", "busy %")]
        for stage in self.stages:
            latency = self.latency(stage)
            p50, p90, p99 = (f"{each:.1f}" for each in (latency.p50_ms, latency.p90_ms, latency.p99_ms))
            rows.append((stage, str(latency.count), p50, p90, p99, f"{100 * self.busy_share(stage):.0f}"))
        return [*aligned(rows), self._verdict()]

    def _verdict(self) -> str:
        """Say how fast it was, and of more than one frame what kept it from being faster."""
        rate, slowest = self.frames_per_second, self.bottleneck()
        verdict = f"{rate:.1f} frames a second"
        if slowest is None or self._progress()[0] < 2:
            return verdict
        stage, alone = slowest
        return f"{verdict}; the slowest stage, {stage}, alone would allow {alone:.1f} ({100 * rate / alone:.0f} %)"

    def _measured(self) -> dict[str, _Stage]:
        with self._lock:
            return {name: stage for name, stage in self._known.items() if stage.count}

    def _stage(self, name: str) -> _Stage:
        measured = self._measured()
        if name not in measured:
            known = ", ".join(measured) or "none"
            raise UsageError(f"the stage {name!r} was never measured; measured: {known}")
        return measured[name]

    def _progress(self) -> tuple[int, float]:
        """Return how many frames there were, and the seconds from the first start to the end of the last of them.

        A loop that does not call :meth:`frame_done` sends every frame through a stage at most once, so there the
        busiest stage has counted the frames.
        """
        stages = list(self._measured().values())
        if not stages:
            return 0, 0.0
        start = min(stage.first_start for stage in stages)
        with self._lock:
            finished, last_finish = self._finished, self._last_finish
        if finished:
            return finished, last_finish - start
        return max(stage.count for stage in stages), max(stage.last_end for stage in stages) - start


class _Stage:
    """The passes of one stage; times in seconds of the timer's clock."""

    def __init__(self) -> None:
        self.first_start = self.last_end = 0.0
        self.busy_s = 0.0
        self.count = 0
        self.durations_ms: deque[float] = deque(maxlen=_KEPT)

    def add(self, start: float, end: float) -> None:
        if not self.count:
            self.first_start = start
        self.durations_ms.append((end - start) * 1000)
        self.busy_s += end - start
        self.last_end = end
        self.count += 1

    def busy_s_of(self, frames: int) -> float:
        """Return the time spent on so many finished frames: passes of frames that never came out do not count."""
        return self.busy_s * min(1.0, frames / self.count)
