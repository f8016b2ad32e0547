"""One model on one backend: opened, warmed up, and measured in ways that need no other model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sfpp.runtime.backends import BackendOptions, backend_choices
from sfpp.runtime.bench.measured_model import BenchFrame, MeasuredModel, open_model
from sfpp.runtime.bench.memory import MemoryRequest, model_peak_bytes
from sfpp.runtime.bench.row import Row
from sfpp.runtime.bench.settings import BackendSpec, BenchSettings
from sfpp.runtime.errors import BackendError, SelfTestError
from sfpp.runtime.model import SelfTestState
from sfpp.runtime.self_test import first_that_answers

# The first run is slower than the others, and is part of the mean that a library reports.
_PROFILED_RUNS = 5


class Candidate:
    """A model on a backend; each step adds to its row, or raises an SfppError that says why it cannot.

    Args:
        path: the model file.
        spec: the backend.
        settings: of the whole run.
        bench_frame: gives the frame for a model with a contract.

    Attributes:
        row: what is known so far.
        used: the backend that measures it, once it was loaded: of several that suit, the first whose self-test passes.
        opened: the model, between ``load`` and ``close``.
    """

    def __init__(
        self, path: Path, spec: BackendSpec, *, settings: BenchSettings, bench_frame: Callable[[], BenchFrame]
    ) -> None:
        self.row = Row(model=str(path), backend=str(spec), file_bytes=path.stat().st_size)
        self.spec = self.used = spec
        self.opened: MeasuredModel | None = None
        self._path = path
        self._settings = settings
        self._bench_frame = bench_frame
        self._open_with = partial(open_model, bench_frame=bench_frame, shapes=settings.input_shapes, seed=settings.seed)

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self._path.name} on {self.spec}"

    def options(self, *, profile: bool = False, cache: bool = True) -> BackendOptions:
        """Return how the backend opens this model."""
        return self.used.options(threads=self._settings.threads, profile=profile, cache=cache)

    def load(self, *, notify: Callable[[str], object]) -> None:
        """Open the model without a cache of compiled models, then from a filled one, and keep that.

        Where the runtime chooses the library, it is the first whose self-test passes; one that was asked for and fails
        it is a failure, as a fast wrong answer is none.
        """
        fresh = self._first_opened(notify)
        fresh.backend.close()
        # Whether an earlier run left something in the cache is not known: this fills it, the next one finds it.
        self._open().backend.close()
        self.opened = self._open()
        backend, model = self.opened.backend, self.opened.model
        self.learn(description=backend.description, precision=backend.precision)
        self.learn(load_ms=fresh.load_ms, cached_load_ms=self.opened.load_ms)
        if model is not None:  # older files have no counts
            counts = {each: getattr(model.contract, each) for each in ("multiply_adds", "activation_bytes")}
            self.learn(task=model.contract.task, **counts)

    def warm_up(self) -> None:
        """Run the opened model a few times."""
        assert self.opened is not None
        for _ in range(self._settings.warmup):
            self.opened.run()

    def measure_memory(self, folder: Path) -> None:
        """Measure the peak memory in a process of its own; the frame goes there through a file in ``folder``."""
        frame, fitted = None, False
        if self.row.task is not None:
            frame, fitted = str(folder / "frame.npy"), self._bench_frame().fitted
            np.save(frame, self._bench_frame().frame_bgr)
        request = MemoryRequest(
            model=str(self._path),
            backend=self.used.name,
            precision=self.used.precision,
            threads=self._settings.threads,
            frame=frame,
            fitted=fitted,
            shapes=dict(self._settings.input_shapes),
            seed=self._settings.seed,
        )
        self.learn(peak_memory_bytes=model_peak_bytes(request))

    def profile(self) -> None:
        """Measure the operators; the model is opened anew, as measuring them slows every run."""
        model = self._open(profile=True, cache=False)  # what the cache holds was compiled without counters
        try:
            prepared = model.prepare()  # once: only the library's own operators are profiled
            for _ in range(_PROFILED_RUNS):
                model.infer(prepared)
            self.learn(operators_ms=model.backend.operator_times_ms())
        finally:
            model.backend.close()

    def learn(self, **facts: Any) -> None:
        """Put facts into the row."""
        self.row = dataclasses.replace(self.row, **facts)

    def close(self) -> None:
        """Release the model."""
        if self.opened is not None:
            self.opened.backend.close()
            self.opened = None

    def _first_opened(self, notify: Callable[[str], object]) -> MeasuredModel:
        """Open the model, without a cache, in the backend that is to measure it, and where it is opened from then on.

        Raises:
            BackendError: its self-test fails.
        """
        choices = backend_choices(self._path, backend=self.spec.name, options=self.options(cache=False))
        try:
            opened, choice = first_that_answers(
                self._path,
                [dataclasses.replace(each, asked=False) for each in choices],
                partial(self._open_with, notify=notify),
                model_of=lambda opened: opened.model,
                replay=self._settings.self_test,
                notify=notify if self.spec.name is None else None,  # what was asked for need not be reported
            )
        except SelfTestError as error:
            detail = "; ".join(error.answers)
            self.learn(self_test=SelfTestState("failed", error.agreement, detail))
            raise BackendError(f"{detail}; --no-self-test measures it all the same") from error
        if opened.model is not None:
            self.learn(self_test=opened.model.self_test)
        elif self._settings.self_test:
            self.learn(self_test=SelfTestState("not carried"))
        self.used = BackendSpec(choice.name, choice.options.precision)
        return opened

    def _open(self, *, profile: bool = False, cache: bool = True) -> MeasuredModel:
        options = self.options(profile=profile, cache=cache)
        return self._open_with(backend_choices(self._path, backend=self.used.name, options=options)[0])[0]
