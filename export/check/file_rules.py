"""Rules on the file as a whole, on inputs that a version reads only as constants, and on shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sfpp.export.check.findings import (
    ALL,
    CHANGELOG,
    FROM_10_3,
    OPERATORS,
    RELEASES,
    TENSORRT,
    TRIED,
    Match,
    Rule,
    Version,
)
from sfpp.export.check.graph import CheckedGraph, is_external
from sfpp.export.check.reading import external_problem, stored_tensors

_REDUCTIONS = tuple(
    f"Reduce{each}" for each in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
)
_MOST_DIMENSIONS = 8


def _opset_above(graph: CheckedGraph) -> Iterator[Match]:
    for version, release in RELEASES.items():
        if release.highest_opset is not None and graph.opset > release.highest_opset:
            yield Match(
                detail=f"{graph.opset}, and {release.title} is documented up to {release.highest_opset}",
                versions=(version,),
            )


def _opset_below(graph: CheckedGraph) -> Iterator[Match]:
    for version, release in RELEASES.items():
        if graph.opset < release.lowest_opset:
            yield Match(
                detail=f"{graph.opset}, and {release.title} promises to read {release.lowest_opset} and later",
                versions=(version,),
            )


def _function_calls(graph: CheckedGraph) -> Iterator[Match]:
    return map(Match.at, graph.function_calls)


def _lost_weights(graph: CheckedGraph) -> Iterator[Match]:
    for tensor in stored_tensors(graph.model):
        if is_external(tensor) and (problem := external_problem(tensor, graph.file.parent)):
            yield Match(str(tensor.name), detail=problem)


FILE_RULES = (
    Rule(
        "weights-missing",
        "refused",
        ALL,
        _lost_weights,
        "its values are in {detail}",
        "put the file with the weights beside the model, or export the model again into one file",
        "ONNX docs/ExternalData.md",
    ),
    Rule(
        "local-function",
        "refused",
        ("8.6",),
        _function_calls,
        "{operator} is a function that the file brings along, and TensorRT reads those from 9.0 on",
        "write the functions out: onnx.inliner.inline_local_functions(model)",
        f"{CHANGELOG} (9.0)",
    ),
    Rule(
        "opset-above",
        "doubtful",
        ALL,
        _opset_above,
        "the file has opset {detail}: a node whose definition has changed since is read by the older one",
        "export with --opset 17, which suits every version from 8.6 on",
        f"{OPERATORS} (8.6, 10.0, 10.12, 11.0)",
    ),
    Rule(
        "opset-below",
        "doubtful",
        ALL,
        _opset_below,
        "the file has opset {detail}",
        "export with opset 17, or raise it: onnx.version_converter.convert_version(model, 17)",
        f"{OPERATORS}; {TRIED}",
    ),
)


@dataclass(frozen=True)
class _ConstantInput:
    """An input that some versions take only if it is known when the engine is built."""

    operators: tuple[str, ...]
    position: int
    what: str
    versions: tuple[Version, ...]


_CONSTANT_INPUTS = (
    _ConstantInput(("QuantizeLinear", "DequantizeLinear"), 1, "scale", TENSORRT),
    _ConstantInput(_REDUCTIONS, 1, "axes", FROM_10_3),
    _ConstantInput(("CumSum",), 1, "axis", ALL),
    _ConstantInput(("Unsqueeze", "Squeeze"), 1, "axes", ALL),
    _ConstantInput(("Slice",), 3, "axes", ("8.6",)),
    _ConstantInput(("Pad",), 3, "axes", ("10.3",)),
    _ConstantInput(("OneHot",), 1, "depth", ("10.3", "10.13", "11")),
)


def _computed_inputs(graph: CheckedGraph) -> Iterator[Match]:
    for each in _CONSTANT_INPUTS:
        for node in graph.of(*each.operators):
            if (name := node.input(each.position)) and not graph.is_fixed(name):
                yield Match.at(node, each.what, versions=each.versions)


def _axes_as_input(graph: CheckedGraph) -> Iterator[Match]:
    # ReduceSum has had them as an input since opset 13, which TensorRT 8.6 knows.
    return (Match.at(node) for node in graph.of(*_REDUCTIONS) if node.input(1) and node.operator != "ReduceSum")


INPUT_RULES = (
    Rule(
        "computed-input",
        "refused",
        ALL,
        _computed_inputs,
        "its {detail} must be known when the engine is built, and is computed while it runs",
        "make it a constant; folding constants first often does (polygraphy surgeon sanitize --fold-constants)",
        f"{OPERATORS} (8.5 to 11.0); NVIDIA's operators documentation, Quantize; {TRIED}",
    ),
    Rule(
        "reduce-axes",
        "wrong",
        ("8.6",),
        _axes_as_input,
        "it has its axes as an input (opset 18), which TensorRT 8.6 overlooks: it reduces along all of them",
        "export with --opset 17, where the axes are an attribute",
        "NVIDIA/TensorRT#3467",
    ),
)


def _open_inputs(graph: CheckedGraph) -> Iterator[Match]:
    for name in graph.inputs:
        shape = graph.shape(name)
        if shape is None:
            yield Match(name, detail="unknown")
        elif None in shape:
            yield Match(name, detail=" x ".join("?" if size is None else str(size) for size in shape))


def _empty_ends(graph: CheckedGraph) -> Iterator[Match]:
    for name in [*graph.inputs, *graph.outputs]:
        if 0 in (shape := graph.shape(name) or ()):
            yield Match(name, detail=" x ".join("?" if size is None else str(size) for size in shape))


def _many_dimensions(graph: CheckedGraph) -> Iterator[Match]:
    for name in graph.inputs:
        if (rank := len(graph.shape(name) or ())) > _MOST_DIMENSIONS:
            yield Match(name, detail=str(rank))
    for node in graph.nodes:
        if (rank := max((len(graph.shape(name) or ()) for name in node.outputs), default=0)) > _MOST_DIMENSIONS:
            yield Match.at(node, str(rank))


def _control_flow(graph: CheckedGraph) -> Iterator[Match]:
    return map(Match.at, graph.of("If", "Loop", "Scan"))


SHAPE_RULES = (
    Rule(
        "dimensions",
        "refused",
        ALL,
        _many_dimensions,
        f"it has {{detail}} dimensions, and TensorRT at most {_MOST_DIMENSIONS}",
        "join dimensions before, and split them after",
        f"NvInferRuntime.h, Dims::MAX_DIMS; {TRIED}",
    ),
    Rule(
        "dynamic-shape",
        "doubtful",
        ALL,
        _open_inputs,
        "its size is open ({detail}), so the build needs an optimization profile and is tuned for one size only",
        "export the model for one size (sfpp-export --res), or give a range for each input (trtexec --minShapes, "
        "--optShapes, --maxShapes)",
        f"NVIDIA's guide to dynamic shapes; {TRIED}",
    ),
    Rule(
        "empty-tensor",
        "doubtful",
        ALL,
        _empty_ends,
        "it holds nothing ({detail}): it builds, and there is nothing to give or to read",
        "remove it from the inputs and outputs of the graph",
        TRIED,
    ),
    Rule(
        "control-flow",
        "doubtful",
        ALL,
        _control_flow,
        "{operator} has a graph of its own, which nothing around it is fused with and whose shapes must not change",
        "export without control flow: fix what decides before, and unroll loops",
        f"{OPERATORS} (8.5 to 11.0); {TRIED}",
    ),
)
