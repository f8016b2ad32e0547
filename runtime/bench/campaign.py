"""The steps of a measurement over all candidates, and what they have found out so far."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sfpp.runtime.backends import open_backend
from sfpp.runtime.bench.candidate import Candidate
from sfpp.runtime.bench.inputs import open_picture
from sfpp.runtime.bench.opened import StageTimes
from sfpp.runtime.bench.peak import CHAINS, MatmulPeak, copy_bytes_per_s, matmul_peak
from sfpp.runtime.bench.report import BenchReport
from sfpp.runtime.bench.rounds import Rounds, progress_lines
from sfpp.runtime.bench.row import with_samples
from sfpp.runtime.bench.settings import BackendSpec, BenchSettings
from sfpp.runtime.errors import SfppError
from sfpp.runtime.machine import machine


class Campaign:
    """Steps of :func:`sfpp.runtime.bench.bench`; a step that is cut off leaves what it has found.

    Args:
        settings: what to measure.
        notify: called with lines that say what is being done.

    Raises:
        MediaError: the settings' image cannot be read.
    """

    def __init__(self, settings: BenchSettings, *, notify: Callable[[str], object]) -> None:
        self._settings = settings
        self._notify = notify
        picture = functools.cache(lambda: open_picture(settings.image))
        if settings.image is not None:
            picture()  # a picture that cannot be read concerns all models, and should be said at once
        self._candidates = [
            Candidate(path, spec, settings=settings, picture=picture)
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
        with tempfile.TemporaryDirectory() as folder:
            for candidate in self._with_samples():
                self._notify(f"measuring the memory of {candidate.title}")
                try:
                    candidate.measure_memory(Path(folder))
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
