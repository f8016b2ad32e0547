"""How far a file may be from PyTorch, by precision: the one home of these numbers, and how they were found."""

from __future__ import annotations

from dataclasses import dataclass


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
    """Return by which precision a file is judged: the coarser of what is in it and what the backend computes in.

    Args:
        file: the contract's precision, such as ``int8``; one that this version does not know counts as the coarsest.
        backend: what the backend computes in.
    """
    return max((each if each in TOLERANCES else _ORDER[-1] for each in (file, backend)), key=_ORDER.index)
