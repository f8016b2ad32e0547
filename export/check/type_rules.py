"""Rules on types that a version does not know or narrows, and on arithmetic beyond float16, which ends at 65504."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
from onnx import TensorProto

from sfpp.export.check.findings import ALL, RELEASES, Finder, Match, Release
from sfpp.export.check.graph import CheckedGraph, Node

_CASTS = {"Cast", "CastLike"}
_INT32 = np.iinfo(np.int32)
_HALF = TensorProto.FLOAT16


def _of_versions(applies: Callable[[str, Release], bool]) -> Finder:
    """Return what finds tensors of a type for which something holds in some versions."""

    def find(graph: CheckedGraph) -> Iterator[Match]:
        types = {name: number for name, number in TensorProto.DataType.items() if number != TensorProto.UNDEFINED}
        found = {number: tuple(each for each in ALL if applies(name, RELEASES[each])) for name, number in types.items()}
        for name, operator, number in graph.entering({number for number, versions in found.items() if versions}):
            yield Match(name, operator, TensorProto.DataType.Name(number).lower(), found[number])

    return find


def _entering(kind: int) -> Finder:
    return lambda graph: (Match(name, operator) for name, operator, _ in graph.entering({kind}))


def _int64_inputs(graph: CheckedGraph) -> Iterator[Match]:
    return (Match(name, detail="input") for name in graph.inputs if graph.type(name) == TensorProto.INT64)


def _int64_outputs(graph: CheckedGraph) -> Iterator[Match]:
    return (Match(name, detail="output") for name in graph.outputs if graph.type(name) == TensorProto.INT64)


def _beyond_int32(graph: CheckedGraph) -> Iterator[Match]:
    for name in graph.constants:
        if graph.type(name) != TensorProto.INT64 or (values := graph.values(name)) is None or not values.size:
            continue
        # The largest number stands for "to the end" in a Slice, and stays that when it is clamped.
        if any(node.operator != "Slice" for node in graph.readers(name)) and (
            values.min() < _INT32.min or values.max() > _INT32.max
        ):
            yield Match(name)


def _uint8_between(graph: CheckedGraph) -> Iterator[Match]:
    """Find what computes with uint8: it may be an input that is cast, or an output that was cast."""
    inputs, outputs = set(graph.inputs), set(graph.outputs)
    for node in graph.nodes:
        if node.operator in ("QuantizeLinear", "DequantizeLinear", "Constant", "Shape", "Size"):
            continue  # quantization has rules of its own
        through = node.operator == "Identity" and node.input(0) in inputs and outputs.issuperset(node.outputs)
        reads = [name for name in node.inputs if name in inputs and graph.type(name) == TensorProto.UINT8]
        writes = [name for name in node.outputs if graph.type(name) == TensorProto.UINT8]
        cast = node.operator in _CASTS
        if not through and ((reads and not cast) or any(name not in outputs or not cast for name in writes)):
            yield Match.at(node)


def _norms_written_out(graph: CheckedGraph) -> Iterator[Match]:
    """Find means of float16 squares of which a root is taken: the variance of a layer norm, or an RMS norm's mean."""
    for node in graph.of("ReduceMean"):
        square = graph.writers.get(node.input(0))
        if square is None or graph.type(node.input(0)) != _HALF or not _is_square(graph, square):
            continue
        if any(_leads_to_root(graph, name) for name in node.outputs):
            yield Match.at(node, square.name)


def _is_square(graph: CheckedGraph, node: Node) -> bool:
    if node.operator == "Pow":
        exponent = graph.values(node.input(1))
        return exponent is not None and bool((exponent == 2).all())
    return node.operator == "Mul" and node.input(0) == node.input(1)


def _leads_to_root(graph: CheckedGraph, name: str) -> bool:
    """Tell whether a root of a tensor is taken, at once or after a small number is added."""
    readers = graph.readers(name)
    added = [each for node in readers if node.operator in ("Add", "Max") for each in node.outputs]
    after = [*readers, *(node for each in added for node in graph.readers(each))]
    return any(node.operator in ("Sqrt", "Pow") for node in after)


def _softmax_written_out(graph: CheckedGraph) -> Iterator[Match]:
    """Find float16 exponentials that are divided by their sum, of values from which no maximum was subtracted."""
    for node in graph.of("Exp"):
        result = node.outputs[0] if node.outputs else ""
        if graph.type(result) != _HALF:
            continue
        operators = {reader.operator for reader in graph.readers(result)}
        before = graph.writers.get(node.input(0))
        if {"ReduceSum", "Div"} <= operators and (before is None or before.operator != "Sub"):
            yield Match.at(node)


TYPE_FINDERS: dict[str, Finder] = {
    "type-unknown": _of_versions(lambda name, release: name not in release.types | release.unsure_types),
    "type-unsure": _of_versions(lambda name, release: name in release.unsure_types),
    "uint8-between": _uint8_between,
    "int64-end": lambda graph: chain(_int64_inputs(graph), _int64_outputs(graph)),
    "int64-output": _int64_outputs,
    "int64-input": _int64_inputs,
    "int64-clamped": _beyond_int32,
    "double": _entering(TensorProto.DOUBLE),
    "float8": _entering(TensorProto.FLOAT8E4M3FN),
    "norm-float16": _norms_written_out,
    "softmax-float16": _softmax_written_out,
}
