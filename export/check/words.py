"""A report as text, for a terminal."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence

from sfpp.export.catalog import export_command
from sfpp.export.check.findings import RELEASES, CheckReport, Finding, Verdict, Version, titles
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.tensorrt.facts import facts
from sfpp.runtime.text import aligned, clean_text

_PLACES = 3  # that are named of one problem
_PROBLEMS = 8  # of one kind that are listed with the first place of each
_LONGEST_NAME = 100


def report_text(report: CheckReport, *, refused: bool = False) -> str:
    """Return the verdicts, then the findings by kind, and what to do next; ``refused``: a library did not take it."""
    lines = [*_head(report), "", *_table(report.verdicts)]
    for group in _groups(report.findings):
        lines += ["", *_group_lines(group)]
    lines += [""] * bool(report.notes) + [f"note: {note}" for note in report.notes]
    # Names of nodes and files may hold codes that command a terminal.
    return "\n".join(clean_text(line) for line in [*lines, "", f"next: {next_step(report, refused=refused)}"])


def next_step(report: CheckReport, *, refused: bool = False) -> str:
    """Return the command or the act that brings the file on; ``refused``: a library that was asked did not take it."""
    model, contract = shlex.quote(str(report.model)), report.contract
    failing = {each.version for each in report.verdicts if each.fails}
    # 8.6 is the oldest, and often not the one that matters; what only it refuses is not worth another file.
    if failing - {"8.6"} or (failing and len(report.verdicts) == 1):
        if contract is None:
            return "change what is named above, and check the file again"
        return f"{_made_anew(report, contract, failing)}   (make it anew)"
    if refused:
        return "change what is named above, and check the file again"
    if contract is None:
        moved = facts()["trtexec"]
        before = f"before TensorRT {moved['moved_in']}: {moved['folder_before']}/trtexec"
        return f"trtexec --onnx={model} --saveEngine=model.engine   ({before})"
    if report.precision == "float32":
        return (
            f"sfpp-calibrate {model} --images FRAMES   (FP16 and INT8), then sfpp-engine with the file that it writes"
        )
    return f"sfpp-engine {model}"


def _made_anew(report: CheckReport, contract: ModelContract, failing: set[Version]) -> str:
    """Return the command that makes a file of this kind for the versions that do not take this one."""
    if report.precision != "float32":
        rest = " --rest fp32" * ("int8" in report.precision and "8.6" in failing)
        return f"sfpp-calibrate FLOAT32.onnx --images FRAMES{rest}"
    return export_command(contract, "--target tensorrt", "--opset 17", weights="FILE")


def _head(report: CheckReport) -> Iterator[str]:
    contract = report.contract
    kind = "no contract"
    if contract is not None:
        spec = contract.input
        kind = (
            f"{contract.family}-{contract.size} {contract.variant} {contract.precision}, "
            f"{spec.width}x{spec.height} (width x height), target {contract.target}"
        )
    yield f"{report.model.name}: {kind}"
    nodes = f"{report.nodes} node{'s' * (report.nodes != 1)}"
    yield f"  opset {report.opset}, {nodes}, {report.precision}, {report.size_bytes / 1e6:.1f} MB"


def _table(verdicts: Sequence[Verdict]) -> list[str]:
    releases = [(RELEASES[each.version], each) for each in verdicts]
    rows = [[release.title, release.home, f"{each.outcome}{_counts(each)}"] for release, each in releases]
    return aligned(rows, text_columns=3)


def _counts(verdict: Verdict) -> str:
    severities = Counter(each.severity for each in verdict.findings)
    parts = [f"{count} {name}{'s' * (count != 1)}" for name, count in sorted(severities.items())]
    return f" ({', '.join(parts)})" if parts else ""


def _groups(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Put findings together that say the same of different places."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for each in findings:
        groups.setdefault((each.rule, each.effect, each.versions, each.remedy), []).append(each)
    return list(groups.values())


def _group_lines(group: Sequence[Finding]) -> Iterator[str]:
    first = group[0]
    firsts = {each.problem: each for each in reversed(group)}
    effect = {"refused": "not built by ", "wrong": "wrong results in ", "doubtful": ""}[first.effect]
    yield f"{first.severity}: {effect}{titles(first.versions)}"
    if len(firsts) == 1:
        shown = list(group[:_PLACES])
        yield f"  {first.problem}"
        yield from (f"    at {_place(each)}" for each in shown if each.name)
    else:
        shown = [each for each in group if firsts[each.problem] is each][:_PROBLEMS]
        yield from (f"    {_place(each)}: {each.problem}" for each in shown)
    if len(group) > len(shown):
        yield f"    and {len(group) - len(shown)} more"
    yield f"  do: {first.remedy}"
    yield f"  known from: {first.source}"


def _place(finding: Finding) -> str:
    name = finding.name if len(finding.name) <= _LONGEST_NAME else f"{finding.name[:_LONGEST_NAME]}..."
    return f"{name} ({finding.operator})" if finding.operator else name
