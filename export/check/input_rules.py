"""Rules on inputs that a version reads only as constants, or does not read at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sfpp.export.check.graph import CheckedGraph
from sfpp.export.check.rule import Match, Rule
from sfpp.export.check.versions import ALL, FROM_10_3, OPERATORS, TENSORRT, TRIED, Version

_REDUCTIONS = tuple(
    f"Reduce{each}" for each in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
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
