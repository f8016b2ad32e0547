"""A float32 graph with float16 written into it, and a float32 graph that rounds wherever that one stores float16."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sfpp.calibration.fp16.float_graph import FloatGraph
from sfpp.calibration.fp16.float_operators import REARRANGING, float16_positions
from sfpp.calibration.fp16.float_types import FloatTypes, float_types, rounded_to_float16
from sfpp.runtime.errors import ModelFileError
from sfpp.tooling.graph import attribute_of, copy_of, infos_of

_FLOAT, _FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def fp16_model(model: onnx.ModelProto, *, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Return the same function with float16 in the graph.

    Inputs and outputs keep their names and types. Each node computes in float16 or in float32, with a cast where the
    two meet, so that TensorRT builds the file as it stands (strongly typed). What suffers from float16 by its nature
    stays float32: norms, softmax, pixel normalization, long sums. Q/DQ pairs get float16 scales.

    Args:
        model: float32 throughout, such as :func:`sfpp.tooling.graph.read_model` gives; not changed.
        keep: names of nodes that stay float32 besides.

    Raises:
        UsageError: ``keep`` names no node, the graph has float16 already, or Q/DQ pairs below opset 19.
        ModelFileError: the graph is not valid, or would not be with float16 in it, or a Q/DQ scale is not a float16
            number.
    """
    graph = FloatGraph(model)
    return _Writer(graph, float_types(graph, keep)).written()


class _Writer:
    """Writes the graph of one decision."""

    def __init__(self, graph: FloatGraph, types: FloatTypes) -> None:
        self._graph = graph
        self._types = types
        self._nodes: list[onnx.NodeProto] = []
        self._casts: dict[tuple[str, int], str] = {}
        self._weights: dict[tuple[str, int], str] = {}
        self._infos: list[onnx.ValueInfoProto] = []
        self._taken = {*graph.infos, *graph.constants}
        # An output that a float16 node writes gets another name there, and its own from a cast.
        self._renamed = {name: self._fresh(f"{name}/fp16") for name in graph.outputs if types.is_float16(graph, name)}

    def written(self) -> onnx.ModelProto:
        for index, node in enumerate(self._graph.nodes):
            self._nodes.append(self._node(index, node))
            self._nodes.extend(
                helper.make_node(
                    "Cast", [self._renamed[name]], [name], name=self._fresh(f"{name}/cast_fp32"), to=_FLOAT
                )
                for name in node.output
                if name in self._renamed
            )
        model = copy_of(self._graph.model)
        _replace(model.graph.node, self._nodes)
        _replace(model.graph.initializer, self._initializers())
        _replace(model.graph.value_info, self._value_infos())
        return _checked(model)

    def _node(self, index: int, node: onnx.NodeProto) -> onnx.NodeProto:
        """Return a node with its inputs in the type that it takes, after any casts for it."""
        half = index in self._types.float16
        positions = float16_positions(self._graph, index) if half else ()
        copied = copy_of(node)
        for position, name in self._graph.float_inputs(index):
            copied.input[position] = self._read(name, _FLOAT16 if position in positions else _FLOAT, index)
        for position, name in enumerate(node.output):
            copied.output[position] = self._renamed.get(name, name)
        if half and node.op_type == "Cast":
            for attribute in copied.attribute:
                if attribute.name == "to" and attribute.i == _FLOAT:
                    attribute.i = _FLOAT16
        return copied

    def _read(self, name: str, element_type: int, reader: int) -> str:
        """Return the name under which a tensor can be read in a type, casting it if it has another."""
        if name in self._graph.constants:
            return self._weight(name, element_type, reader)
        stored = _FLOAT16 if self._types.is_float16(self._graph, name) else _FLOAT
        if stored == element_type:
            return self._renamed.get(name, name)
        if name in self._renamed:  # its cast back exists: it is the graph's output
            return name
        if (name, element_type) not in self._casts:
            self._casts[name, element_type] = self._cast(name, element_type)
        return self._casts[name, element_type]

    def _cast(self, name: str, element_type: int) -> str:
        writer = self._graph.writer.get(name)
        single = writer is not None and len(self._graph.nodes[writer].output) == 1
        origin = self._graph.name(writer) if single and writer is not None else name
        result = self._fresh(f"{origin}/cast_{'fp16' if element_type == _FLOAT16 else 'fp32'}")
        self._nodes.append(helper.make_node("Cast", [name], [result], name=result, to=element_type))
        self._infos.append(_info(self._graph.infos[name], result, element_type))
        return result

    def _weight(self, name: str, element_type: int, reader: int) -> str:
        """Return the name of a constant in a type; a second type goes under a second name."""
        if element_type == _FLOAT16 and self._graph.nodes[reader].op_type in ("QuantizeLinear", "DequantizeLinear"):
            self._check_scale(name, reader)
        if (name, element_type) not in self._weights:
            other = any(constant == name for constant, _ in self._weights)
            suffix = "fp16" if element_type == _FLOAT16 else "fp32"
            self._weights[name, element_type] = self._fresh(f"{name}/{suffix}") if other else name
        return self._weights[name, element_type]

    def _check_scale(self, name: str, reader: int) -> None:
        """Refuse a Q/DQ scale that float16 would change: the ranges that were measured would no longer hold."""
        scales = numpy_helper.to_array(self._graph.constants[name])
        wrong = np.flatnonzero(rounded_to_float16(scales).astype(np.float32) != scales)
        if wrong.size:
            raise ModelFileError(
                f"scale {name!r} of {self._graph.name(reader)!r} is {scales.flat[wrong[0]]:.9g}, which is no float16 "
                "number; INT8 with FP16 needs scales that were chosen for it, as sfpp-calibrate does"
            )

    def _initializers(self) -> list[onnx.TensorProto]:
        for name in self._graph.outputs & self._graph.constants.keys():
            self._weights[name, self._graph.element_type(name)] = name
        results = [
            tensor
            for tensor in self._graph.model.graph.initializer
            if tensor.name not in self._graph.constants or not self._graph.is_float32(tensor.name)
        ]
        for (name, element_type), stored in self._weights.items():
            values = numpy_helper.to_array(self._graph.constants[name])
            values = rounded_to_float16(values) if element_type == _FLOAT16 else values
            results.append(numpy_helper.from_array(values, stored))
        return results

    def _value_infos(self) -> list[onnx.ValueInfoProto]:
        results = [
            _info(each, each.name, _FLOAT16) if self._types.is_float16(self._graph, each.name) else each
            for each in self._graph.model.graph.value_info
            if each.name not in self._graph.constants  # which may have another type now, and say theirs by themselves
        ]
        results += [_info(self._graph.infos[name], stored, _FLOAT16) for name, stored in self._renamed.items()]
        return results + self._infos

    def _fresh(self, wish: str) -> str:
        """Return a name that no tensor has yet."""
        name, number = wish, 1
        while name in self._taken:
            name, number = f"{wish}_{number}", number + 1
        self._taken.add(name)
        return name


def rounded_in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 graph that computes, on a CPU, what a graph of :func:`fp16_model` computes on a GPU.

    A GPU adds up in float32 and stores float16. A CPU library takes float16 graphs too, but runs them in float32 with
    no rounding between the nodes, so that no overflow and no lost digit shows. Here each value that would be stored as
    float16 is cast to it and back.
    """
    graph = model.graph
    halves = {name for name, value in infos_of(graph).items() if value.type.tensor_type.elem_type == _FLOAT16}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Cast":
            nodes.extend(_cast_in_float32(node, halves))
        elif node.op_type in REARRANGING:
            nodes.append(node)
        else:
            nodes.extend(_followed_by_rounding(node, halves))
    simulated = copy_of(model)
    _replace(simulated.graph.node, nodes)
    _replace(simulated.graph.initializer, [_widened(tensor) for tensor in graph.initializer])
    _replace(simulated.graph.value_info, ())
    return _checked(simulated)


def _cast_in_float32(node: onnx.NodeProto, halves: Collection[str]) -> list[onnx.NodeProto]:
    """Return what a Cast becomes: a rounding where it gave float16, nothing where it took it."""
    (given,), (result,) = node.input, node.output
    if result in halves:
        return _rounding(given, result)
    if given in halves and attribute_of(node, "to", 0) == _FLOAT:
        return [helper.make_node("Identity", [given], [result], name=node.name)]
    return [node]


def _followed_by_rounding(node: onnx.NodeProto, halves: Collection[str]) -> list[onnx.NodeProto]:
    copied = copy_of(node)
    nodes = [copied]
    for position, name in enumerate(node.output):
        if name in halves:
            copied.output[position] = f"{name}/unrounded"
            nodes += _rounding(f"{name}/unrounded", name)
    return nodes


def _rounding(given: str, result: str) -> list[onnx.NodeProto]:
    """Return the pair of casts that rounds a tensor to float16."""
    half = f"{result}/fp16"
    return [
        helper.make_node("Cast", [given], [half], name=half, to=_FLOAT16),
        helper.make_node("Cast", [half], [result], name=f"{result}/rounded", to=_FLOAT),
    ]


def _widened(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type != _FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _info(value: onnx.ValueInfoProto, name: str, element_type: int) -> onnx.ValueInfoProto:
    """Return the type and shape of a tensor under another name and with another element type."""
    copied = copy_of(value)
    copied.name = name
    copied.type.tensor_type.elem_type = element_type
    return copied


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())
        raise ModelFileError(
            f"float16 cannot be written into this graph, it would not be a valid model ({reason}); "
            "make INT8 alone with --precision int8, or export the checkpoint with sfpp-export"
        ) from error
    return model


def _replace(field: Any, items: Iterable[Any]) -> None:
    """Put other items into a repeated field of a message."""
    copies = list(items)
    del field[:]
    field.extend(copies)
