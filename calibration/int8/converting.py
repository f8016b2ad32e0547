"""A float32 graph with INT8 written into it: pairs of QuantizeLinear and DequantizeLinear that every backend obeys.

A pair in front of a product's activation, and a weight stored as int8 behind a DequantizeLinear, say that the product
may be computed in INT8. Nothing else is quantized, neither results, which the next operation wants in float, nor bias;
but see :mod:`sfpp.calibration.int8.dense` for what ONNX Runtime needs besides.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import numpy_helper, version_converter

from sfpp.calibration.graph import name_of, opset_of
from sfpp.calibration.int8.concat import without_concat
from sfpp.calibration.int8.dense import dense_tensors, write_dense
from sfpp.calibration.int8.form import PORTABLE, Int8Form
from sfpp.calibration.int8.qdq import PairPlaces, PairWriter, replace_input
from sfpp.calibration.int8.quantizable import GraphIndex, Quantizable, quantizable
from sfpp.calibration.int8.ranges import LARGEST_INT8, Range
from sfpp.calibration.int8.weights import quantized_weight, rounded_up_to_float16
from sfpp.runtime.contract import FloatType
from sfpp.runtime.errors import ModelFileError, UsageError, did_you_mean

# DequantizeLinear takes one scale a channel from opset 13 on, float16 scales from opset 19 on.
_OPSET_BY_CHANNEL, _OPSET_OF_FLOAT16 = 13, 19
_IR_OF_OPSET_19 = 9


def int8_model(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    *,
    nodes: Collection[str] | None = None,
    rest: FloatType = "fp32",
    form: Int8Form = PORTABLE,
) -> onnx.ModelProto:
    """Return a copy of a float32 model in which products are marked to be computed in INT8.

    Args:
        model: as :func:`sfpp.calibration.graph.read_model` gives it; for the dense form, what
            :func:`sfpp.calibration.int8.dense.prepared` made of it.
        ranges: where the values of each tensor that :func:`tensors_to_observe` names are clipped.
        nodes: names of the products; None takes all that are quantizable.
        rest: what the rest will be computed in. For ``fp16`` the opset is raised to 19 if it is lower, and every scale
            is a float16 number, so that the file can be converted to float16 without changing what the weights mean.
        form: how INT8 is written; see :func:`sfpp.calibration.int8.form.form_for`.

    Raises:
        UsageError: a name that is no quantizable product; a range that is missing, empty or not finite, or
            with ``fp16`` too large for a float16 scale.
        ModelFileError: an opset below 13, which has no scales by channel, or one that cannot be raised to 19.
    """
    opset = opset_of(model)
    _require_scales_by_channel(opset)
    products = {each.node: each for each in _chosen(model, nodes, form)}
    if rest == "fp16" and opset < _OPSET_OF_FLOAT16:
        written = _raised_to_opset_19(model)
    else:
        written = onnx.ModelProto()
        written.CopyFrom(model)
    if form.dense:
        _check_ranges(dense_tensors(model, products.values()), ranges)
        write_dense(written, products, ranges, largest_weight=form.largest_weight)
        return written
    _check_ranges({each.activation for each in products.values()}, ranges)
    scales = {each.activation: _scale(ranges[each.activation], rest) for each in products.values()}
    _write(written, products, scales, rest, form)
    if products and not form.keeps_concat:
        without_concat(written)
    return written


def tensors_to_observe(model: onnx.ModelProto, form: Int8Form) -> set[str]:
    """Return the tensors whose ranges :func:`int8_model` wants, whatever nodes are chosen."""
    products = quantizable(model, form)
    return dense_tensors(model, products) if form.dense else {each.activation for each in products}


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


def _chosen(model: onnx.ModelProto, nodes: Collection[str] | None, form: Int8Form) -> list[Quantizable]:
    possible = quantizable(model, form)
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


def _check_ranges(tensors: Collection[str], ranges: Mapping[str, Range]) -> None:
    for name in sorted(tensors):
        if name not in ranges:
            raise UsageError(
                f"there is no range for {name!r}, which is to be INT8; observe all that tensors_to_observe() names"
            )
        low, high = ranges[name]
        if not (low <= 0 <= high and low < high and math.isfinite(high - low)):
            raise UsageError(
                f"the range of {name!r} is {low} to {high}, expected finite numbers, one on each side of 0 or 0 itself"
            )


def _scale(values: Range, rest: FloatType) -> float:
    """Return the step between neighboring INT8 values of an activation, with zero point 0."""
    scale = np.array([max(values.magnitude / LARGEST_INT8, float(np.finfo(np.float32).tiny))], np.float32)
    return float((rounded_up_to_float16(scale) if rest == "fp16" else scale)[0])


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
