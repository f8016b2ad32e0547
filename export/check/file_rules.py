"""Rules on the file as a whole: its opset, its local functions, weights that lie beside it."""

from __future__ import annotations

from collections.abc import Iterator

from sfpp.export.check.graph import CheckedGraph, is_external
from sfpp.export.check.reading import external_problem, stored_tensors
from sfpp.export.check.rule import Match, Rule
from sfpp.export.check.versions import ALL, CHANGELOG, OPERATORS, RELEASES, TRIED


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
