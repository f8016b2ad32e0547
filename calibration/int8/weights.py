"""Weights in int8, with a scale for each output channel."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from sfpp.calibration.int8.ranges import LARGEST_INT8
from sfpp.runtime.contract import FloatType
from sfpp.runtime.errors import UsageError

_SMALLEST_FLOAT16 = float(np.finfo(np.float16).tiny)


def quantized_weight(
    weight: NDArray[np.float32],
    axis: int,
    *,
    largest: int = LARGEST_INT8,
    rest: FloatType = "fp32",
    least_scales: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight in int8 and its scales, (channels of the axis,), with which nothing is clipped.

    A channel of zeros has scale 1.

    Args:
        weight: of any shape.
        axis: that of the output channels.
        largest: what the largest magnitude of each channel becomes, 127 at most.
        rest: with ``fp16`` the scales are normal float16 numbers.
        least_scales: (channels,), below which no scale may be; None sets no limit.

    Raises:
        UsageError: a scale is too large for float16.
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    magnitudes = np.abs(weight).max(axis=others)
    steps = np.maximum(magnitudes / largest, np.finfo(np.float32).tiny)
    least = np.zeros_like(steps) if least_scales is None else least_scales
    scales = np.where((magnitudes > 0) | (least > 0), np.maximum(steps, least), 1).astype(np.float32)
    if rest == "fp16":
        scales = rounded_up_to_float16(scales)
    rounded = np.rint(weight / along(axis, scales, weight.ndim))
    return np.clip(rounded, -largest, largest).astype(np.int8), scales


def dequantized_weights(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Return what the int8 weights of a model stand for, by the name of the float32 weight that each replaced."""
    stored = {each.name: each for each in model.graph.initializer}
    weights = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            axis = next(each.i for each in node.attribute if each.name == "axis")
            values, scales = (numpy_helper.to_array(stored[name]).astype(np.float32) for name in node.input[:2])
            weights[node.output[0].removesuffix("/dequantized")] = values * along(axis, scales, values.ndim)
    return weights


def rounded_up_to_float16(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the next float16 numbers that are not smaller, and normal: smaller ones lose digits, or become zero.

    Raises:
        UsageError: beyond the range of float16.
    """
    with np.errstate(over="ignore"):
        nearest = np.maximum(scales, _SMALLEST_FLOAT16).astype(np.float16)
    raised = np.where(nearest < scales, np.nextafter(nearest, np.float16(np.inf)), nearest).astype(np.float32)
    if not np.isfinite(raised).all():
        raise UsageError(
            f"a scale of {scales.max():.6g} is beyond float16 (65504): values this large need float32; "
            "take rest='fp32', or leave the product out of INT8"
        )
    return raised


def along(axis: int, scales: NDArray[np.float32], dims: int) -> NDArray[np.float32]:
    """Return scales in a shape that multiplies with a weight of so many dimensions, each channel with its own."""
    return scales.reshape([-1 if index == axis else 1 for index in range(dims)])
