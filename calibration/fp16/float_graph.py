"""A graph as a table of who writes and who reads each float32 tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import inliner

from sfpp.runtime.errors import ModelFileError, UsageError
from sfpp.tooling.graph import GraphIndex, attribute_of, constant_in, copy_of, graphs_in, infos_of, name_of

_FLOAT = onnx.TensorProto.FLOAT
_HALVES: dict[int, str] = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16"}


class FloatGraph(GraphIndex):
    """The nodes of a model by their position, and the float32 tensors between them.

    Args:
        model: not changed; its nodes are in topological order, as ONNX demands.

    Attributes:
        model: a copy with local functions written out, ``Constant`` nodes as initializers, and the type and shape of
            every tensor.
        nodes: its nodes.
        constants: its initializers by name, those left out that a caller could replace.
        infos: type and shape of inputs, outputs and all tensors between, by name.

    Raises:
        ModelFileError: the graph is not valid, or the type of a tensor is unknown.
        UsageError: the graph has float16 in it already, or has nodes with graphs of their own.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(_prepared(model))
        graph = self.model.graph
        self.nodes = list(graph.node)
        inputs = {value.name for value in graph.input}
        self.constants = {name: tensor for name, tensor in self.initializers.items() if name not in inputs}
        self.infos = infos_of(graph)
        self.writer = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self._reading: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for position, name in enumerate(node.input):
                self._reading[name].append((index, position))
        self._opsets = {each.domain or "ai.onnx": each.version for each in self.model.opset_import}
        _check_types(self)

    def name(self, index: int) -> str:
        """Return a node's name, or that of its first output where it has none."""
        return name_of(self.nodes[index])

    def opset(self, domain: str = "") -> int:
        """Return the version of the operators of a domain."""
        return int(self._opsets.get(domain or "ai.onnx", 1))

    def element_type(self, name: str) -> int:
        """Return the ONNX number of a tensor's type; UNDEFINED for the missing tensor ``""`` and for sequences."""
        if name in self.constants:
            return int(self.constants[name].data_type)
        info = self.infos.get(name)
        return onnx.TensorProto.UNDEFINED if info is None else int(info.type.tensor_type.elem_type)

    def is_float32(self, name: str) -> bool:
        """Tell whether a tensor, constant or not, is float32."""
        return self.element_type(name) == _FLOAT

    def float_inputs(self, index: int) -> Iterator[tuple[int, str]]:
        """Yield position and name of a node's float32 inputs."""
        return ((position, name) for position, name in enumerate(self.nodes[index].input) if self.is_float32(name))

    def float_outputs(self, index: int) -> Iterator[str]:
        """Yield the names of a node's float32 outputs."""
        return (name for name in self.nodes[index].output if self.is_float32(name))

    def readers_of(self, index: int) -> list[tuple[int, int]]:
        """Return (node, position of the input) of everything that reads an output of a node."""
        return [reader for name in self.nodes[index].output if name for reader in self._reading[name]]

    def sources(self, index: int) -> list[int]:
        """Return the nodes that write the inputs of a node."""
        return [self.writer[name] for name in self.nodes[index].input if name in self.writer]

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the values of an initializer, None for any other tensor."""
        tensor = self.constants.get(name)
        return None if tensor is None else onnx.numpy_helper.to_array(tensor)

    def has_constant_input(self, index: int) -> bool:
        """Tell whether one of the inputs is an initializer."""
        return any(name in self.constants for name in self.nodes[index].input)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, with 0 for a size that is not known."""
        if name in self.constants:
            return tuple(self.constants[name].dims)
        return tuple(each.dim_value for each in self.infos[name].type.tensor_type.shape.dim)


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in the form that :class:`FloatGraph` describes."""
    copied = inliner.inline_local_functions(model) if model.functions else copy_of(model)
    graph = copied.graph
    for node in graph.node:
        if graphs_in(node):
            raise UsageError(
                f"node {name_of(node)!r} ({node.op_type}) has a graph of its own, which FP16 does not look into; "
                "export the model without control flow"
            )
    constants = [node for node in graph.node if node.op_type == "Constant" and not node.domain]
    for node in constants:
        value = constant_in(node)
        if value is None:
            raise UsageError(f"constant {name_of(node)!r} holds {node.attribute[0].name}, which FP16 does not know")
        graph.initializer.add().CopyFrom(value)
        graph.initializer[-1].name = node.output[0]
        graph.node.remove(node)
    try:
        typed = onnx.shape_inference.infer_shapes(copied, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, DecodeError) as error:
        raise ModelFileError(
            f"the types of the graph do not fit together, so it is not a valid model: {error}"
        ) from error
    _disarm_casts(typed.graph)
    return typed


def _disarm_casts(graph: onnx.GraphProto) -> None:
    """Make casts of float32 to float32 what they are, so that none of them follows one to float16."""
    infos = infos_of(graph)
    for node in graph.node:
        if node.op_type != "Cast" or attribute_of(node, "to", 0) != _FLOAT or node.input[0] not in infos:
            continue
        if infos[node.input[0]].type.tensor_type.elem_type == _FLOAT:
            node.op_type = "Identity"
            del node.attribute[:]


def _check_types(graph: FloatGraph) -> None:
    """Refuse a tensor that is float16 already, or of which nobody knows what it is."""
    for name in [*graph.constants, *graph.infos, *graph.writer]:
        element_type = graph.element_type(name)
        if element_type in _HALVES:
            raise UsageError(
                f"tensor {name!r} is {_HALVES[element_type]} already; give the float32 model that this was made from"
            )
        if name not in graph.constants and name not in graph.infos:
            writer = graph.nodes[graph.writer[name]]
            raise ModelFileError(
                f"nobody knows the type of tensor {name!r}, which {writer.op_type} of {writer.domain!r} writes; "
                "a model for FP16 must say it (value_info), as those of sfpp-export do"
            )
