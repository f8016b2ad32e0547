"""One model on one backend: what was measured of it, and what its latencies say."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sfpp.runtime.bench.measured_model import StageTimes
from sfpp.runtime.bench.peak import MatmulPeak
from sfpp.runtime.contract import Task
from sfpp.runtime.errors import UsageError
from sfpp.runtime.model import SelfTestState
from sfpp.runtime.timing import Summary, summarize


@dataclass(frozen=True)
class Row:
    """A row of the report; None where something is not known or was not measured.

    Attributes:
        model: the file.
        backend: as asked for, such as ``openvino:bf16`` or ``auto``.
        description: library, version and device.
        precision: what it computed in.
        task: what the contract says that the model does.
        self_test: whether its answers are known to be those of the exported model; what fails it has no figures.
        failure: why there are no figures, or no more of them.
        load_ms: opening the file, the library being imported already, without a cache of compiled models.
        cached_load_ms: the same from the cache, where the library has one; else about the same.
        samples: every run, in the order of the rounds.
        network: the model alone.
        whole: from the frame to labels or keypoints; None for a model without a contract.
        speedup: of the network, against the first row that has figures.
        peak_memory_bytes: of a process of its own that opens the model, without a cache, and runs it twice.
        memory_failure: why there is no figure of the memory.
        multiply_adds: of one run; matrix products and convolutions alone.
        activation_bytes: what the operators of one run read and write, if none were fused.
        file_bytes: size of the model file, about that of the weights.
        matmul_peak: the machine's best, in the same library and precision.
        operators_ms: mean time per run by operator type, largest first, of a profiled and therefore slower run.
    """

    model: str
    backend: str
    file_bytes: int
    description: str | None = None
    precision: str | None = None
    task: Task | None = None
    self_test: SelfTestState = field(default=SelfTestState("off"))
    failure: str | None = None
    load_ms: float | None = None
    cached_load_ms: float | None = None
    samples: tuple[StageTimes, ...] = ()
    network: Summary | None = None
    whole: Summary | None = None
    speedup: Speedup | None = None
    peak_memory_bytes: int | None = None
    memory_failure: str | None = None
    multiply_adds: int | None = None
    activation_bytes: int | None = None
    matmul_peak: MatmulPeak | None = None
    operators_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return Path(self.model).stem

    @property
    def multiply_adds_per_s(self) -> float | None:
        """The rate that the median run reaches."""
        if self.multiply_adds is None or self.network is None:
            return None
        return self.multiply_adds / (self.network.p50_ms / 1e3)

    @property
    def share_of_peak(self) -> float | None:
        """That rate as a part of the machine's best, 0..1."""
        rate = self.multiply_adds_per_s
        return None if rate is None or self.matmul_peak is None else rate / self.matmul_peak.multiply_adds_per_s

    @property
    def multiply_adds_per_byte(self) -> float | None:
        """How much is computed for each byte that moves: a lower bound, as fused operators move fewer."""
        if self.multiply_adds is None or self.activation_bytes is None:
            return None
        return self.multiply_adds / (self.activation_bytes + self.file_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and what follows from them, with the samples as one list per stage, for JSON."""
        stages = [stage.name for stage in dataclasses.fields(StageTimes)]
        return {
            **dataclasses.asdict(self),
            "multiply_adds_per_s": self.multiply_adds_per_s,
            "share_of_peak": self.share_of_peak,
            "multiply_adds_per_byte": self.multiply_adds_per_byte,
            "samples": {stage: [getattr(sample, stage) for sample in self.samples] for stage in stages},
        }


def with_samples(row: Row, samples: Sequence[StageTimes], *, first: Sequence[StageTimes]) -> Row:
    """Return the row with figures from its samples and, for the speedup, those of the first row that has some."""
    if not samples:
        return row
    infer_ms = [sample.infer_ms for sample in samples]
    return dataclasses.replace(
        row,
        samples=tuple(samples),
        network=summarize(infer_ms),
        whole=summarize([sample.whole_ms for sample in samples]) if row.task else None,
        speedup=speedup([sample.infer_ms for sample in first], infer_ms),
    )


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as another model: the median over the rounds, and its quartiles."""

    median: float
    lower_quartile: float
    upper_quartile: float


def speedup(first_ms: Sequence[float], samples_ms: Sequence[float]) -> Speedup:
    """Compare latencies of the same rounds: above 1 where ``samples_ms`` are shorter than ``first_ms``.

    Each round is compared with itself before the median is taken: when another program slows the machine for a while,
    both models of a round suffer, and the ratio stays. The ratio of two medians would move.

    Args:
        first_ms: latencies of the model compared with, one per round.
        samples_ms: latencies of the same rounds; one list may be shorter where measuring was interrupted.

    Raises:
        UsageError: no round in common, or a latency that is not positive.
    """
    common = min(len(first_ms), len(samples_ms))
    if common == 0:
        raise UsageError("there is no round in which both models ran: run at least once")
    first, other = np.asarray(first_ms[:common], float), np.asarray(samples_ms[:common], float)
    if min(first.min(), other.min()) <= 0:
        raise UsageError("a latency is 0 ms or less, so no ratio can be given: the clock is too coarse for this model")
    lower, median, upper = (float(value) for value in np.percentile(first / other, (25, 50, 75)))
    return Speedup(median=median, lower_quartile=lower, upper_quartile=upper)


def row_labels(rows: Sequence[Row]) -> list[str]:
    """Return each row's model as a file name without suffix, or as a path where two files have the same name."""
    # A model measured on several backends has several rows, and still one name.
    paths_of_name = Counter(name for name, _ in {(row.name, row.model) for row in rows})
    return [row.name if paths_of_name[row.name] == 1 else row.model for row in rows]


def backend_label(row: Row) -> str:
    """Return the backend as asked for, with the precision that it chose where none was asked for."""
    return row.backend if ":" in row.backend or not row.precision else f"{row.backend}:{row.precision}"
