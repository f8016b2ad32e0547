"""A float32 graph with INT8 written into it: pairs of QuantizeLinear and DequantizeLinear that every backend obeys.

A pair in front of a product's activation, and a weight stored as int8 behind a DequantizeLinear, say that the product
may be computed in INT8. Nothing else is quantized, neither results, which the next operation wants in float, nor bias;
but see :mod:`sfpp.calibration.int8.dense` for what ONNX Runtime needs besides.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter

from sfpp.calibration.int8.dense import bias_of, dense_results, keep_from_gemm
from sfpp.calibration.int8.qdq import (
    PairPlaces,
    PairWriter,
    quantized_bias,
    quantized_weight,
    replace_input,
    rounded_up_to_float16,
)
from sfpp.calibration.int8.quantizable import PORTABLE, Int8Form, ProductIndex, Quantizable, quantizable
from sfpp.calibration.int8.ranges import LARGEST_INT8, Range
from sfpp.runtime.contract import FloatType
from sfpp.runtime.errors import ModelFileError, UsageError, did_you_mean
from sfpp.tooling.graph import add_integers, attribute_of, copy_of, infos_of, name_of, opset_of

# DequantizeLinear takes one scale a channel from opset 13 on, float16 scales from opset 19 on.
_OPSET_BY_CHANNEL, _OPSET_OF_FLOAT16 = 13, 19
_IR_OF_OPSET_19 = 9
_LEVELS = 255  # of uint8, zero left out
# An int32 bias may take this much, so that the sum of products has room beside it.
_LARGEST_BIAS = 2**30


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
        model: as :func:`sfpp.tooling.graph.read_model` gives it; for the dense form, what
            :func:`sfpp.calibration.int8.dense.prepared` made of it.
        ranges: where the values of each tensor that :func:`tensors_to_observe` names are clipped.
        nodes: names of the products; None takes all that are quantizable.
        rest: what the rest will be computed in. For ``fp16`` the opset is raised to 19 if it is lower, and every scale
            is a float16 number, so that the file can be converted to float16 without changing what the weights mean.
        form: how INT8 is written; see :func:`sfpp.calibration.int8.quantizable.form_for`.

    Raises:
        UsageError: a name that is no quantizable product; a range that is missing, empty or not finite, or
            with ``fp16`` too large for a float16 scale.
        ModelFileError: an opset below 13, which has no scales by channel, or one that cannot be raised to 19.
    """
    opset = opset_of(model)
    if opset < _OPSET_BY_CHANNEL:
        raise ModelFileError(
            f"the model has opset {opset}, and INT8 with a scale for each channel needs {_OPSET_BY_CHANNEL} or more; "
            "export it again with a newer opset"
        )
    products = {each.node: each for each in _chosen(model, nodes, form)}
    raised = rest == "fp16" and opset < _OPSET_OF_FLOAT16
    written = _raised_to_opset_19(model) if raised else copy_of(model)
    _check_ranges(_tensors(model, products.values(), form), ranges)
    _write(written, products, ranges, rest, form)
    if products and not form.keeps_concat:
        without_concat(written)
    return written


def tensors_to_observe(model: onnx.ModelProto, form: Int8Form) -> set[str]:
    """Return the tensors whose ranges :func:`int8_model` wants, whatever nodes are chosen."""
    return _tensors(model, quantizable(model, form), form)


def _tensors(model: onnx.ModelProto, products: Collection[Quantizable], form: Int8Form) -> set[str]:
    results = dense_results(ProductIndex(model), {each.node for each in products}) if form.dense else []
    return {*results, *(each.activation for each in products)}


def _write(
    model: onnx.ModelProto,
    products: Mapping[str, Quantizable],
    ranges: Mapping[str, Range],
    rest: FloatType,
    form: Int8Form,
) -> None:
    """Mark the products, and in the dense form what lies between them, in place."""
    index = ProductIndex(model)
    results = dense_results(index, products) if form.dense else []
    chosen = [node for node in model.graph.node if name_of(node) in products]
    inputs = {name_of(node): index.activation_and_weight(node) for node in chosen}
    # What is no result comes from a float node, and is quantized for products alone.
    alone = {name: inputs[name][0] for name, each in products.items() if each.activation not in results}
    places = {**PairPlaces(index, alone).find(), **{name: index.readers[name] for name in results}}
    writer = PairWriter(model.graph)
    for tensor, readers in places.items():
        writer.quantize(tensor, *_step_and_zero(ranges[index.source_of(tensor)], rest, form), readers)
    stored: dict[tuple[str, ...], tuple[str, NDArray[np.float32]]] = {}
    for node in chosen:
        product = products[name_of(node)]
        step, _ = _step_and_zero(ranges[product.activation], rest, form)
        bias = bias_of(index, node) if form.dense else None
        # Tied layers may multiply with the same weight along both axes, and a large bias raises the scales of its own
        # product: that makes several int8 weights.
        key = (product.weight, f"axis_{product.axis}", *([] if bias is None else [product.node]))
        if key not in stored:
            least = None if bias is None else (np.abs(bias) / (step * _LARGEST_BIAS)).astype(np.float32)
            weight = numpy_helper.to_array(index.initializers[product.weight])
            integers, scales = quantized_weight(
                weight, product.axis, largest=form.largest_weight, rest=rest, least_scales=least
            )
            name = "/".join(key) if any(each == product.weight for each, *_ in stored) else product.weight
            stored[key] = writer.store(name, integers, scales, product.axis), scales
        dequantized, scales = stored[key]
        replace_input(node, inputs[product.node][1], dequantized)
        if bias is not None:
            node.input[2] = writer.store(f"{product.node}/bias", *quantized_bias(bias, scales, step), 0)
        elif form.dense:
            keep_from_gemm(index, node)
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


def _step_and_zero(values: Range, rest: FloatType, form: Int8Form) -> tuple[float, np.int8 | np.uint8]:
    """Return the step between neighboring integers of an activation, and the one that stands for zero."""
    tiny = float(np.finfo(np.float32).tiny)
    if form.dense:
        step = max((values.high - values.low) / _LEVELS, tiny)
        return step, np.uint8(np.clip(np.rint(-values.low / step), 0, _LEVELS))
    scale = np.array([max(values.magnitude / LARGEST_INT8, tiny)], np.float32)
    return float((rounded_up_to_float16(scale) if rest == "fp16" else scale)[0]), np.int8(0)


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


def without_concat(model: onnx.ModelProto) -> None:
    """Replace each Concat, in place, by tensors that are padded with zeros and added up, which gives the same values.

    OpenVINO (2026.4) aligns the intervals of all quantized activations as soon as there is a Concat anywhere in the
    graph, of floats or of integers. Where its convolutions take uint8 only, that is on every x86 CPU without AMX, it
    then rounds signed activations to whole numbers instead of to their scale.

    Args:
        model: with the type and shape of every tensor, as :func:`sfpp.tooling.graph.read_model` gives it.
    """
    types = {name: info.type.tensor_type for name, info in infos_of(model.graph).items()}
    for tensor in model.graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.extend(_sum(model.graph, node, types) if node.op_type == "Concat" else [node])


def _sum(
    graph: onnx.GraphProto, node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto.Tensor]
) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that give what a Concat gives."""
    output = node.output[0]
    if len(node.input) == 1:
        yield helper.make_node("Identity", node.input, [output], name=output)
        return
    kind = types[node.input[0]].elem_type
    shapes = [[size.dim_value for size in types[name].shape.dim] for name in node.input]
    axis = attribute_of(node, "axis", 0) % len(shapes[0])
    whole = sum(shape[axis] for shape in shapes)
    joined = [*shapes[0][:axis], whole, *shapes[0][axis + 1 :]]
    total, before = "", 0
    for index, (name, shape) in enumerate(zip(node.input, shapes, strict=True)):
        part = f"{output}/part_{index}"
        pads = np.zeros((2, len(shape)), np.int64)
        pads[:, axis] = before, whole - before - shape[axis]
        before += shape[axis]
        yield helper.make_node("Pad", [name, add_integers(graph, f"{part}/pads", pads.ravel())], [part], name=part)
        graph.value_info.append(helper.make_tensor_value_info(part, kind, joined))
        if not index:
            total = part
            continue
        is_last = index == len(shapes) - 1
        added = output if is_last else f"{output}/sum_{index}"
        yield helper.make_node("Or" if kind == TensorProto.BOOL else "Add", [total, part], [added], name=added)
        if not is_last:
            graph.value_info.append(helper.make_tensor_value_info(added, kind, joined))
        total = added
