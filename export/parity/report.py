"""What a comparison found, in plain figures, and how far a file may be from PyTorch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sfpp.export.parity.differences import Place
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.files import write_text
from sfpp.runtime.images import Image
from sfpp.runtime.typed_json import json_ready
from sfpp.tooling.label_images import TruthSummary

Mode = Literal["free", "pinned"]


@dataclass(frozen=True)
class Tolerance:
    """What is allowed in one precision; errors are root mean squares relative to PyTorch's values.

    Attributes:
        own: what one part of the network may add by itself, relative to what it computes.
        output: of the logits or heatmaps, with all parts' errors in them.
        labels: pixels with the same label, or keypoints in the same place, at least.
        free_labels: the same where PyTorch matches tokens by itself. Two sound implementations differ in near ties, so
            this only catches what is grossly wrong.
        gap: how much less similar than the best one a token's partner may be, in cosine similarity.
    """

    own: float
    output: float
    labels: float
    free_labels: float
    gap: float


# Measured, the worst of the demonstration models (original, hq and fast, exact and local, at 480x360; pose at 192x256)
# on 8 real frames each, and of a B2 and an EDAFormer-T with random weights at 256x192 and 320x256, which are harsher:
# untrained logits lie close together, so their labels change by the least error (in brackets).
#
#           what ran                                      own      output   labels          free labels     gap
#   fp32    ONNX Runtime and OpenVINO                     2.4e-6   2.4e-6   99.99 %         99.97 %         9.5e-7
#   fp16    a graph that rounds wherever FP16 is stored   3.8e-3   2.3e-3   99.97 (99.7) %  99.89 (99.7) %  9.3e-5
#   bf16    OpenVINO on a CPU with bfloat16               1.5e-2   1.3e-2   98.4  (97.8) %  99.1  (95.2) %  1.1e-2
#   int8    products in INT8, ONNX Runtime                0.16     0.067    99.4  (91.4) %  99.2  (88.9) %  3.8e-3
#
# Each tolerance leaves room for other weights and devices, and none lets a factor of 2 in a layer pass: that is an
# error of 1, or of 0.5 where it halves. Layers of a sound INT8 file stay below 0.05; parts that add little reach 0.16.
# In the blank border of a letterbox near ties are settled so differently, in float32 too, that labels agree on as
# little as 97 %.
TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(own=2e-5, output=1e-4, labels=0.999, free_labels=0.95, gap=1e-5),
    "fp16": Tolerance(own=2e-2, output=2e-2, labels=0.99, free_labels=0.95, gap=2e-3),
    "bf16": Tolerance(own=6e-2, output=6e-2, labels=0.95, free_labels=0.9, gap=5e-2),
    "int8": Tolerance(own=0.3, output=0.25, labels=0.85, free_labels=0.8, gap=5e-2),
}
# The coarsest last.
_ORDER = tuple(TOLERANCES)


def precision_of(file: str, backend: str) -> str:
    """Return by which precision a file is compared: the coarser of what is in it and what the backend computes in.

    Args:
        file: the contract's precision, such as ``int8``; one that this version does not know counts as the coarsest.
        backend: what the backend computes in.
    """
    return max((each if each in TOLERANCES else _ORDER[-1] for each in (file, backend)), key=_ORDER.index)


@dataclass(frozen=True)
class OutputReport:
    """The outputs of all frames in one mode; errors are absolute unless they are called relative.

    Attributes:
        mode: whether PyTorch matched tokens by itself, or took the graph's matching.
        same: the share, 0..1, of pixels with the same label, or of sure keypoints in the same place.
        worst_same: the same of the worst frame.
        mean_iou: of the labels, with PyTorch's in the place of the truth; None for pose.
        distance_px: the mean and the largest distance of sure keypoints, in the frames' pixels; None for labels.
        relative_error: of the worst batch of frames, root mean square over that of PyTorch's; None where the graph
            gives labels.
        max_error: the largest of logits or heatmaps.
        mean_error: of the same.
        scale: the largest value of PyTorch's, to see the errors against.
        problem: why outputs could not be compared, if some could not.
    """

    mode: Mode
    same: float
    worst_same: float
    mean_iou: float | None = None
    distance_px: tuple[float, float] | None = None
    relative_error: float | None = None
    max_error: float | None = None
    mean_error: float | None = None
    scale: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class PointReport:
    """One part of the network on its worst frames.

    Attributes:
        name: such as ``stages.1/blocks.0/ffn``.
        own: the relative error that it makes by itself, given what the graph gave to it.
        total: the relative error of its values with everything before it; NaN for a layer.
        largest: the largest absolute error that it makes by itself.
        place: where, on the frame called ``frame``.
        gain: the factor from PyTorch's to the graph's values, where that is all the difference.
        gap: for an attention that matches tokens, how much less similar than the best a partner is.
        within: whether own error and gap are within tolerance.
        detail: it is a layer inside the part that ends at the next entry that is none; compared on the first frames.
    """

    name: str
    own: float
    total: float
    largest: float
    place: Place | None
    frame: str
    gain: float | None = None
    gap: float | None = None
    within: bool = True
    detail: bool = False


@dataclass(frozen=True)
class TruthReport:
    """Accuracy against annotations on the frames that have some: mean IoU, 0..1, and by class (NaN: never there).

    ``labels`` is what the label images hold, and how they were read.
    """

    frames: int
    file_mean_iou: float
    pytorch_mean_iou: float
    file_iou: dict[str, float]
    pytorch_iou: dict[str, float]
    labels: TruthSummary | None = None


@dataclass(frozen=True, eq=False)
class MarkedFrame:
    """A frame on which the predictions differ, (H, W, 3) uint8 BGR with marks, and the share that is the same."""

    name: str
    image_bgr: Image
    same: float


@dataclass(frozen=True, eq=False)
class AgreementReport:
    """Everything that was found.

    Attributes:
        model: the file.
        weights: the checkpoint.
        contract: the file's.
        precision: by which it is compared.
        tolerance: what is allowed in it.
        backend: what ran the file.
        points_backend: what ran it with its insides reported; empty where nothing could be seen of them.
        source: where the frames are from.
        frames: their names.
        outputs: one entry a mode.
        points: the parts of the network in its order; empty where the graph does not show them.
        truth: accuracy against annotations, if there are any.
        failures: what is out of tolerance; empty when the file agrees.
        place: where it goes wrong first, and why if that was found out; None when the file agrees.
        notes: what else the reader should know.
        pictures: frames on which predictions differ, the worst first.
        seconds: how long it took.
    """

    model: Path
    weights: str
    contract: ModelContract
    precision: str
    tolerance: Tolerance
    backend: str
    points_backend: str
    source: str
    frames: tuple[str, ...]
    outputs: tuple[OutputReport, ...]
    points: tuple[PointReport, ...] = ()
    truth: TruthReport | None = None
    failures: tuple[str, ...] = ()
    place: str | None = None
    notes: tuple[str, ...] = ()
    pictures: tuple[MarkedFrame, ...] = ()
    seconds: float = 0.0

    @property
    def agrees(self) -> bool:
        """Whether everything is within tolerance."""
        return not self.failures

    def to_json(self) -> str:
        """Return everything but pictures, the self-test's too; a number that is not finite becomes null."""
        report = replace(self, contract=replace(self.contract, self_test=None))
        content = {"agrees": self.agrees, **json_ready(report)}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_json` to a file that appears whole or not at all.

        Raises:
            SfppError: the folder does not exist, or the disk is full.
        """
        write_text(path, self.to_json())
