"""From what one race has found to rows that compare each contestant with theirs, with our original, and in labels."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.contestants import Entry
from benchmarks.speed.results import LOCAL, TRANSFORMERS, SpeedRow
from sfpp.runtime.agreement import label_agreement
from sfpp.runtime.bench.measured_model import StageTimes
from sfpp.runtime.bench.row import Speedup, speedup
from sfpp.runtime.timing import summarize

_ORIGINAL = "original"
_FLOAT32 = ("onnxruntime", "openvino:fp32")


@dataclass
class Findings:
    """What is known by now of one network at one size; by index into ``entries``.

    ``labels`` are (H, W) uint8, of one and the same picture.
    """

    entries: Sequence[Entry]
    missing: dict[int, str] = field(default_factory=dict)
    peak_bytes: dict[int, int] = field(default_factory=dict)
    labels: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    samples: dict[int, list[StageTimes]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, entry in enumerate(self.entries):
            if entry.missing is not None:
                self.missing[index] = entry.missing

    def rows(self, *, network: str, size: str, peaks: Mapping[str, float]) -> list[SpeedRow]:
        """Return a row for each entry.

        Args:
            network: ``b0`` to ``b5``.
            size: width x height.
            peaks: the best rate in matrix products, multiply-adds a second, by backend.
        """
        return [
            SpeedRow(
                network=network,
                size=size,
                name=entry.name,
                backend=entry.backend,
                missing=self.missing.get(index, self.failures.get(index)),
                peak_memory_bytes=self.peak_bytes.get(index),
                multiply_adds=entry.multiply_adds,
                **self._times(index, peak=peaks.get(entry.backend)),
                **self._labels_alike(index),
            )
            for index, entry in enumerate(self.entries)
        ]

    def _times(self, index: int, *, peak: float | None) -> dict[str, Any]:
        """Return the fields that come from the rounds; none before the first."""
        infer_ms = self._infer_ms(index)
        if not infer_ms:
            return {}
        entry, time = self.entries[index], summarize(infer_ms)
        rate = None if entry.multiply_adds is None else entry.multiply_adds / (time.p50_ms / 1e3)
        return {
            "time": time,
            "labels_ms": statistics.median(sample.finish_ms for sample in self.samples[index]),
            "to_transformers": self._speedup(index, TRANSFORMERS, entry.backend),
            "to_transformers_onnxruntime": self._speedup(index, TRANSFORMERS, _FLOAT32[0]),
            "to_original": self._speedup(index, _ORIGINAL, entry.backend),
            "share_of_peak": None if rate is None or peak is None else rate / peak,
            "samples_ms": tuple(infer_ms),
        }

    def _labels_alike(self, index: int) -> dict[str, Any]:
        reference = self._reference()
        entry = self.entries[index]
        sibling = self._index(entry.name.removesuffix(LOCAL), entry.backend) if entry.name.endswith(LOCAL) else None
        return {
            "reference": None if reference is None else self.entries[reference].title,
            "labels_as_reference": self._agreement(index, reference),
            "labels_as_exact": self._agreement(index, sibling),
        }

    def _infer_ms(self, index: int) -> list[float]:
        return [sample.infer_ms for sample in self.samples.get(index, [])]

    def _speedup(self, index: int, name: str, backend: str) -> Speedup | None:
        other = self._index(name, backend)
        first_ms = [] if other is None else self._infer_ms(other)
        return speedup(first_ms, self._infer_ms(index)) if first_ms else None

    def _reference(self) -> int | None:
        """Return whose labels all others are compared with: theirs in float32, or ours where theirs does not fit."""
        wanted = [self._index(name, backend) for name in (TRANSFORMERS, _ORIGINAL) for backend in _FLOAT32]
        return next((index for index in wanted if index in self.labels), None)

    def _index(self, name: str, backend: str) -> int | None:
        found = (i for i, each in enumerate(self.entries) if (each.name, each.backend) == (name, backend))
        return next(found, None)

    def _agreement(self, index: int, other: int | None) -> float | None:
        if other is None or index not in self.labels or other not in self.labels:
            return None
        return label_agreement(self.labels[other], self.labels[index])
