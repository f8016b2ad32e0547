"""The versions of TensorRT, the rules about them, and what a check found.

The facts of ``runtime/tensorrt`` say what is known of each version before any file is looked at, and ``rules.json``
what is wrong with a file, what to do, and where that is known from; how each rule is found in a graph is Python, by the
rule's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from sfpp.export.check.graph import CheckedGraph, Node
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.tensorrt.facts import facts

Effect = Literal["refused", "wrong", "doubtful"]
Outcome = Literal["builds", "builds, with warnings", "builds, but gives wrong results", "does not build"]
Version = Literal["8.6", "10.3", "10.13", "10.16", "11", "11.5", "rtx"]
ALL: tuple[Version, ...] = get_args(Version)
NATIVE = tuple(version for version in ALL if version not in ("8.6", "rtx"))  # TensorRT from 10 on


@dataclass(frozen=True)
class Match:
    """A place where a rule applies.

    ``detail`` goes into the sentence of the rule; ``versions`` take the place of the rule's own where they differ from
    place to place.
    """

    name: str = ""
    operator: str = ""
    detail: str = ""
    versions: tuple[Version, ...] | None = None

    @staticmethod
    def at(node: Node, detail: str = "", *, versions: tuple[Version, ...] | None = None) -> Match:
        """Return a match that is a node."""
        return Match(node.name, node.operator, detail, versions)


Finder = Callable[[CheckedGraph], Iterator[Match]]


def nodes_of(
    *operators: str,
    where: Callable[[CheckedGraph, Node], object] = lambda graph, node: True,
    any_domain: bool = False,
) -> Finder:
    """Return what finds the nodes of some operators for which something holds; a text it gives is the detail."""

    def find(graph: CheckedGraph) -> Iterator[Match]:
        for node in graph.of(*operators, any_domain=any_domain):
            if found := where(graph, node):
                yield Match.at(node, found if isinstance(found, str) else "")

    return find


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        rule: names it in a report; several rules have the same name where versions differ in what they do.
        effect: ``refused`` by parser or builder, ``wrong`` answers, or ``doubtful``: slow, imprecise, or wrong in some
            cases.
        versions: where it applies.
        problem: one sentence, with ``{operator}`` and ``{detail}`` of the place.
        remedy: one sentence.
        source: a page of documentation, or that it was tried.
        remedies: another sentence by operator.
    """

    rule: str
    effect: Effect
    versions: tuple[Version, ...]
    problem: str
    remedy: str
    source: str
    remedies: Mapping[str, str] = field(default_factory=dict)

    def finding(self, match: Match) -> Finding:
        """Say what is wrong in a place."""
        return Finding(
            self.rule,
            self.effect,
            self.versions if match.versions is None else match.versions,
            self.problem.format(operator=match.operator, detail=match.detail),
            self.remedies.get(match.operator, self.remedy),
            self.source,
            name=match.name,
            operator=match.operator,
        )


@dataclass(frozen=True)
class Finding(Rule):
    """What a rule says of one place.

    Attributes:
        name: of the node or the tensor; empty where the whole file is meant.
        operator: of the node; empty for a tensor and for the file.
    """

    name: str = ""
    operator: str = ""

    @property
    def severity(self) -> Literal["error", "warning"]:
        """``error`` if the file does not build or gives wrong results, else ``warning``."""
        return "warning" if self.effect == "doubtful" else "error"


@dataclass(frozen=True)
class Verdict:
    """What is to be expected of one version, and the findings that say so."""

    version: Version
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst that the findings say."""
        effects = {each.effect for each in self.findings}
        if "refused" in effects:
            return "does not build"
        if "wrong" in effects:
            return "builds, but gives wrong results"
        return "builds, with warnings" if effects else "builds"

    @property
    def fails(self) -> bool:
        """Whether it does not build, or gives wrong results."""
        return any(each.severity == "error" for each in self.findings)


@dataclass(frozen=True)
class CheckReport:
    """Everything that was found.

    Attributes:
        model: the file.
        size_bytes: of the file, without weights that lie beside it.
        opset: version of ONNX's own operators.
        nodes: how many there are, those of graphs within the graph included.
        precision: of the arithmetic in the graph: ``float32``, ``float16``, ``float32 and float16``, with ``int8``
            where it has Q/DQ pairs.
        contract: what the file says about itself; None for a file from elsewhere.
        verdicts: one for each version asked for.
        findings: errors first, in the order of the rules.
        notes: what else the reader should know.
    """

    model: Path
    size_bytes: int
    opset: int
    nodes: int
    precision: str
    contract: ModelContract | None
    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    def verdict(self, version: Version) -> Verdict:
        """Return the verdict of a version; KeyError if it was not asked for."""
        return {each.version: each for each in self.verdicts}[version]


@dataclass(frozen=True)
class Release:
    """What is known of a version before any file is looked at.

    Attributes:
        title: as people call it.
        home: what it comes with.
        lowest_opset: from here on its parser is promised to read a file.
        highest_opset: the last one that its operators are documented for; None where files of every opset that there
            is were built.
        types: that its parser knows, by ONNX's names.
        unsure_types: that the version has, and of which nobody knows whether its parser does.
        operators: that its parser knows, of ONNX's own.
        microsofts: that it knows of ONNX Runtime's.
    """

    title: str
    home: str
    lowest_opset: int
    highest_opset: int | None
    types: frozenset[str]
    unsure_types: frozenset[str]
    operators: frozenset[str]
    microsofts: frozenset[str]


def _rules() -> Any:
    return json.loads(Path(__file__).with_name("rules.json").read_text(encoding="utf-8"))


def _releases() -> dict[Version, Release]:
    """Return what is known of each version; types and operators are listed with the version that brought them."""
    releases: dict[Version, Release] = {}
    types, operators = frozenset[str](), frozenset[str]()
    for version, known in facts()["tensorrt"].items():
        words = {name: frozenset(text.split()) for name, text in known.items() if isinstance(text, str)}
        types |= words["new_types"]
        operators = operators - words.get("lacks", frozenset()) | words["new_operators"]
        releases[version] = Release(
            known["title"],
            known["home"],
            known["lowest_opset"],
            known["highest_opset"],
            types,
            words.get("unsure_types", frozenset()),
            operators,
            words.get("com.microsoft", frozenset()),
        )
    return releases


# A version stands for its releases from the named one on, so the lowest of their promises counts.
RELEASES = _releases()
RULES = tuple(Rule(**{**each, "versions": tuple(each["versions"].split())}) for each in _rules())


def titles(versions: tuple[Version, ...]) -> str:
    """Return versions as a reader takes them in: ``TensorRT 10.3, 10.13 and TensorRT-RTX``."""
    numbered = [RELEASES[each].title.removeprefix("TensorRT ") for each in versions if each != "rtx"]
    words = [f"TensorRT {', '.join(numbered)}"] * bool(numbered) + [RELEASES["rtx"].title] * ("rtx" in versions)
    return " and ".join(words)
