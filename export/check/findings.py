"""The versions of TensorRT, the rules about them, and what a check found: as Python, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sfpp.export.check.graph import CheckedGraph, Node
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.typed_json import json_ready

Effect = Literal["refused", "wrong", "doubtful"]
Severity = Literal["error", "warning"]
Outcome = Literal["builds", "builds, with warnings", "builds, but gives wrong results", "does not build"]
Version = Literal["8.6", "10.3", "10.13", "11", "rtx"]
ALL: tuple[Version, ...] = get_args(Version)
FROM_10_3: tuple[Version, ...] = ("10.3", "10.13", "11", "rtx")
TENSORRT: tuple[Version, ...] = ("8.6", "10.3", "10.13", "11")
TRIED = "tried with TensorRT-RTX 1.7"
OPERATORS = "onnx-tensorrt docs/operators.md"
CHANGELOG = "onnx-tensorrt docs/Changelog.md"


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


@dataclass(frozen=True)
class Finding:
    """One thing in one place.

    Attributes:
        rule: which rule found it; equal for all findings of the same kind.
        severity: ``error`` if the file does not build or gives wrong results, ``warning`` if it is slow, imprecise, or
            wrong only in some cases.
        builds: false if the parser or the builder refuses it.
        versions: where it applies.
        name: of the node or the tensor; empty where the whole file is meant.
        operator: of the node; empty for a tensor and for the file.
        problem: what is wrong, in one sentence.
        remedy: what to do, in one sentence.
        source: where it is known from: a page of documentation, or that it was tried.
    """

    rule: str
    severity: Severity
    builds: bool
    versions: tuple[Version, ...]
    name: str
    operator: str
    problem: str
    remedy: str
    source: str


@dataclass(frozen=True)
class Verdict:
    """What is to be expected of one version, and the findings that say so."""

    version: Version
    outcome: Outcome
    findings: tuple[Finding, ...] = ()

    @staticmethod
    def of(version: Version, findings: tuple[Finding, ...]) -> Verdict:
        """Judge by the findings that apply to a version."""
        own = tuple(each for each in findings if version in each.versions)
        errors = [each for each in own if each.severity == "error"]
        outcome: Outcome = "builds, with warnings" if own else "builds"
        if errors:
            outcome = "builds, but gives wrong results" if all(each.builds for each in errors) else "does not build"
        return Verdict(version, outcome, own)


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

    def to_json(self) -> str:
        """Return the report; a verdict names its findings by their position in the list of all."""
        place = {id(each): position for position, each in enumerate(self.findings)}
        verdicts = [
            {**json_ready(each), "findings": [place[id(finding)] for finding in each.findings]}
            for each in self.verdicts
        ]
        return json.dumps({**json_ready(self), "verdicts": verdicts}, indent=1, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Release:
    """What is known of a version before any file is looked at.

    Attributes:
        title: as people call it.
        home: what it comes with.
        lowest_opset: from here on its parser is promised to read a file.
        highest_opset: the last one that its operators are documented for; None where files of every opset that there
            is were built.
    """

    title: str
    home: str
    lowest_opset: int
    highest_opset: int | None


# A version stands for its releases from the named one on, so the lowest of their promises counts: TensorRT 11.0 is
# documented for opset 24, and 11.5 for 25.
RELEASES: dict[Version, Release] = {
    "8.6": Release("TensorRT 8.6", "JetPack 6.0", 7, 17),
    "10.3": Release("TensorRT 10.3", "JetPack 6.1, 6.2", 9, 20),
    "10.13": Release("TensorRT 10.13", "JetPack 7.0, 7.1", 9, 23),
    "11": Release("TensorRT 11", "JetPack 7.2.2", 9, 24),
    "rtx": Release("TensorRT-RTX", "desktop RTX cards", 7, None),
}


def titles(versions: tuple[Version, ...]) -> str:
    """Return versions as a reader takes them in: ``TensorRT 10.3, 10.13 and TensorRT-RTX``."""
    numbered = [RELEASES[each].title.removeprefix("TensorRT ") for each in versions if each != "rtx"]
    words = [f"TensorRT {', '.join(numbered)}"] * bool(numbered) + [RELEASES["rtx"].title] * ("rtx" in versions)
    return " and ".join(words)
