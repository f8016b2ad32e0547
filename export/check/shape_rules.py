"""Rules on shapes: sizes that are not fixed, tensors that hold nothing or have too many dimensions, control flow."""

from __future__ import annotations

from collections.abc import Iterator

from sfpp.export.check.graph import CheckedGraph
from sfpp.export.check.rule import Match, Rule
from sfpp.export.check.versions import ALL, OPERATORS, TRIED

_MOST_DIMENSIONS = 8


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
