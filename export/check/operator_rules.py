"""Rules on operators that a version's parser does not know, and on those of other domains."""

from __future__ import annotations

from collections.abc import Iterator

from sfpp.export.check.graph import CheckedGraph, Node
from sfpp.export.check.operator_table import MICROSOFT, MICROSOFTS_IN_RTX, OPERATORS_OF, REPLACEMENTS
from sfpp.export.check.rule import Match, Rule
from sfpp.export.check.versions import ALL, OPERATORS, TRIED, Version


def _without(operator: str) -> tuple[Version, ...]:
    """Return the versions whose parser does not know one of ONNX's operators."""
    return tuple(version for version in ALL if operator not in OPERATORS_OF[version])


def _knows(version: Version, node: Node) -> bool:
    """Tell whether a parser takes a node of another domain."""
    if version == "rtx" and node.domain == MICROSOFT and node.operator in MICROSOFTS_IN_RTX:
        return True
    return node.operator in OPERATORS_OF[version]


def _unknown(graph: CheckedGraph) -> Iterator[Match]:
    for node in graph.nodes:
        if not node.domain and (versions := _without(node.operator)):
            yield Match.at(node, versions=versions, remedy=REPLACEMENTS.get(node.operator, ""))


def _foreign(graph: CheckedGraph) -> Iterator[Match]:
    for node in graph.nodes:
        if node.domain and (versions := tuple(each for each in ALL if not _knows(each, node))):
            yield Match.at(node, node.domain, versions=versions)


def _namesakes(graph: CheckedGraph) -> Iterator[Match]:
    for node in graph.nodes:
        if node.domain and (versions := tuple(each for each in ALL if node.operator in OPERATORS_OF[each])):
            yield Match.at(node, node.domain, versions=versions)


OPERATOR_RULES = (
    Rule(
        "operator-unknown",
        "refused",
        ALL,
        _unknown,
        "the parser does not know the operator {operator}",
        "write the node in operators that the version knows, or run the model in ONNX Runtime",
        f"{OPERATORS} (8.5, 10.6, 10.12, 11.0); {TRIED}",
    ),
    Rule(
        "operator-foreign",
        "refused",
        ALL,
        _foreign,
        "{operator} is no operator of ONNX but of {detail}, and builds only where a plugin of that name is loaded",
        "export with --target tensorrt, or load the plugin when building",
        f"{OPERATORS}; {TRIED}",
    ),
    Rule(
        "operator-namesake",
        "doubtful",
        ALL,
        _namesakes,
        "{operator} is an operator of {detail}, and TensorRT goes by the name alone: it reads ONNX's own operator",
        "make sure that both compute the same, or export the model in ONNX's own operators",
        TRIED,
    ),
)
