"""Measuring models side by side: every model runs once per round, in an order that changes.

So a machine that is busy with something else slows all models alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from sfpp.runtime.backends import Notify, open_backend
from sfpp.runtime.bench.candidate import Candidate
from sfpp.runtime.bench.measured_model import StageTimes, open_frame
from sfpp.runtime.bench.peak import CHAINS, MatmulPeak, copy_bytes_per_s, matmul_peak
from sfpp.runtime.bench.report import BenchReport
from sfpp.runtime.bench.row import with_samples
from sfpp.runtime.bench.settings import MIN_ROUNDS, BackendSpec, BenchSettings
from sfpp.runtime.errors import BackendError, SfppError
from sfpp.runtime.machine import machine
from sfpp.runtime.scratch import scratch_folder

_PROGRESS_S = 5.0


def bench(models: Sequence[str | os.PathLike[str]], *, notify: Notify | None = None, **options: Any) -> BenchReport:
    """Measure each model on each backend, all in turn, so that what else the machine does slows them alike.

    A model that a backend cannot run, or runs wrongly, becomes a row that says why. Ctrl-C ends the measuring; the
    report then holds what there is, and says so.

    Args:
        models: ONNX files, with a contract or without.
        notify: called with lines that say what is being done.
        options: those of :class:`sfpp.runtime.bench.settings.BenchSettings`, by name.

    Raises:
        BackendError: not one model could be run on any backend.
        UsageError: a setting that cannot be meant.
        ModelFileError: a model that is not a file.
        MediaError: an image that cannot be read.
        KeyboardInterrupt: Ctrl-C came before there was a single sample.
    """
    settings = BenchSettings(tuple(map(Path, models)), **options)
    campaign, interrupted = Campaign(settings, notify=notify or (lambda line: None)), False
    try:
        with contextlib.closing(campaign):
            campaign.load()
            campaign.time()
        _check_some_ran(campaign)
        # The models are closed: what follows opens its own, and a device's memory may hold only one at a time.
        campaign.measure_memory()
        campaign.measure_peaks()
        campaign.profile()
    except KeyboardInterrupt:
        if not campaign.has_samples:
            raise
        interrupted = True
    return campaign.report(interrupted=interrupted)


def _check_some_ran(campaign: Campaign) -> None:
    if campaign.has_samples:
        return
    rows = campaign.report(interrupted=False).rows
    reasons = dict.fromkeys(f"{row.name} on {row.backend}: {row.failure}" for row in rows)
    raise BackendError(f"nothing could be measured: {'; '.join(reasons)}")


class Campaign:
    """Steps of :func:`sfpp.runtime.bench.bench`; a step that is cut off leaves what it has found.

    Args:
        settings: what to measure.
        notify: called with lines that say what is being done.

    Raises:
        MediaError: the settings' image cannot be read.
    """

    def __init__(self, settings: BenchSettings, *, notify: Notify) -> None:
        self._settings = settings
        self._notify = notify
        bench_frame = functools.cache(lambda: open_frame(settings.image))
        if settings.image is not None:
            bench_frame()  # a frame that cannot be read concerns all models, and should be said at once
        self._candidates = [
            Candidate(path, spec, settings=settings, bench_frame=bench_frame)
            for path in settings.models
            for spec in settings.backends
        ]
        self._rounds = Rounds({}, seed=settings.seed)
        self._copy_bytes_per_s: float | None = None

    @property
    def has_samples(self) -> bool:
        """Whether anything was measured."""
        return any(self._rounds.samples.values())

    def load(self) -> None:
        """Open every candidate."""
        for spec in dict.fromkeys(self._settings.backends):
            # Else the first model of each library would pay for its import, half a second that is none of the model's.
            with suppress(SfppError):
                options = spec.options(threads=self._settings.threads, cache=False)
                open_backend(CHAINS[0].path, backend=spec.name, options=options)[0].close()
        for candidate in self._candidates:
            self._notify(f"loading {candidate.title}")
            self._attempt(candidate, functools.partial(candidate.load, notify=self._notify))

    def time(self) -> None:
        """Warm up, then run all candidates in rounds."""
        settings = self._settings
        for candidate in self._candidates:
            if candidate.opened is not None:
                self._notify(f"warming up {candidate.title}")
                self._attempt(candidate, candidate.warm_up)
        models = {index: each.opened for index, each in enumerate(self._candidates) if each.opened is not None}
        if models:
            self._rounds = Rounds(models, seed=settings.seed)
            count = "1 model" if len(models) == 1 else f"{len(models)} in turn"
            self._notify(f"timing {count}: {settings.runs} rounds, or {settings.seconds:g} seconds")
            on_round = progress_lines(self._notify, runs=settings.runs, seconds=settings.seconds)
            self._rounds.run(runs=settings.runs, seconds=settings.seconds, on_round=on_round)

    def measure_memory(self) -> None:
        """Measure each candidate's peak memory."""
        if not self._settings.memory:
            return
        with scratch_folder() as folder:
            for candidate in self._with_samples():
                self._notify(f"measuring the memory of {candidate.title}")
                try:
                    candidate.measure_memory(folder)
                except SfppError as error:
                    candidate.learn(memory_failure=str(error))

    def measure_peaks(self) -> None:
        """Measure what the machine can do, in each library and precision that a candidate used."""
        if not self._settings.peak:
            return
        peaks: dict[BackendSpec, MatmulPeak | None] = {}
        for candidate in self._with_samples():
            if candidate.used not in peaks:
                peaks[candidate.used] = self._matmul_peak(candidate)
            candidate.learn(matmul_peak=peaks[candidate.used])
        # Last: the models' memory is free again, so that the large arrays find room on a small device.
        self._copy_bytes_per_s = copy_bytes_per_s(threads=self._settings.threads)

    def profile(self) -> None:
        """Measure each candidate's operators."""
        if not self._settings.profile:
            return
        for candidate in self._with_samples():
            self._notify(f"profiling {candidate.title}")
            try:
                candidate.profile()
            except SfppError as error:
                self._notify(f"no profile of {candidate.title}: {error}")

    def report(self, *, interrupted: bool) -> BenchReport:
        """Return what is known by now."""
        samples, failures = self._rounds.samples, self._rounds.failures
        # Not always the first candidate: that one may be what a backend cannot run.
        first: list[StageTimes] = next((each for each in samples.values() if each), [])
        rows = []
        for index, candidate in enumerate(self._candidates):
            row = with_samples(candidate.row, samples.get(index, []), first=first)
            rows.append(dataclasses.replace(row, failure=row.failure or failures.get(index)))
        return BenchReport(
            rows=tuple(rows),
            settings=self._settings,
            machine=machine(),
            interrupted=interrupted,
            copy_bytes_per_s=self._copy_bytes_per_s,
        )

    def close(self) -> None:
        """Close all models."""
        for candidate in self._candidates:
            candidate.close()

    def _with_samples(self) -> list[Candidate]:
        return [each for index, each in enumerate(self._candidates) if self._rounds.samples.get(index)]

    def _attempt(self, candidate: Candidate, step: Callable[[], object]) -> None:
        """Take a step; a candidate that fails it stays behind with the reason."""
        try:
            step()
        except SfppError as error:
            candidate.learn(failure=str(error))
            candidate.close()
            self._notify(f"failed: {candidate.title}: {error}")

    def _matmul_peak(self, candidate: Candidate) -> MatmulPeak | None:
        self._notify(f"measuring this machine's best in {candidate.used}")
        try:
            return matmul_peak(backend=candidate.used.name, options=candidate.options(cache=False))
        except SfppError as error:
            self._notify(f"no peak of {candidate.used}: {error}")
            return None


class Timed(Protocol):
    """What takes part in the rounds: an opened model, or one that opens itself for each run."""

    def run(self, *, clock: Callable[[], float]) -> StageTimes:
        """Run once and time the stages; an SfppError says why it cannot."""


class Rounds:
    """The samples of some models, filled round by round, so that an interrupted run keeps what it has.

    Args:
        models: opened and warm, by any key.
        seed: of the order within the rounds.
        clock: seconds from any origin.

    Attributes:
        samples: one per round by key; a model that fails keeps those from before.
        failures: why a model left, by key.
    """

    def __init__(
        self, models: Mapping[int, Timed], *, seed: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.samples: dict[int, list[StageTimes]] = {key: [] for key in models}
        self.failures: dict[int, str] = {}
        self._models = dict(models)
        # A fixed order would give each model the same neighbor, whose traces in the caches it would always meet.
        self._order = random.Random(seed)
        self._clock = clock

    def run(self, *, runs: int, seconds: float, on_round: Callable[[int, float], object]) -> None:
        """Run rounds until there are ``runs``, or ``seconds`` are over and there are a few.

        Args:
            runs: the most rounds.
            seconds: no round begins later, but for the first few.
            on_round: called after each with the rounds done and the seconds since the start.
        """
        start = self._clock()
        for done in range(1, runs + 1):
            self._one_round()
            elapsed = self._clock() - start
            on_round(done, elapsed)
            if not self._models or (elapsed >= seconds and done >= MIN_ROUNDS):
                return

    def _one_round(self) -> None:
        keys = list(self._models)
        self._order.shuffle(keys)
        for key in keys:
            self._one_run(key)

    def _one_run(self, key: int) -> None:
        try:
            self.samples[key].append(self._models[key].run(clock=self._clock))
        except SfppError as error:
            self.failures[key] = str(error)
            del self._models[key]


def progress_lines(notify: Notify, *, runs: int, seconds: float) -> Callable[[int, float], None]:
    """Return what :meth:`Rounds.run` is to call after each round: it says every few seconds how far they are."""
    last_s = 0.0

    def on_round(done: int, elapsed_s: float) -> None:
        nonlocal last_s
        if elapsed_s - last_s >= _PROGRESS_S:
            last_s = elapsed_s
            left_s = max(0.0, min(elapsed_s / done * (runs - done), seconds - elapsed_s))
            notify(f"round {done} of {runs}, about {left_s:.0f} s left")

    return on_round
