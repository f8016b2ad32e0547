"""Rules on arithmetic that float16 does not carry: it ends at 65504."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from sfpp.export.check.graph import CheckedGraph, Node
from sfpp.export.check.rule import Match, Rule
from sfpp.export.check.versions import ALL, TRIED

_HALF = TensorProto.FLOAT16


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


PRECISION_RULES = (
    Rule(
        "norm-float16",
        "doubtful",
        ALL,
        _norms_written_out,
        "a layer norm is written out in float16, known for wrong answers: the squares at {detail} pass 65504 as soon "
        "as a value passes 256",
        "export with --opset 17, where it is one LayerNormalization that is computed in float32, and convert with "
        "sfpp-calibrate, which keeps norms in float32",
        f"{TRIED} (its own warning); NVIDIA/TensorRT#2781, #3657",
    ),
    Rule(
        "softmax-float16",
        "doubtful",
        ALL,
        _softmax_written_out,
        "a softmax is written out in float16 without subtracting the maximum: exp passes 65504 at 11.1",
        "use the operator Softmax, or subtract the maximum before",
        "IEEE 754, binary16",
    ),
)
