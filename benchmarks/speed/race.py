"""One network at one size: all contestants are measured in memory, answer once, and then run in rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.contestants import Contestant, Entry
from benchmarks.speed.findings import Findings
from sfpp.runtime import Segmentation
from sfpp.runtime.bench.measured_model import MeasuredModel, StageTimes
from sfpp.runtime.bench.rounds import Rounds, progress_lines
from sfpp.runtime.errors import SfppError


class Reopened:
    """A contestant that is open only while it runs, as there is no memory to hold all of them."""

    def __init__(self, contestant: Contestant) -> None:
        self._contestant = contestant

    def run(self, *, clock: Callable[[], float] = time.perf_counter) -> StageTimes:
        """Open, run once to warm up (buffers are made in the first run), run and time, close."""
        model = self._contestant.open()
        try:
            model.run()
            return model.run(clock=clock)
        finally:
            model.backend.close()


def held_open(peak_bytes: Sequence[int], *, memory_bytes: float) -> set[int]:
    """Return the indices of contestants that may stay open together while any one of the others runs.

    The small ones first: they are the fast ones, which opening anew would delay most.
    """
    order = sorted(range(len(peak_bytes)), key=lambda index: peak_bytes[index])
    held: set[int] = set()
    filled = 0
    for place, index in enumerate(order):
        filled += peak_bytes[index]
        largest_other = peak_bytes[order[-1]] if place < len(order) - 1 else 0
        if filled + largest_other > memory_bytes:
            break
        held.add(index)
    return held


class Race:
    """The steps of one network and size; a step that is cut off leaves what it has found.

    Args:
        entries: who takes part, and who cannot.
        memory_bytes: what all open models together may fill.
        seed: of the order within rounds.
        notify: called with lines that say what is being done.
        clock: seconds from any origin.

    Attributes:
        findings: what is known by now.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        memory_bytes: float,
        seed: int = 0,
        notify: Callable[[str], object] = lambda line: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.findings = Findings(entries)
        self._memory_bytes = memory_bytes
        self._notify = notify
        self._seed, self._clock = seed, clock
        self._open: dict[int, MeasuredModel] = {}

    def measure_memory(self, frame: Path) -> None:
        """Measure each contestant's peak; who is killed for it takes no further part."""
        for index, contestant in self._running():
            self._notify(f"measuring the memory of {self.findings.entries[index].title}")
            try:
                self.findings.peak_bytes[index] = contestant.peak_bytes(frame)
            except SfppError as error:
                # What does not run alone would not run beside others, and its failure there could end all of them.
                self._fail(index, error)

    def answer(self) -> None:
        """Let each contestant label the picture once; who fits in memory beside the others stays open."""
        running = self._running()
        peaks = [self.findings.peak_bytes.get(index, 0) for index, _ in running]
        held = {running[place][0] for place in held_open(peaks, memory_bytes=self._memory_bytes)}
        for index, contestant in running:
            self._notify(f"labels of {self.findings.entries[index].title}")
            try:
                self.findings.labels[index] = self._answer(index, contestant, keep=index in held)
            except SfppError as error:
                self._fail(index, error)

    def time(self, *, runs: int, seconds: float) -> None:
        """Warm up, then run all in turn until there are ``runs`` rounds or the time is over, but at least a few."""
        models = {index: self._open.get(index) or Reopened(contestant) for index, contestant in self._running()}
        for model in self._open.values():
            model.run()
        if not models:
            return
        self._notify(f"timing {len(models)} in turn, {len(models) - len(self._open)} of them opened for each run")
        rounds = Rounds(models, seed=self._seed, clock=self._clock)
        # The same dictionaries, filled round by round: what there is stays when this is cut off.
        self.findings.samples, self.findings.failures = rounds.samples, rounds.failures
        rounds.run(runs=runs, seconds=seconds, on_round=progress_lines(self._notify, runs=runs, seconds=seconds))

    def close(self) -> None:
        """Close what is open."""
        for model in self._open.values():
            model.backend.close()
        self._open.clear()

    def _running(self) -> list[tuple[int, Contestant]]:
        return [
            (index, entry.contestant)
            for index, entry in enumerate(self.findings.entries)
            if entry.contestant is not None and index not in self.findings.missing
        ]

    def _fail(self, index: int, error: SfppError) -> None:
        self.findings.missing[index] = str(error)
        self._notify(f"failed: {self.findings.entries[index].title}: {error}")

    def _answer(self, index: int, contestant: Contestant, *, keep: bool) -> NDArray[np.uint8]:
        model = contestant.open()
        try:
            prepared = model.prepare()
            answer = model.finish(model.infer(prepared), prepared)
        except BaseException:
            model.backend.close()
            raise
        if keep:
            self._open[index] = model
        else:
            model.backend.close()
        assert isinstance(answer, Segmentation)
        return answer.labels
