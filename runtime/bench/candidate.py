"""One model on one backend: opened, warmed up, and measured in ways that need no other beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sfpp.runtime.backends import BackendOptions
from sfpp.runtime.bench.inputs import Picture
from sfpp.runtime.bench.memory import MemoryRequest, model_peak_bytes
from sfpp.runtime.bench.opened import OpenedModel, open_model
from sfpp.runtime.bench.operators import operator_times_ms
from sfpp.runtime.bench.row import Row, with_contract
from sfpp.runtime.bench.settings import BackendSpec, BenchSettings
from sfpp.runtime.contract import ModelContract


class Candidate:
    """A model on a backend; each step adds to its row, or raises an SfppError that says why it cannot.

    Args:
        path: the model file.
        spec: the backend.
        settings: of the whole run.
        picture: gives the frame for a model with a contract.

    Attributes:
        row: what is known so far.
        opened: the model, between ``load`` and ``close``.
        contract: the model's, once it was loaded; None if it has none.
    """

    def __init__(
        self, path: Path, spec: BackendSpec, *, settings: BenchSettings, picture: Callable[[], Picture]
    ) -> None:
        self.row = Row(model=str(path), backend=str(spec), file_bytes=path.stat().st_size)
        self.spec = spec
        self.opened: OpenedModel | None = None
        self.contract: ModelContract | None = None
        self._path = path
        self._settings = settings
        self._picture = picture

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self._path.name} on {self.spec}"

    def options(self, *, profile: bool = False, cache: bool = True) -> BackendOptions:
        """Return how the backend opens this model."""
        return self.spec.options(threads=self._settings.threads, profile=profile, cache=cache)

    def load(self, *, notify: Callable[[str], object]) -> None:
        """Open the model without a cache of compiled models, then from a filled one, and keep that."""
        fresh = self._open(cache=False, notify=notify)
        fresh.backend.close()
        # Whether an earlier run left something in the cache is not known: this fills it, the next one finds it.
        self._open().backend.close()
        self.opened = self._open()
        self.contract = self.opened.contract
        self.row = with_contract(self.row, self.contract)
        backend = self.opened.backend
        self.learn(description=backend.description, precision=backend.precision)
        self.learn(load_ms=fresh.load_ms, cached_load_ms=self.opened.load_ms)

    def warm_up(self) -> None:
        """Run the opened model a few times."""
        assert self.opened is not None
        for _ in range(self._settings.warmup):
            self.opened.run()

    def measure_memory(self, folder: Path) -> None:
        """Measure the peak memory in a process of its own; the frame goes there through a file in ``folder``."""
        frame, fitted = None, False
        if self.contract is not None:
            frame, fitted = str(folder / "frame.npy"), self._picture().fitted
            np.save(frame, self._picture().frame_bgr)
        request = MemoryRequest(
            model=str(self._path),
            backend=self.spec.name,
            precision=self.spec.precision,
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
            self.learn(operators_ms=operator_times_ms(model))
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

    def _open(
        self, *, profile: bool = False, cache: bool = True, notify: Callable[[str], object] | None = None
    ) -> OpenedModel:
        return open_model(
            self._path,
            backend=self.spec.name,
            options=self.options(profile=profile, cache=cache),
            picture=self._picture,
            shapes=self._settings.input_shapes,
            seed=self._settings.seed,
            notify=notify,
        )
