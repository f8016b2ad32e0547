"""The forms in which INT8 is written, one for each kind of library that runs it."""

from __future__ import annotations

from dataclasses import dataclass

from sfpp.runtime.contract import FloatType


@dataclass(frozen=True)
class Int8Form:
    """How INT8 is written.

    Attributes:
        largest_weight: the largest magnitude of an int8 weight.
        keeps_concat: leave Concat as it is, which OpenVINO does not bear.
        dense: for ONNX Runtime on a CPU: see :mod:`sfpp.calibration.int8.dense`. Otherwise activations are int8 with
            zero point 0, and only what products read is quantized.
    """

    largest_weight: int
    keeps_concat: bool = True
    dense: bool = False


# CPUs without VNNI add two products of a uint8 activation with an int8 weight in 16 bits. With weights within 64 they
# never overflow there: 2 * 255 * 64 = 32640.
_WITHOUT_OVERFLOW = 64
PORTABLE = Int8Form(_WITHOUT_OVERFLOW, keeps_concat=False)
TENSORRT = Int8Form(127)
ONNXRUNTIME = Int8Form(_WITHOUT_OVERFLOW, dense=True)


def form_for(target: str, rest: FloatType = "fp32") -> Int8Form:
    """Return the form for what a file was exported for, and for what it computes in where INT8 is not."""
    if target == "tensorrt":
        return TENSORRT
    # With float16 for the rest a file is for GPUs, where the kernels that the dense form is for are not.
    return ONNXRUNTIME if target == "onnxruntime" and rest == "fp32" else PORTABLE
