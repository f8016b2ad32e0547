"""Runs in turn: every model once a round, in an order that changes, so that a busy machine slows them alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from sfpp.runtime.bench.opened import StageTimes
from sfpp.runtime.bench.settings import MIN_ROUNDS
from sfpp.runtime.errors import SfppError

_PROGRESS_S = 5.0


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
        samples: one a round by key; a model that fails keeps those from before.
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


def progress_lines(notify: Callable[[str], object], *, runs: int, seconds: float) -> Callable[[int, float], None]:
    """Return what :meth:`Rounds.run` is to call after each round: it says every few seconds how far they are."""
    last_s = 0.0

    def on_round(done: int, elapsed_s: float) -> None:
        nonlocal last_s
        if elapsed_s - last_s >= _PROGRESS_S:
            last_s = elapsed_s
            left_s = max(0.0, min(elapsed_s / done * (runs - done), seconds - elapsed_s))
            notify(f"round {done} of {runs}, about {left_s:.0f} s left")

    return on_round
