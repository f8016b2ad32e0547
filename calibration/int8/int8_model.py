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
from onnx import TensorProto, helper, numpy_helper, version_converter

from sfpp.calibration.int8.dense import dense_tensors, write_dense
from sfpp.calibration.int8.qdq import PairPlaces, PairWriter, quantized_weight, replace_input, rounded_up_to_float16
from sfpp.calibration.int8.quantizable import PORTABLE, Int8Form, ProductIndex, Quantizable, quantizable
from sfpp.calibration.int8.ranges import LARGEST_INT8, Range
from sfpp.runtime.contract import FloatType
from sfpp.runtime.errors import ModelFileError, UsageError, did_you_mean
from sfpp.tooling.graph import add_integers, attribute_of, copy_of, infos_of, name_of, opset_of

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
    index = ProductIndex(model)
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
            stored[key] = writer.store(name, integers, steps, product.axis)
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
