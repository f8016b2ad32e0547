"""Which nodes must stay in float32: each is computed beside its own copy in float16, on real frames.

The float32 graph runs as it is. Beside each node that could compute in float16 stands its copy: the same operator on
inputs and weights rounded to float16, its output rounded too. Errors do not add up along the network, so a large one is
the node's own. Only sums leave the graph, so that memory does not grow with the number of nodes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from sfpp.calibration.fp16.float_graph import FloatGraph
from sfpp.calibration.fp16.float_operators import float16_positions
from sfpp.calibration.fp16.float_types import FLOAT16_MAX, float_types, rounded_to_float16
from sfpp.calibration.probing import Sampler, outputs_on
from sfpp.calibration.results import Kept
from sfpp.tooling.graph import copy_of, running_order

_TOGETHER: dict[str, Callable[[float, float], float]] = {
    **{"max": max, "min": min},
    **{"power": operator.add, "error": operator.add},
}
# Other frames are brighter, and a scene that was not measured may be the worst.
HEADROOM = 4.0
# Rounding in and out costs a sound node 0.02 to 0.07 % of its signal: no node of a SegFormer or an EDAFormer, trained
# or random, for labels or for poses, was seen above. At 1 % it loses four bits more than the others.
LARGEST_ERROR = 0.01
_FLOAT, _FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


@dataclass(frozen=True)
class NodeError:
    """What float16 does to one node by itself.

    Attributes:
        name: the node, or its first output where it has no name.
        operator: such as ``MatMul``.
        largest: the largest magnitude that it reads or writes.
        error: root of the mean squared error of its outputs over their mean square; infinite or NaN after an overflow.
        overflows: it read or wrote what float16 does not hold.
    """

    name: str
    operator: str
    largest: float
    error: float
    overflows: bool


def measure_fp16(model: onnx.ModelProto, inputs: Iterable[Mapping[str, NDArray[Any]]]) -> tuple[NodeError, ...]:
    """Measure every node that :func:`.fp16_model.fp16_model` would compute in float16, in the graph's order.

    Args:
        model: float32, as for ``fp16_model``.
        inputs: arrays by input name, one frame at a time; read once.

    Raises:
        UsageError, ModelFileError: as ``fp16_model``, or there is no frame.
        BackendError: ONNX Runtime cannot run the model.
        MissingDependencyError: onnxruntime is not installed.
    """
    graph = FloatGraph(model)
    computing = float_types(graph).computing
    if not computing:
        return ()
    seen: dict[str, float] = {}
    for _, results in outputs_on(float16_probe(graph, computing), inputs):
        for name, value in results.items():
            together = _TOGETHER[name.rpartition("/")[2]]
            seen[name] = together(seen.get(name, 0.0), float(value))
    return tuple(_node_error(graph, seen, index) for index in sorted(computing))


def nodes_to_keep_float32(errors: Iterable[NodeError]) -> tuple[Kept, ...]:
    """Return the nodes that must stay float32, by what :func:`measure_fp16` found, with the reason in words."""
    return tuple(Kept(each.name, reason) for each in errors if (reason := _reason(each)))


def _reason(error: NodeError) -> str:
    if error.overflows or error.largest * HEADROOM > FLOAT16_MAX:
        return f"reaches {error.largest:.3g}, float16 ends at {FLOAT16_MAX:.0f}"
    if not error.error <= LARGEST_ERROR:
        return f"rounding costs {100 * error.error:.2g} % of the signal"
    return ""


def _node_error(graph: FloatGraph, seen: Mapping[str, float], index: int) -> NodeError:
    """Return what was seen of one node."""
    written = list(graph.float_outputs(index))
    largest = max(max(seen[f"{name}/max"], -seen[f"{name}/min"]) for name in _tensors(graph, index))
    noise, signal = (sum(seen[f"{name}/{kind}"] for name in written) for kind in ("error", "power"))
    overflows = largest > FLOAT16_MAX or not math.isfinite(noise)
    error = math.sqrt(noise / signal) if signal else 0.0
    return NodeError(graph.name(index), graph.nodes[index].op_type, largest, error, overflows)


def _tensors(graph: FloatGraph, index: int) -> tuple[str, ...]:
    """Return the tensors that a node would read and write in float16, weights left out."""
    node = graph.nodes[index]
    read = (node.input[position] for position in float16_positions(graph, index))
    return tuple(dict.fromkeys([*(each for each in read if each not in graph.constants), *graph.float_outputs(index)]))


def float16_probe(graph: FloatGraph, probed: Collection[int]) -> onnx.ModelProto:
    """Return the graph with a copy in float16 beside each of these nodes; every output is a single number.

    These are ``NAME/max`` and ``/min`` of each tensor that such a node reads or writes, and ``NAME/power`` and
    ``/error`` (sums of squares) of those that it writes.
    """
    model = copy_of(graph.model)
    probe = _Probe(graph, model.graph)
    for index in running_order(graph.nodes):
        if index in probed:
            probe.add(index)
    # Of the nodes that nobody reads, ONNX Runtime works towards the last one first. In this order each tensor is
    # read as soon as it is there, and given up; in another one the whole network is held until its end (8.5 GB
    # instead of 2.4 GB for B0 hq at 1920x1080), or all parts of an attention (above 21 GB at 3840x2160).
    model.graph.node.extend(reversed(probe.reductions))
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(each.name, _FLOAT, []) for each in probe.reductions)
    return model


class _Probe:
    """Adds to a copy of a graph what :func:`float16_probe` describes, and collects the nodes that reduce to numbers."""

    def __init__(self, graph: FloatGraph, copied: onnx.GraphProto) -> None:
        self._graph, self._copied, self._sampler = graph, copied, Sampler(copied)
        self.reductions: list[onnx.NodeProto] = []
        self._written: set[str] = set()

    def add(self, index: int) -> None:
        """Add the copy of one node, and what compares the two."""
        node = self._graph.nodes[index]
        for name in _tensors(self._graph, index):
            self._reduce("ReduceMax", name, f"{name}/max")
            self._reduce("ReduceMin", name, f"{name}/min")
        copied = copy_of(node)
        copied.name = f"{self._graph.name(index)}/in_float16"
        for position in float16_positions(self._graph, index):
            copied.input[position] = self._rounded(node.input[position])
        for position, name in enumerate(node.output):
            copied.output[position] = name and f"{name}/in_float16"
        self._copied.node.append(copied)
        for name in self._graph.float_outputs(index):
            # Of a sample: casting all values would double the time.
            shape = self._graph.shape(name)
            exact, rounded = (self._sampler.add(each, shape) for each in (name, f"{name}/in_float16"))
            self._append("Sub", [exact, self._rounding(rounded)], f"{name}/difference")
            self._reduce("ReduceSumSquare", f"{name}/difference", f"{name}/error")
            self._reduce("ReduceSumSquare", exact, f"{name}/power")

    def _rounded(self, name: str) -> str:
        """Return the name of a tensor or weight rounded to float16."""
        if name not in self._graph.constants:
            return self._rounding(name)
        if f"{name}/rounded" not in self._written:
            self._written.add(f"{name}/rounded")
            values = rounded_to_float16(numpy_helper.to_array(self._graph.constants[name])).astype(np.float32)
            self._copied.initializer.append(numpy_helper.from_array(values, f"{name}/rounded"))
        return f"{name}/rounded"

    def _rounding(self, name: str) -> str:
        """Append the casts to float16 and back, once for each tensor."""
        if f"{name}/rounded" not in self._written:
            self._append("Cast", [name], f"{name}/fp16", to=_FLOAT16)
            self._append("Cast", [f"{name}/fp16"], f"{name}/rounded", to=_FLOAT)
        return f"{name}/rounded"

    def _reduce(self, op: str, name: str, result: str) -> None:
        if result not in self._written:
            self._written.add(result)
            self.reductions.append(helper.make_node(op, [name], [result], name=result, keepdims=0))

    def _append(self, op: str, inputs: list[str], result: str, **attributes: Any) -> None:
        self._written.add(result)
        self._copied.node.append(helper.make_node(op, inputs, [result], name=result, **attributes))
