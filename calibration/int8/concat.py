"""Concat written as a sum of padded tensors, since OpenVINO rounds wrongly in any INT8 graph that holds a Concat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_Infos = dict[str, onnx.TypeProto.Tensor]


def without_concat(model: onnx.ModelProto) -> None:
    """Replace each Concat, in place, by tensors that are padded with zeros and added up, which gives the same values.

    OpenVINO (2026.4) aligns the intervals of all quantized activations as soon as there is a Concat anywhere in the
    graph, of floats or of integers. Where its convolutions take uint8 only, that is on every x86 CPU without AMX, it
    then rounds signed activations to whole numbers instead of to their scale.

    Args:
        model: with the type and shape of every tensor, as :func:`sfpp.calibration.graph.read_model` gives it.
    """
    infos = _infos(model.graph)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.extend(_sum(model.graph, node, infos) if node.op_type == "Concat" else [node])


def _infos(graph: onnx.GraphProto) -> _Infos:
    infos = {each.name: each.type.tensor_type for each in [*graph.input, *graph.value_info, *graph.output]}
    for tensor in graph.initializer:
        infos[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type
    return infos


def _sum(graph: onnx.GraphProto, node: onnx.NodeProto, infos: _Infos) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that give what a Concat gives."""
    output = node.output[0]
    if len(node.input) == 1:
        yield helper.make_node("Identity", node.input, [output], name=output)
        return
    kind = infos[node.input[0]].elem_type
    shapes = [[size.dim_value for size in infos[name].shape.dim] for name in node.input]
    axis = node.attribute[0].i % len(shapes[0])
    whole = sum(shape[axis] for shape in shapes)
    joined = [*shapes[0][:axis], whole, *shapes[0][axis + 1 :]]
    total, before = "", 0
    for index, (name, shape) in enumerate(zip(node.input, shapes, strict=True)):
        part = f"{output}/part_{index}"
        pads = _constant(graph, f"{part}/pads", _pads(len(shape), axis, before, whole - before - shape[axis]))
        before += shape[axis]
        yield helper.make_node("Pad", [name, pads], [part], name=part)
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


def _pads(dims: int, axis: int, before: int, behind: int) -> list[int]:
    pads = [0] * (2 * dims)
    pads[axis], pads[dims + axis] = before, behind
    return pads


def _constant(graph: onnx.GraphProto, name: str, values: Sequence[int]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name
