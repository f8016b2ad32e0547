"""Rules on operators that choose, scatter and count: TopK, Scatter, NonZero, CumSum."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from sfpp.export.check.findings import ALL, CHANGELOG, FROM_10_3, OPERATORS, TENSORRT, TRIED, Match, Rule
from sfpp.export.check.graph import CheckedGraph, Node

_LARGEST_K = 3840


def _k_of(graph: CheckedGraph, node: Node) -> int | None:
    """Return how many values a TopK takes, as far as the file tells."""
    values = graph.values(node.input(1))
    if values is not None and values.size == 1 and values.dtype.kind == "i":
        return int(values.reshape(()))
    if node.has("k"):  # before opset 10
        return node.integer("k")
    shape, axis = graph.shape(node.outputs[0]) if node.outputs else None, node.integer("axis", -1)
    return shape[axis] if shape and -len(shape) <= axis < len(shape) else None


def _large_k(graph: CheckedGraph) -> Iterator[Match]:
    for node in graph.of("TopK"):
        if (k := _k_of(graph, node) or 0) > _LARGEST_K:
            yield Match.at(node, str(k))


def _computed_k(graph: CheckedGraph) -> Iterator[Match]:
    for node in graph.of("TopK"):
        if (name := node.input(1)) and not graph.is_fixed(name):
            yield Match.at(node, name)


def _unsorted(graph: CheckedGraph) -> Iterator[Match]:
    return (Match.at(node) for node in graph.of("TopK") if not node.integer("sorted", 1))


def _reducing(operator: str) -> Callable[[CheckedGraph], Iterator[Match]]:
    """Return what finds the Scatter nodes of a kind that combine values instead of writing them."""

    def find(graph: CheckedGraph) -> Iterator[Match]:
        for node in graph.of(operator):
            if (reduction := node.text("reduction", "none")) != "none":
                yield Match.at(node, reduction)

    return find


def _said_not_to_reduce(graph: CheckedGraph) -> Iterator[Match]:
    return (Match.at(node) for node in graph.of("ScatterND") if node.text("reduction") == "none")


def _more_indices_than_data(graph: CheckedGraph) -> Iterator[Match]:
    for node in graph.of("ScatterElements", "Scatter"):
        data, indices = graph.shape(node.input(0)), graph.shape(node.input(1))
        if node.text("reduction", "none") != "none" or not data or not indices:
            continue
        if any(at and size and at > size for at, size in zip(indices, data, strict=False)):
            yield Match.at(node, f"{_sizes(indices)} indices for {_sizes(data)} values")


def _sizes(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def _of(*operators: str) -> Callable[[CheckedGraph], Iterator[Match]]:
    return lambda graph: map(Match.at, graph.of(*operators))


def _unlike_cumulative_sums(graph: CheckedGraph) -> Iterator[Match]:
    sums: dict[tuple[object, ...], Node] = {}
    for node in graph.of("CumSum"):
        axis = graph.values(node.input(1))
        kind = (None if axis is None else tuple(np.ravel(axis)), node.integer("reverse"), node.integer("exclusive"))
        sums.setdefault(kind, node)
    if len(sums) > 1:
        yield from map(Match.at, sums.values())


_WITHOUT_ADDING = "combine the values with a one-hot MatMul, as sfpp-export --target tensorrt writes it"
_FIXED_NUMBER = "keep a fixed number of values with TopK, or do this step after the engine"

SELECTION_RULES = (
    Rule(
        "topk-k",
        "refused",
        ALL,
        _large_k,
        f"it takes the {{detail}} largest values, and TensorRT at most {_LARGEST_K}",
        f"take them in passes of {_LARGEST_K}, as sfpp-export --target tensorrt writes it",
        f"NVIDIA's operators documentation, TopK; {TRIED}",
    ),
    Rule(
        "topk-k-computed",
        "doubtful",
        ALL,
        _computed_k,
        "how many values it takes is known only at run time, from {detail}",
        "make the number a constant; as an input it needs an optimization profile with its range",
        f"{CHANGELOG} (8.6); {TRIED}",
    ),
    Rule(
        "topk-unsorted",
        "doubtful",
        ("10.3", "10.13", "11"),
        _unsorted,
        "it leaves the order of the values open (sorted = 0), and TensorRT is documented for sorted ones only",
        "leave the attribute sorted out",
        f"{OPERATORS} (10.6 to 11.0)",
    ),
    Rule(
        "scatter-elements-reduction",
        "wrong",
        ("8.6",),
        _reducing("ScatterElements"),
        "TensorRT 8.6 overlooks reduction = {detail} and keeps one of the values that meet",
        _WITHOUT_ADDING,
        "NVIDIA/TensorRT#3750",
    ),
    Rule(
        "scatter-elements-reduction",
        "refused",
        ("rtx",),
        _reducing("ScatterElements"),
        "TensorRT-RTX has no ScatterElements with reduction = {detail}",
        _WITHOUT_ADDING,
        TRIED,
    ),
    Rule(
        "scatter-elements-reduction",
        "doubtful",
        ("10.3", "10.13", "11"),
        _reducing("ScatterElements"),
        "reduction = {detail} runs as a plugin, which nothing is fused with and which adds in no fixed order",
        f"{_WITHOUT_ADDING}; otherwise load the standard plugins when building and running",
        f"{CHANGELOG} (10.0); NVIDIA/TensorRT plugin/scatterElementsPlugin",
    ),
    Rule(
        "scatter-nd-reduction",
        "wrong",
        ("8.6",),
        _reducing("ScatterND"),
        "TensorRT 8.6 overlooks reduction = {detail} and keeps one of the values that meet",
        _WITHOUT_ADDING,
        "onnx/onnx-tensorrt#957",
    ),
    Rule(
        "scatter-nd-reduction",
        "refused",
        FROM_10_3,
        _reducing("ScatterND"),
        "TensorRT has no ScatterND with reduction = {detail}",
        _WITHOUT_ADDING,
        f"{OPERATORS} (10.6 to 11.0); {TRIED}",
    ),
    Rule(
        "scatter-nd-none",
        "refused",
        ("10.3",),
        _said_not_to_reduce,
        "the parser refuses the attribute reduction of ScatterND even where it says none",
        "remove the attribute: none is what it means without it",
        f"{OPERATORS} (10.6), {CHANGELOG} (10.9); microsoft/onnxruntime#23618",
    ),
    Rule(
        "scatter-indices",
        "refused",
        ALL,
        _more_indices_than_data,
        "it has {detail}, and TensorRT takes no more indices than values along any axis",
        "combine values that meet before they are written, as sfpp-export --target tensorrt does",
        f"NVIDIA/TensorRT#3650; {TRIED}",
    ),
    Rule(
        "counts-values",
        "refused",
        ("rtx",),
        _of("NonZero", "NonMaxSuppression"),
        "TensorRT-RTX has nothing that runs {operator}",
        _FIXED_NUMBER,
        f"{TRIED}; NVIDIA/TensorRT-RTX#32",
    ),
    Rule(
        "counts-values",
        "doubtful",
        TENSORRT,
        _of("NonZero", "NonMaxSuppression"),
        "how much {operator} gives depends on the values, so what follows waits for a count and cannot be planned",
        _FIXED_NUMBER,
        "NVIDIA's guide to dynamic shapes, dynamically shaped output",
    ),
    Rule(
        "cumsum-slow",
        "doubtful",
        ("8.6", "10.3"),
        _of("CumSum"),
        "before 10.8 it runs as a loop over the axis, which is slow",
        "multiply with a triangular matrix of ones, or use TensorRT 10.8 or later",
        f"{CHANGELOG} (10.8); NVIDIA/TensorRT#3323",
    ),
    Rule(
        "cumsum-mixed",
        "doubtful",
        ("10.13", "11"),
        _unlike_cumulative_sums,
        "where a graph has several cumulative sums along different axes or directions, some are reported to come out "
        "wrong from 10.8 on",
        "multiply with a triangular matrix of ones, and compare the engine's answer with ONNX Runtime's",
        "NVIDIA/TensorRT#4551, #4513",
    ),
)
