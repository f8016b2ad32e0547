"""The check: every rule over a file's graph, and a verdict for each version."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from onnx import TensorProto

from sfpp.export.check.file_rules import FILE_FINDERS
from sfpp.export.check.findings import ALL, RULES, CheckReport, Finding, Verdict, Version
from sfpp.export.check.graph import CheckedGraph, is_external, location_of
from sfpp.export.check.operator_rules import OPERATOR_FINDERS
from sfpp.export.check.quantization_rules import QUANTIZATION_FINDERS
from sfpp.export.check.reading import read_graph, stored_tensors
from sfpp.export.check.type_rules import TYPE_FINDERS
from sfpp.runtime.contract import METADATA_KEY, ModelContract, contract_from_metadata
from sfpp.runtime.errors import ContractError, UsageError, did_you_mean

FINDERS = {**FILE_FINDERS, **OPERATOR_FINDERS, **QUANTIZATION_FINDERS, **TYPE_FINDERS}
_FLOATS = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}


def check_model(path: str | os.PathLike[str], *, versions: Sequence[Version] = ALL) -> CheckReport:
    """Tell from an ONNX file whether TensorRT builds it and runs it well, without building.

    Args:
        path: any ONNX file: one of sfpp's, or one from elsewhere with operators of its own and open sizes.
        versions: which to judge: numbers of TensorRT such as ``10.3``, and ``rtx`` (TensorRT-RTX).

    Raises:
        UsageError: a version that there is no rule for.
        ModelFileError: no such file, or not a valid ONNX model.
    """
    asked = tuple(dict.fromkeys(versions))
    for version in asked:
        if version not in ALL:
            raise UsageError(f"version is {version!r}, expected one of {', '.join(ALL)}{did_you_mean(version, ALL)}")
    graph, metadata = read_graph(path)
    contract, contract_note = _contract(metadata, graph.file.name)
    findings = tuple(sorted(_findings(graph, asked), key=lambda each: each.severity != "error"))
    return CheckReport(
        model=graph.file,
        size_bytes=graph.file.stat().st_size,
        opset=graph.opset,
        nodes=len(graph.nodes),
        precision=_precision(graph),
        contract=contract,
        verdicts=tuple(
            Verdict(version, tuple(each for each in findings if version in each.versions)) for version in asked
        ),
        findings=findings,
        notes=(*graph.notes, *contract_note, *_notes(graph)),
    )


def _findings(graph: CheckedGraph, asked: tuple[Version, ...]) -> Iterator[Finding]:
    for rule in RULES:
        findings = map(rule.finding, FINDERS[rule.rule](graph))
        yield from (each for each in findings if set(each.versions) & set(asked))


def _contract(metadata: dict[str, str], name: str) -> tuple[ModelContract | None, list[str]]:
    """Return what the file says about itself, and a note if it says something that cannot be read."""
    if METADATA_KEY not in metadata:
        return None, []
    try:
        return contract_from_metadata(metadata, origin=name, instead=""), []
    except ContractError as error:
        return None, [str(error)]


def _precision(graph: CheckedGraph) -> str:
    """Return the floating point types of what is computed, and int8 where products are marked for it."""
    present = {graph.type(name) for node in graph.nodes for name in node.outputs}
    names = [name for number, name in _FLOATS.items() if number in present]
    names += ["int8"] * any(True for _ in graph.of("QuantizeLinear", "DequantizeLinear"))
    return " and ".join(names) or "no floating point"


def _notes(graph: CheckedGraph) -> Iterator[str]:
    if _precision(graph) == "float32":
        yield (
            "everything is float32 in the file, and TensorRT 11 and TensorRT-RTX build what the file says: float16 and "
            "INT8 have to be written into it before"
        )
    if external := {location_of(tensor) for tensor in stored_tensors(graph.model) if is_external(tensor)} - {""}:
        yield (
            f"weights lie in {', '.join(sorted(external)[:3])}: keep it beside the model, and let the parser open the "
            "file by its path"
        )
