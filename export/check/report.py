"""What a check found, in plain figures: as Python, and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sfpp.export.check.versions import Version
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.typed_json import json_ready

Severity = Literal["error", "warning"]
Outcome = Literal["builds", "builds, with warnings", "builds, but answers wrongly", "does not build"]


@dataclass(frozen=True)
class Finding:
    """One thing in one place.

    Attributes:
        rule: which rule found it; equal for all findings of the same kind.
        severity: ``error`` if the file does not build or answers wrongly, ``warning`` if it is slow, imprecise, or
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
            outcome = "builds, but answers wrongly" if all(each.builds for each in errors) else "does not build"
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
