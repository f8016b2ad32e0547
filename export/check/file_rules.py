"""Rules on the file as a whole, on inputs that a version reads only as constants, and on shapes."""

from __future__ import annotations

from collections.abc import Iterator

from sfpp.export.check.findings import ALL, NATIVE, RELEASES, Finder, Match, Version, nodes_of
from sfpp.export.check.graph import CheckedGraph, Shape, is_external
from sfpp.export.check.reading import external_problem, stored_tensors

_REDUCTIONS = tuple(
    f"Reduce{each}" for each in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
)
_MOST_DIMENSIONS = 8
# Inputs that some versions take only if they are known when the engine is built: operators, position, what it is, and
# the versions.
_CONSTANT_INPUTS: tuple[tuple[tuple[str, ...], int, str, tuple[Version, ...]], ...] = (
    (("QuantizeLinear", "DequantizeLinear"), 1, "scale", ("8.6", *NATIVE)),
    (_REDUCTIONS, 1, "axes", (*NATIVE, "rtx")),
    (("CumSum",), 1, "axis", ALL),
    (("Unsqueeze", "Squeeze"), 1, "axes", ALL),
    (("Slice",), 3, "axes", ("8.6",)),
    (("Pad",), 3, "axes", ("10.3",)),
    (("OneHot",), 1, "depth", NATIVE),
)


def _opset_above(graph: CheckedGraph) -> Iterator[Match]:
    for version, release in RELEASES.items():
        if release.highest_opset is not None and graph.opset > release.highest_opset:
            detail = f"{graph.opset}, and {release.title} is documented up to {release.highest_opset}"
            yield Match(detail=detail, versions=(version,))


def _opset_below(graph: CheckedGraph) -> Iterator[Match]:
    for version, release in RELEASES.items():
        if graph.opset < release.lowest_opset:
            detail = f"{graph.opset}, and {release.title} promises to read {release.lowest_opset} and later"
            yield Match(detail=detail, versions=(version,))


def _lost_weights(graph: CheckedGraph) -> Iterator[Match]:
    for tensor in stored_tensors(graph.model):
        if is_external(tensor) and (problem := external_problem(tensor, graph.file.parent)):
            yield Match(str(tensor.name), detail=problem)


def _computed_inputs(graph: CheckedGraph) -> Iterator[Match]:
    for operators, position, what, versions in _CONSTANT_INPUTS:
        for node in graph.of(*operators):
            if (name := node.input(position)) and not graph.is_fixed(name):
                yield Match.at(node, what, versions=versions)


def sizes(shape: Shape) -> str:
    """Return a shape for people, such as ``1x3x?x?``."""
    return "x".join("?" if size is None else str(size) for size in shape)


def _open_inputs(graph: CheckedGraph) -> Iterator[Match]:
    for name in graph.inputs:
        shape = graph.shape(name)
        if shape is None or None in shape:
            yield Match(name, detail="unknown" if shape is None else sizes(shape))


def _empty_ends(graph: CheckedGraph) -> Iterator[Match]:
    for name in [*graph.inputs, *graph.outputs]:
        if 0 in (shape := graph.shape(name) or ()):
            yield Match(name, detail=sizes(shape))


def _many_dimensions(graph: CheckedGraph) -> Iterator[Match]:
    for name in graph.inputs:
        if (rank := len(graph.shape(name) or ())) > _MOST_DIMENSIONS:
            yield Match(name, detail=str(rank))
    for node in graph.nodes:
        if (rank := max((len(graph.shape(name) or ()) for name in node.outputs), default=0)) > _MOST_DIMENSIONS:
            yield Match.at(node, str(rank))


FILE_FINDERS: dict[str, Finder] = {
    "weights-missing": _lost_weights,
    "local-function": lambda graph: map(Match.at, graph.function_calls),
    "opset-above": _opset_above,
    "opset-below": _opset_below,
    "computed-input": _computed_inputs,
    # ReduceSum has had its axes as an input since opset 13, which TensorRT 8.6 knows.
    "reduce-axes": nodes_of(
        *_REDUCTIONS, where=lambda graph, node: bool(node.input(1)) and node.operator != "ReduceSum"
    ),
    "dimensions": _many_dimensions,
    "dynamic-shape": _open_inputs,
    "empty-tensor": _empty_ends,
    "control-flow": nodes_of("If", "Loop", "Scan"),
}
