"""Rules on operators that a parser does not know, and on what it refuses or misreads of those that it knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from onnx import TensorProto

from sfpp.export.check.file_rules import sizes
from sfpp.export.check.findings import ALL, RELEASES, Finder, Match, Version, nodes_of
from sfpp.export.check.graph import CheckedGraph, Node

_TRANSFORMATIONS = {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"}
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_LARGEST_K = 3840


def _reads(version: Version, node: Node) -> bool:
    """Tell whether a parser takes a node for an operator of ONNX: TensorRT goes by the name alone."""
    return node.operator in RELEASES[version].operators


def _knows(version: Version, node: Node) -> bool:
    is_microsofts = node.domain == "com.microsoft" and node.operator in RELEASES[version].microsofts
    return is_microsofts or _reads(version, node)


def _by_version(applies: Callable[[Version, Node], bool], *, foreign: bool) -> Finder:
    """Return what finds ONNX's own nodes, or ``foreign`` ones, with the versions in which something applies to them."""

    def find(graph: CheckedGraph) -> Iterator[Match]:
        for node in graph.nodes:
            versions = tuple(each for each in ALL if applies(each, node))
            if versions and bool(node.domain) == foreign:
                yield Match.at(node, node.domain, versions=versions)

    return find


def _rank(graph: CheckedGraph, name: str) -> int:
    return len(graph.shape(name) or ())


def _transformation(graph: CheckedGraph, node: Node) -> str:
    mode = node.attribute("coordinate_transformation_mode", "half_pixel")
    return "" if mode in _TRANSFORMATIONS else mode


def _further_outputs(graph: CheckedGraph, node: Node) -> str:
    return ", ".join(filter(None, node.outputs[1:]))


def _is_dilated(graph: CheckedGraph, node: Node) -> bool:
    return any(each != 1 for each in node.attribute("dilations", list[int]()))


def _trains(graph: CheckedGraph, node: Node) -> bool:
    mode = graph.values(node.input(2)) if node.operator == "Dropout" else None
    return bool(node.attribute("training_mode", 0)) or (mode is not None and bool(mode.any()))


def _is_float_remainder(graph: CheckedGraph, node: Node) -> bool:
    return not node.attribute("fmod", 0) and graph.type(node.input(0)) in _FLOATS


def _einsum_beyond_letters(graph: CheckedGraph, node: Node) -> str:
    equation = node.attribute("equation", "")
    terms = equation.replace(" ", "").split("->")[0].split(",")
    diagonal = any(len(set(term)) < len(term) for term in terms)
    return equation if "..." in equation or diagonal else ""


def _attention_extras(graph: CheckedGraph, node: Node) -> str:
    """Return what an Attention has beside queries, keys, values and a mask."""
    extras = [*filter(None, (*node.inputs[4:], *node.outputs[1:]))]
    extras += ["softcap"] * bool(node.attribute("softcap", 0.0))
    return ", ".join(extras)


def _is_float32_attention(graph: CheckedGraph, node: Node) -> bool:
    return graph.type(node.input(0)) == TensorProto.FLOAT and _rank(graph, node.input(0)) == 4


def _k_of(graph: CheckedGraph, node: Node) -> int | None:
    """Return how many values a TopK takes, as far as the file tells."""
    values = graph.values(node.input(1))
    if values is not None and values.size == 1 and values.dtype.kind == "i":
        return int(values.reshape(()))
    if k := node.attribute("k", 0):  # before opset 10
        return k
    shape, axis = graph.shape(node.outputs[0]) if node.outputs else None, node.attribute("axis", -1)
    return shape[axis] if shape and -len(shape) <= axis < len(shape) else None


def _large_k(graph: CheckedGraph, node: Node) -> str:
    k = _k_of(graph, node) or 0
    return str(k) if k > _LARGEST_K else ""


def _computed_k(graph: CheckedGraph, node: Node) -> str:
    return "" if graph.is_fixed(node.input(1)) else node.input(1)


def _reduction(graph: CheckedGraph, node: Node) -> str:
    """Return how a Scatter combines values, nothing where it writes them."""
    mode = node.attribute("reduction", "none")
    return "" if mode == "none" else mode


def _more_indices_than_data(graph: CheckedGraph, node: Node) -> str:
    data, indices = graph.shape(node.input(0)), graph.shape(node.input(1))
    if _reduction(graph, node) or not data or not indices:
        return ""
    more = any(at and size and at > size for at, size in zip(indices, data, strict=False))
    return f"{sizes(indices)} indices for {sizes(data)} values" if more else ""


def _unlike_cumulative_sums(graph: CheckedGraph) -> Iterator[Match]:
    sums: dict[tuple[object, ...], Node] = {}
    for node in graph.of("CumSum"):
        axis = graph.values(node.input(1))
        how = node.attribute("reverse", 0), node.attribute("exclusive", 0)
        kind = (None if axis is None else tuple(np.ravel(axis)), *how)
        sums.setdefault(kind, node)
    if len(sums) > 1:
        yield from map(Match.at, sums.values())


OPERATOR_FINDERS: dict[str, Finder] = {
    "operator-unknown": _by_version(lambda version, node: not _reads(version, node), foreign=False),
    "operator-foreign": _by_version(lambda version, node: not _knows(version, node), foreign=True),
    "operator-namesake": _by_version(_reads, foreign=True),
    "resize-antialias": nodes_of("Resize", where=lambda graph, node: node.attribute("antialias", 0)),
    "resize-coordinates": nodes_of("Resize", where=_transformation),
    "resize-aspect": nodes_of(
        "Resize", where=lambda graph, node: node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch"
    ),
    "pad-wrap": nodes_of("Pad", where=lambda graph, node: node.attribute("mode", "constant") == "wrap"),
    "further-outputs": nodes_of("LayerNormalization", "MaxPool", "BatchNormalization", where=_further_outputs),
    "maxpool-indices": nodes_of("MaxPool", where=_further_outputs),
    "pool-dilations": nodes_of("MaxPool", "AveragePool", "LpPool", where=_is_dilated),
    "training": nodes_of("BatchNormalization", "Dropout", where=_trains),
    "group-norm-21": nodes_of("GroupNormalization", where=lambda graph, node: graph.opset >= 21),
    "grid-sample-3d": nodes_of("GridSample", where=lambda graph, node: _rank(graph, node.input(0)) > 4),
    "einsum": nodes_of("Einsum", where=_einsum_beyond_letters),
    "mod-float": nodes_of("Mod", where=_is_float_remainder),
    "attention-extras": nodes_of("Attention", where=_attention_extras),
    "attention-float32": nodes_of("Attention", where=_is_float32_attention),
    "topk-k": nodes_of("TopK", where=_large_k),
    "topk-k-computed": nodes_of("TopK", where=_computed_k),
    "topk-unsorted": nodes_of("TopK", where=lambda graph, node: not node.attribute("sorted", 1)),
    "scatter-elements-reduction": nodes_of("ScatterElements", where=_reduction),
    "scatter-nd-reduction": nodes_of("ScatterND", where=_reduction),
    "scatter-nd-none": nodes_of("ScatterND", where=lambda graph, node: node.attribute("reduction", "") == "none"),
    "scatter-indices": nodes_of("ScatterElements", "Scatter", where=_more_indices_than_data),
    "counts-values": nodes_of("NonZero", "NonMaxSuppression"),
    "cumsum-slow": nodes_of("CumSum"),
    "cumsum-mixed": _unlike_cumulative_sums,
}
