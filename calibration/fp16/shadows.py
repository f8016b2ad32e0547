"""A float32 graph with shadows: beside a node the same operator in float16's rounding, and sums of how they differ."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sfpp.calibration.fp16.float_graph import FloatGraph
from sfpp.calibration.fp16.float_operators import float16_positions
from sfpp.calibration.fp16.float_types import rounded_to_float16
from sfpp.calibration.int8.observing import stride_for

_FLOAT, _FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
_END = np.iinfo(np.int64).max


class ShadowedGraph:
    """Collects the nodes to add to a graph; every output of :meth:`model` is a single number.

    Args:
        graph: the float32 graph.
        shadowed: positions of the nodes that get a shadow.
    """

    def __init__(self, graph: FloatGraph, shadowed: Iterable[int]) -> None:
        self._graph = graph
        self._nodes: list[onnx.NodeProto] = []
        self._reductions: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._written: set[str] = set()
        self._outputs: list[str] = []
        for index in shadowed:
            self._add(index)

    def tensors(self, index: int) -> tuple[str, ...]:
        """Return the tensors that a node would read and write in float16, weights left out."""
        node = self._graph.nodes[index]
        read = (node.input[position] for position in float16_positions(self._graph, index))
        names = [*(name for name in read if name not in self._graph.constants), *self._graph.float_outputs(index)]
        return tuple(dict.fromkeys(names))

    def model(self) -> onnx.ModelProto:
        """Return the graph; it has the outputs ``NAME/max``, ``/min`` of each tensor that a shadowed node reads or
        writes, and ``NAME/power``, ``/error`` (sums of squares) of those that it writes.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self._graph.model)
        model.graph.node.extend(self._nodes)
        # Of the nodes that nobody reads, ONNX Runtime works towards the last one first. In this order each tensor is
        # looked at as soon as it is there, and given up; in the other one the whole network is held until its end
        # (8.5 GB instead of 2.4 GB for B0 hq at 1920x1080).
        model.graph.node.extend(reversed(self._reductions))
        model.graph.initializer.extend(self._weights.values())
        del model.graph.output[:]
        model.graph.output.extend(helper.make_tensor_value_info(name, _FLOAT, []) for name in self._outputs)
        return model

    def _add(self, index: int) -> None:
        node = self._graph.nodes[index]
        for name in self.tensors(index):
            self._reduce("ReduceMax", name, f"{name}/max")
            self._reduce("ReduceMin", name, f"{name}/min")
        shadow = onnx.NodeProto()
        shadow.CopyFrom(node)
        shadow.name = f"{self._graph.name(index)}/shadow"
        for position in float16_positions(self._graph, index):
            shadow.input[position] = self._rounded(node.input[position])
        for position, name in enumerate(node.output):
            shadow.output[position] = name and f"{name}/shadow"
        self._nodes.append(shadow)
        for name in self._graph.float_outputs(index):
            exact, shadowed = self._sample(name), self._rounding(self._sample(name, "/shadow"))
            self._append("Sub", [exact, shadowed], f"{name}/difference")
            self._reduce("ReduceSumSquare", f"{name}/difference", f"{name}/error")
            self._reduce("ReduceSumSquare", exact, f"{name}/power")

    def _sample(self, name: str, suffix: str = "") -> str:
        """Return the name of at most 131072 values of a tensor, or of its shadow: casting all would double the time."""
        tensor, size = name + suffix, math.prod(self._graph.shape(name))
        stride = stride_for(size) if size else 1
        if stride == 1:
            return tensor
        self._append("Reshape", [tensor, self._integers(-1)], f"{tensor}/flat")
        limits = [self._integers(each) for each in (0, _END, 0, stride)]
        self._append("Slice", [f"{tensor}/flat", *limits], f"{tensor}/sample")
        return f"{tensor}/sample"

    def _integers(self, *values: int) -> str:
        stored = f"shadows/{'x'.join(map(str, values))}"
        self._weights[stored] = numpy_helper.from_array(np.array(values, np.int64), stored)
        return stored

    def _rounded(self, name: str) -> str:
        """Return the name of a tensor or weight rounded to float16."""
        if name not in self._graph.constants:
            return self._rounding(name)
        stored = f"{name}/rounded"
        if stored not in self._weights:
            values = numpy_helper.to_array(self._graph.constants[name])
            self._weights[stored] = numpy_helper.from_array(rounded_to_float16(values).astype("float32"), stored)
        return stored

    def _rounding(self, name: str) -> str:
        """Append the casts to float16 and back, once for each tensor."""
        if f"{name}/rounded" not in self._written:
            self._append("Cast", [name], f"{name}/fp16", to=_FLOAT16)
            self._append("Cast", [f"{name}/fp16"], f"{name}/rounded", to=_FLOAT)
        return f"{name}/rounded"

    def _reduce(self, op: str, name: str, result: str) -> None:
        if result not in self._written:
            self._written.add(result)
            self._reductions.append(helper.make_node(op, [name], [result], name=result, keepdims=0))
            self._outputs.append(result)

    def _append(self, op: str, inputs: list[str], result: str, **attributes: Any) -> None:
        self._written.add(result)
        self._nodes.append(helper.make_node(op, inputs, [result], name=result, **attributes))
