"""A rule: what to look for in a graph, what it means for which versions, and where that is known from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from sfpp.export.check.graph import CheckedGraph, Node
from sfpp.export.check.report import Finding
from sfpp.export.check.versions import Version

Effect = Literal["refused", "wrong", "doubtful"]


@dataclass(frozen=True)
class Match:
    """A place where a rule applies.

    ``detail`` goes into the sentence of the rule; ``versions`` and ``remedy`` take the place of the rule's own where
    they differ from place to place.
    """

    name: str = ""
    operator: str = ""
    detail: str = ""
    versions: tuple[Version, ...] | None = None
    remedy: str = ""

    @staticmethod
    def at(node: Node, detail: str = "", *, versions: tuple[Version, ...] | None = None, remedy: str = "") -> Match:
        """Return a match that is a node."""
        return Match(node.name, node.operator, detail, versions, remedy)


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        name: names the rule in a report.
        effect: ``refused`` by parser or builder, ``wrong`` answers, or ``doubtful``: slow, imprecise, or wrong in some
            cases.
        versions: where it applies.
        find: returns the places.
        problem: one sentence, with ``{operator}`` and ``{detail}`` of the place.
        remedy: one sentence.
        source: a page of documentation, or that it was tried.
    """

    name: str
    effect: Effect
    versions: tuple[Version, ...]
    find: Callable[[CheckedGraph], Iterator[Match]]
    problem: str
    remedy: str
    source: str

    def findings(self, graph: CheckedGraph) -> Iterator[Finding]:
        """Apply the rule to a graph."""
        for match in self.find(graph):
            yield Finding(
                rule=self.name,
                severity="warning" if self.effect == "doubtful" else "error",
                builds=self.effect != "refused",
                versions=self.versions if match.versions is None else match.versions,
                name=match.name,
                operator=match.operator,
                problem=self.problem.format(operator=match.operator, detail=match.detail),
                remedy=match.remedy or self.remedy,
                source=self.source,
            )
