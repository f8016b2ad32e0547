"""A graph as the rules ask it: nodes with their attributes, who writes and reads a tensor, what is known of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from sfpp.tooling.graph import attribute_of, constant_in, graphs_in, infos_of, opset_of

Shape = tuple[int | None, ...]
_Value = TypeVar("_Value", int, float, str, list[int])

# Rules ask for scales, axes and counts; none needs a weight of millions of values as an array.
_MOST_VALUES = 1 << 20
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}


@dataclass(frozen=True)
class Node:
    """A node of the graph, or of a graph within it; ``domain`` is empty for ONNX's own operators."""

    proto: onnx.NodeProto
    number: int

    @cached_property
    def name(self) -> str:
        """Its name, that of its first output where it has none, or its operator and number."""
        return str(self.proto.name or next(filter(None, self.proto.output), f"{self.operator} {self.number}"))

    @property
    def operator(self) -> str:
        """Name of the operator."""
        return str(self.proto.op_type)

    @property
    def domain(self) -> str:
        """Who defines the operator."""
        return "" if self.proto.domain == "ai.onnx" else str(self.proto.domain)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that it reads; empty for an optional one that is left out."""
        return tuple(self.proto.input)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that it writes; empty for an optional one that is left out."""
        return tuple(self.proto.output)

    def input(self, position: int) -> str:
        """Return the name of an input, empty if it is left out."""
        return self.inputs[position] if position < len(self.inputs) else ""

    def attribute(self, name: str, default: _Value) -> _Value:
        """Return an attribute, or the default where the node does not have it, or has one of another kind."""
        return attribute_of(self.proto, name, default)


class CheckedGraph:
    """The nodes of a model and its tensors by name, graphs within the graph included.

    Args:
        file: where it was read from.
        model: with the types and shapes of as many tensors as are known, and without local functions.
        function_calls: the nodes that called local functions before those were written out.
        notes: what the reader should know of the reading.

    Attributes:
        nodes: in the order of the file, those of a graph within the graph after the node that holds it.
        inputs: names of the inputs that a caller has to give.
        outputs: names of the outputs.
        constants: initializers, and outputs of Constant nodes, by name.
        shapes: shape of each tensor for which it is known, None for a size that is not fixed.
        writers: the node that writes a tensor, by the tensor's name.
    """

    def __init__(
        self, file: Path, model: onnx.ModelProto, *, function_calls: tuple[Node, ...] = (), notes: tuple[str, ...] = ()
    ) -> None:
        self.file = file
        self.model = model
        self.function_calls = function_calls
        self.notes = notes
        self.opset = opset_of(model)
        self.nodes: list[Node] = []
        self.constants: dict[str, TensorProto] = {}
        self.shapes: dict[str, Shape] = {}
        self._types: dict[str, int] = {}
        self._gather(model.graph)
        self.inputs = [each.name for each in model.graph.input if each.name not in self.constants]
        self.outputs = [each.name for each in model.graph.output]
        self.writers = {name: node for node in self.nodes for name in node.outputs if name}

    def of(self, *operators: str, any_domain: bool = False) -> Iterator[Node]:
        """Yield the nodes of some operators: ONNX's own, or of any domain."""
        return (node for node in self.nodes if node.operator in operators and (any_domain or not node.domain))

    def readers(self, name: str) -> list[Node]:
        """Return the nodes that read a tensor."""
        return self._readers.get(name, [])

    def type(self, name: str) -> int:
        """Return the ONNX number of a tensor's type; UNDEFINED where it is not known."""
        constant = self.constants.get(name)
        return self._types.get(name, TensorProto.UNDEFINED) if constant is None else int(constant.data_type)

    def shape(self, name: str) -> Shape | None:
        """Return a tensor's shape, None where not even the number of its dimensions is known."""
        constant = self.constants.get(name)
        return self.shapes.get(name) if constant is None else tuple(constant.dims)

    def values(self, name: str) -> NDArray[Any] | None:
        """Return the real numbers of a small constant; None for any other tensor, or if they cannot be read."""
        tensor = self.constants.get(name)
        if tensor is None or is_external(tensor) or math.prod(tensor.dims) > _MOST_VALUES:
            return None
        try:
            values = np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError, AttributeError):  # as many numbers as the file says are not there
            return None
        return None if values.dtype.kind in "OSUc" else values

    def is_fixed(self, name: str) -> bool:
        """Tell whether a tensor is known when the engine is built: a constant, or computed from nothing else."""
        return name in self._fixed

    def entering(self, types: set[int]) -> Iterator[tuple[str, str, int]]:
        """Yield (name, operator, type) where values of some types first appear.

        That is at inputs, at initializers (both without an operator), and at the nodes that do not read the type they
        write.
        """
        written = {name for node in self.nodes for name in node.outputs}
        for name in [*self.inputs, *(each for each in self.constants if each not in written)]:
            if self.type(name) in types:
                yield name, "", self.type(name)
        for node in self.nodes:
            read = {self.type(name) for name in node.inputs}
            for name in node.outputs:
                if self.type(name) in types - read:
                    yield node.name, node.operator, self.type(name)
                    break

    @cached_property
    def _readers(self) -> Mapping[str, list[Node]]:
        readers: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in set(filter(None, node.inputs)):
                readers[name].append(node)
        return dict(readers)

    @cached_property
    def _fixed(self) -> set[str]:
        fixed = set(self.constants)
        for node in self.nodes:
            given = [name for name in node.inputs if name]
            if node.operator in ("Shape", "Size") and given:
                known = None not in (self.shape(given[0]) or (None,))
            else:
                # What a graph within the graph computes may depend on anything around it.
                known = (
                    bool(given)
                    and fixed.issuperset(given)
                    and not graphs_in(node.proto)
                    and node.operator not in _RANDOM
                )
            if known:
                fixed.update(filter(None, node.outputs))
        return fixed

    def _gather(self, graph: onnx.GraphProto) -> None:
        """Take in a graph and those within it."""
        for name, value in infos_of(graph).items():
            kind = value.type.tensor_type
            self._types[name] = int(kind.elem_type)
            if kind.HasField("shape"):
                self.shapes[name] = tuple(
                    int(each.dim_value) if each.HasField("dim_value") else None for each in kind.shape.dim
                )
        self.constants.update((tensor.name, tensor) for tensor in graph.initializer)
        for proto in graph.node:
            node = Node(proto, len(self.nodes))
            self.nodes.append(node)
            if node.outputs and (tensor := constant_in(proto)) is not None:
                self.constants[node.outputs[0]] = tensor
            for inner in graphs_in(proto):
                self._gather(inner)


def is_external(tensor: TensorProto) -> bool:
    """Tell whether a tensor's values lie in a file of their own."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def location_of(tensor: TensorProto) -> str:
    """Return that file, as the tensor names it; empty if it names none."""
    return next((str(each.value) for each in tensor.external_data if each.key == "location"), "")
