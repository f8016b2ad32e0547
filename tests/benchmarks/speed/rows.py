"""Contestants that are plain functions, and rows made up of them."""

from __future__ import annotations

import numpy as np

from benchmarks.speed.contestants import Entry
from benchmarks.speed.results import SpeedRow
from sfpp.runtime.bench.measured_model import MeasuredModel
from sfpp.runtime.errors import BackendError
from sfpp.runtime.segmentation import Segmentation
from sfpp.runtime.timing import summarize


class Fake:
    """Moves a clock while it runs, answers with ``labels``, and writes into ``log`` what is done to it."""

    def __init__(self, clock, *, infer_ms=10.0, labels=(0, 0, 0, 0), peak=1, log=None, fails_in=""):
        self.clock, self.infer_ms, self.peak, self.fails_in = clock, infer_ms, peak, fails_in
        self.labels = np.array([labels], np.uint8)
        self.log = [] if log is None else log

    def open(self):
        self._step("open")
        return MeasuredModel(_Backend(self.log), None, 0.0, prepare=dict, infer=self.infer, finish=self.finish)

    def infer(self, prepared):
        self._step("run")
        self.clock.now += self.infer_ms / 1e3
        return {}

    def finish(self, outputs, prepared):
        self.clock.now += 2e-3
        return Segmentation(self.labels, ("a", "b"), ((0, 0, 0), (1, 1, 1)))

    def peak_bytes(self, frame):
        self._step("peak")
        return self.peak

    def _step(self, name):
        self.log.append(name)
        if name == self.fails_in:
            raise BackendError(f"no luck: {name}")


class _Backend:
    """Says when it is closed."""

    def __init__(self, log):
        self._log = log

    def close(self):
        self._log.append("close")


def entry(name, backend="onnxruntime", *, contestant=None, multiply_adds=None, missing=None):
    return Entry(name, backend, multiply_adds=multiply_adds, contestant=contestant, missing=missing)


def speed_row(name="original", backend="onnxruntime", *, size="512x512", time_ms=None, network="b0", **facts):
    time = None if time_ms is None else summarize([time_ms])
    return SpeedRow(network, size, name, backend, time=time, **facts)
