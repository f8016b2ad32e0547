"""What calibrating found, in plain figures: the report's content, as Python and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.contract import ModelContract
from sfpp.runtime.images import Image
from sfpp.runtime.typed_json import json_ready
from sfpp.tooling.label_images import TruthSummary
from sfpp.tooling.metrics import Accuracy


@dataclass(frozen=True)
class Latency:
    """Time of the network alone; ``speedup`` is against the float32 file on the same backend, above 1 if faster.

    ``failure`` says why there is no time: the file does not run there, or its predictions are wrong.
    """

    backend: str
    p50_ms: float | None
    speedup: float | None
    failure: str = ""


@dataclass(frozen=True)
class Kept:
    """A part or node that stays in more precision than the file's name says, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class FileResult:
    """One file: the float32 one that was given, or one that was made from it.

    Attributes:
        path: where it lies.
        precision: ``fp32``, ``fp16`` or ``int8``.
        size_bytes: of the file.
        accuracy: on the held-out frames.
        drop: what it loses against float32: points (of 100) of mean IoU or PCK where there is truth, else the labels
            that differ in per cent. Negative where it gains.
        latencies: one a backend.
        method: how the ranges were chosen, for INT8.
        rest: what is computed in where INT8 is not.
        kept: what stays in more precision.
        rounded: accuracy with every value rounded to float16 as a GPU stores it, for FP16: a CPU computes in float32
            between the operators. ``drop_rounded`` is what that loses.
    """

    path: Path
    precision: str
    size_bytes: int
    accuracy: Accuracy
    drop: float = 0.0
    latencies: tuple[Latency, ...] = ()
    method: str = ""
    rest: str = ""
    kept: tuple[Kept, ...] = ()
    rounded: Accuracy | None = None
    drop_rounded: float | None = None


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing one part of the network alone does to the predictions.

    Attributes:
        name: a block such as ``stages.0/blocks.1``, or a node.
        nodes: how many nodes are quantised in it.
        disagreement: labels or keypoints that change, in per cent.
        error: mean squared error of the logits or heatmaps over their mean square.
        kept: it was kept out of INT8.
    """

    name: str
    nodes: int
    disagreement: float
    error: float
    kept: bool = False


@dataclass(frozen=True, eq=False)
class LayerHistogram:
    """The values that one quantised tensor takes on the calibration frames.

    Attributes:
        node: whose input it is.
        counts: values by magnitude, (bins,), from 0 to ``largest``.
        largest: the largest magnitude seen.
        threshold: magnitudes above it are clipped.
        error: mean squared error of rounding the values to INT8 over their mean square.
    """

    node: str
    counts: NDArray[np.int64]
    largest: float
    threshold: float
    error: float


@dataclass(frozen=True, eq=False)
class Picture:
    """A held-out frame with what a file predicts differently from float32 marked, (H, W, 3) uint8 BGR.

    ``disagreement`` is the part of its labels or keypoints that differ, in per cent.
    """

    name: str
    precision: str
    image_bgr: Image
    disagreement: float


@dataclass(frozen=True)
class FramesUsed:
    """Which frames were seen: how many to calibrate, how many to evaluate on, and whether the two are the same ones."""

    source: str
    calibration: int
    held_out: int
    sha256: str
    selection: str
    seed: int
    with_truth: bool
    overlapping: bool = False


@dataclass(frozen=True)
class Recommendation:
    """Which file to use here, and why, in a sentence or two for people."""

    precision: str
    text: str


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """Everything that was found.

    Attributes:
        model: the float32 file.
        contract: its contract.
        frames: what was looked at.
        files: the float32 file first, then those that were made.
        sensitivity: the parts of the network, the most sensitive first.
        suspects: the nodes of those parts that had to be looked into, likewise.
        histograms: of the layers that lose most by rounding, the worst first.
        pictures: frames with what changed.
        recommendation: which file to use on this machine.
        max_drop: what INT8 was allowed to lose; None where no limit was given.
        budget_held: whether it lost no more; None without a limit.
        machine: where latencies were measured.
        seconds: time of each step by name.
        truth: what the label images of the validation frames hold; None without any.
        notes: what else the reader should know, in sentences.
    """

    model: Path
    contract: ModelContract
    frames: FramesUsed
    files: tuple[FileResult, ...]
    recommendation: Recommendation
    sensitivity: tuple[Sensitivity, ...] = ()
    suspects: tuple[Sensitivity, ...] = ()
    histograms: tuple[LayerHistogram, ...] = ()
    pictures: tuple[Picture, ...] = ()
    max_drop: float | None = None
    budget_held: bool | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    truth: TruthSummary | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return everything but pictures, the self-test's too, and the counts of histograms.

        A number that is not finite becomes null.
        """
        report = replace(self, contract=replace(self.contract, self_test=None))
        return json.dumps(json_ready(report), indent=1, ensure_ascii=False, allow_nan=False)
