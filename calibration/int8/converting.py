"""A float32 graph with INT8 written into it: pairs of QuantizeLinear and DequantizeLinear that every backend obeys.

A pair in front of a product's activation, and a weight stored as int8 behind a DequantizeLinear, say that the product
may be computed in INT8. Nothing else is quantized, neither results, which the next operation wants in float, nor bias.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, version_converter

from sfpp.calibration.graph import name_of, opset_of
from sfpp.calibration.int8.concat import without_concat
from sfpp.calibration.int8.qdq import PairPlaces, PairWriter, replace_input
from sfpp.calibration.int8.quantizable import GraphIndex, Quantizable, quantizable
from sfpp.calibration.int8.ranges import LARGEST_INT8
from sfpp.runtime.contract import FloatType
from sfpp.runtime.errors import ModelFileError, UsageError, did_you_mean

# DequantizeLinear takes one scale a channel from opset 13 on, float16 scales from opset 19 on.
_OPSET_BY_CHANNEL, _OPSET_OF_FLOAT16 = 13, 19
_IR_OF_OPSET_19 = 9
_SMALLEST_FLOAT16 = float(np.finfo(np.float16).tiny)


@dataclass(frozen=True)
class Int8Form:
    """How INT8 is written for what will run it.

    Attributes:
        largest_weight: the largest magnitude of an int8 weight.
        keeps_concat: leave Concat as it is, which OpenVINO does not bear.
    """

    largest_weight: int = LARGEST_INT8
    keeps_concat: bool = True


# CPUs without VNNI add two products of a uint8 activation with an int8 weight in 16 bits. With weights within 64 they
# never overflow there: 2 * 255 * 64 = 32640.
PORTABLE = Int8Form(largest_weight=64, keeps_concat=False)
TENSORRT = Int8Form()


def form_for(target: str) -> Int8Form:
    """Return the form of INT8 for what a file was exported for."""
    return TENSORRT if target == "tensorrt" else PORTABLE


def int8_model(
    model: onnx.ModelProto,
    thresholds: Mapping[str, float],
    *,
    nodes: Collection[str] | None = None,
    rest: FloatType = "fp32",
    form: Int8Form = PORTABLE,
) -> onnx.ModelProto:
    """Return a copy of a float32 model in which products are marked to be computed in INT8.

    Args:
        model: as :func:`sfpp.calibration.graph.read_model` gives it.
        thresholds: the magnitude from which on each activation is clipped, by :attr:`Quantizable.activation`.
        nodes: names of the products; None takes all that are quantizable.
        rest: what the rest will be computed in. For ``fp16`` the opset is raised to 19 if it is lower, and every scale
            is a float16 number, so that the file can be converted to float16 without changing what the weights mean.
        form: how INT8 is written; see :func:`form_for`.

    Raises:
        UsageError: a name that is no quantizable product; a threshold that is missing, not positive or not finite, or
            with ``fp16`` too large for a float16 scale.
        ModelFileError: an opset below 13, which has no scales by channel, or one that cannot be raised to 19.
    """
    opset = opset_of(model)
    _require_scales_by_channel(opset)
    products = {each.node: each for each in _chosen(model, nodes)}
    scales = {each.activation: _scale_of(each, thresholds, rest) for each in products.values()}
    if rest == "fp16" and opset < _OPSET_OF_FLOAT16:
        written = _raised_to_opset_19(model)
    else:
        written = onnx.ModelProto()
        written.CopyFrom(model)
    _write(written, products, scales, rest, form)
    if products and not form.keeps_concat:
        without_concat(written)
    return written


def quantized_weight(
    weight: NDArray[np.float32], axis: int, *, largest: int = LARGEST_INT8, rest: FloatType = "fp32"
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight in int8 and its scales, (channels of the axis,), with which nothing is clipped.

    The largest weight of each channel becomes ``largest``, 127 at most, or its negative.

    A channel of zeros has scale 1. With ``fp16`` the scales are normal float16 numbers.

    Raises:
        UsageError: a scale is too large for float16.
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    magnitudes = np.abs(weight).max(axis=others)
    steps = np.maximum(magnitudes / largest, np.finfo(np.float32).tiny)
    scales = np.where(magnitudes > 0, steps, 1).astype(np.float32)
    if rest == "fp16":
        scales = _rounded_up_to_float16(scales)
    rounded = np.rint(weight / _along(axis, scales, weight.ndim))
    return np.clip(rounded, -largest, largest).astype(np.int8), scales


def dequantized_weights(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Return what the int8 weights of a model stand for, by the name of the float32 weight that each replaced."""
    stored = {each.name: each for each in model.graph.initializer}
    weights = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            axis = next(each.i for each in node.attribute if each.name == "axis")
            values, scales = (numpy_helper.to_array(stored[name]).astype(np.float32) for name in node.input[:2])
            weights[node.output[0].removesuffix("/dequantized")] = values * _along(axis, scales, values.ndim)
    return weights


def _write(
    model: onnx.ModelProto,
    products: Mapping[str, Quantizable],
    scales: Mapping[str, float],
    rest: FloatType,
    form: Int8Form,
) -> None:
    """Mark the products in place."""
    index = GraphIndex(model)
    chosen = [node for node in model.graph.node if name_of(node) in products]
    inputs = {name_of(node): index.activation_and_weight(node) for node in chosen}
    places = PairPlaces(model, {name: inputs[name][0] for name in products}).find()
    writer = PairWriter(model.graph)
    for tensor, readers in places.items():
        writer.quantize(tensor, scales[index.source_of(tensor)], readers)
    stored: dict[tuple[str, int], str] = {}
    for node in chosen:
        product = products[name_of(node)]
        key = (product.weight, product.axis)
        if key not in stored:
            weight = numpy_helper.to_array(index.initializers[product.weight])
            # Tied layers may multiply with the same weight along both axes, which makes two int8 weights.
            known = any(name == product.weight for name, _ in stored)
            name = f"{product.weight}/axis_{product.axis}" if known else product.weight
            integers, steps = quantized_weight(weight, product.axis, largest=form.largest_weight, rest=rest)
            stored[key] = writer.store_weight(name, integers, steps, product.axis)
        replace_input(node, inputs[product.node][1], stored[key])
    writer.finish()


def _chosen(model: onnx.ModelProto, nodes: Collection[str] | None) -> list[Quantizable]:
    possible = quantizable(model)
    if nodes is None:
        return list(possible)
    known = [each.node for each in possible]
    for name in nodes:
        if name not in known:
            raise UsageError(
                f"node {name!r} is no product that can be INT8{did_you_mean(name, known)}; "
                "see sfpp.calibration.int8.quantizable for those that are"
            )
    wanted = set(nodes)
    return [each for each in possible if each.node in wanted]


def _scale_of(product: Quantizable, thresholds: Mapping[str, float], rest: FloatType) -> float:
    """Return the step between neighboring INT8 values of a product's activation."""
    threshold = thresholds.get(product.activation)
    if threshold is None:
        raise UsageError(
            f"there is no threshold for {product.activation!r}, which {product.node!r} reads; "
            "observe the activations of all products that are to be INT8"
        )
    if not 0 < threshold < math.inf:
        raise UsageError(f"the threshold of {product.activation!r} is {threshold}, expected a positive finite number")
    scale = np.array([max(threshold / LARGEST_INT8, float(np.finfo(np.float32).tiny))], np.float32)
    return float((_rounded_up_to_float16(scale) if rest == "fp16" else scale)[0])


def _rounded_up_to_float16(scales: NDArray[np.float32]) -> NDArray[np.float32]:
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


def _along(axis: int, scales: NDArray[np.float32], dims: int) -> NDArray[np.float32]:
    """Return scales in a shape that multiplies with a weight of so many dimensions, each channel with its own."""
    return scales.reshape([-1 if index == axis else 1 for index in range(dims)])


def _require_scales_by_channel(opset: int) -> None:
    if opset < _OPSET_BY_CHANNEL:
        raise ModelFileError(
            f"the model has opset {opset}, and INT8 with a scale for each channel needs {_OPSET_BY_CHANNEL} or more; "
            "export it again with a newer opset"
        )


def _raised_to_opset_19(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with opset 19; names and operators of other domains stay."""
    try:
        raised = version_converter.convert_version(model, _OPSET_OF_FLOAT16)
    except RuntimeError as error:
        raise ModelFileError(
            f"the model's opset cannot be raised to {_OPSET_OF_FLOAT16}, which INT8 with float16 needs ({error}); "
            f"export it with --opset {_OPSET_OF_FLOAT16}, or take rest='fp32'"
        ) from error
    raised.ir_version = max(raised.ir_version, _IR_OF_OPSET_19)
    return raised
