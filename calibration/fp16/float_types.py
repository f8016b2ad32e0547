"""Which nodes of a graph compute in float16: the one decision that both its writer and its simulation obey."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sfpp.calibration.fp16.float_graph import FloatGraph
from sfpp.calibration.fp16.float_operators import (
    FLOAT32_OPERATORS,
    REARRANGING,
    float16_positions,
    gelus,
    long_merges,
    norms,
    pixel_normalization,
    similarities,
    writes_float16,
)
from sfpp.runtime.errors import UsageError, did_you_mean

FLOAT16_MAX = float(np.finfo(np.float16).max)
# A sum over more than this is taken in float32; local merging adds up 9 and 16 values.
_LONGEST_SUM = 256
_OPSET_OF_FLOAT16_SCALES = 19
# Where a constant that stands alone is a number of its own, such as a guard or a limit.
_ELEMENTWISE = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Max", "Min", "Clip", "Where"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    }
)
_DENOMINATORS = frozenset({("Div", 1), ("Mod", 1), ("BatchNormalization", 4)})

# What a node is to its neighbors. ``computing``: has a type by itself; ``moving``: takes that of its neighbors;
# ``source``: makes floats of other values, in its readers' type; ``reader``: makes no floats; ``float32``: knows no
# other type.
_Role = Literal["computing", "moving", "source", "reader", "float32"]


@dataclass(frozen=True)
class FloatTypes:
    """The decision: nodes by their position.

    Attributes:
        float16: those that read and write float16; all others do as in the float32 graph.
        computing: those of them that compute, and so round.
    """

    float16: frozenset[int]
    computing: frozenset[int]

    def is_float16(self, graph: FloatGraph, name: str) -> bool:
        """Tell whether a tensor between nodes is written as float16."""
        return graph.is_float32(name) and graph.writer.get(name) in self.float16


def float_types(graph: FloatGraph, keep: Collection[str] = ()) -> FloatTypes:
    """Choose float16 for every node that may have it, bears it, and is not named in ``keep``.

    What only moves values follows its neighbors, so that there are few casts: those to float16 as early as nobody needs
    more, those to float32 as late as possible.

    Raises:
        UsageError: ``keep`` names a node that is not in the graph, or there are Q/DQ pairs below opset 19.
    """
    _check_quantization(graph)
    kept = _kept(graph, keep)
    roles = {index: _role(graph, index) for index in range(len(graph.nodes)) if index not in kept}
    computing = frozenset(index for index, role in roles.items() if role == "computing")
    wanted = _wanted(graph, roles)
    chosen = set(computing)
    for index, role in roles.items():
        sources = [graph.writer.get(name) in chosen for name in _variable_floats(graph, index)]
        if role in ("moving", "source", "reader") and (wanted[index] or (sources and all(sources))):
            chosen.add(index)
    return FloatTypes(frozenset(chosen), computing)


def rounded_to_float16(values: NDArray[Any]) -> NDArray[np.float16]:
    """Return values in float16, infinite beyond its range."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def _role(graph: FloatGraph, index: int) -> _Role:
    node = graph.nodes[index]
    if not any(True for _ in graph.float_outputs(index)):
        return "reader"
    if node.op_type == "Cast":
        return "moving" if graph.is_float32(node.input[0]) else "source"
    if not writes_float16(graph, index):
        return "float32"
    if node.op_type == "DequantizeLinear":
        return "source"
    return "moving" if node.op_type in REARRANGING else "computing"


def _wanted(graph: FloatGraph, roles: dict[int, _Role]) -> dict[int, bool]:
    """Tell for each node whether it, or all that read what it moves, compute in float16.

    Where both are wanted float32 is handed on: the cast comes later, and no digit is lost on the way to those that need
    it.
    """
    wanted = dict.fromkeys(range(len(graph.nodes)), False)
    for index in reversed(range(len(graph.nodes))):
        role = roles.get(index)
        if role in ("moving", "source"):
            # What makes no floats takes either type.
            opinions = [
                wanted[reader] and position in float16_positions(graph, reader)
                for reader, position in graph.readers_of(index)
                if graph.is_float32(graph.nodes[reader].input[position]) and roles.get(reader) != "reader"
            ]
            is_output = not graph.outputs.isdisjoint(graph.nodes[index].output)
            wanted[index] = any(opinions) and all(opinions) and not is_output
        else:
            wanted[index] = role == "computing"
    return wanted


def _kept(graph: FloatGraph, keep: Collection[str]) -> set[int]:
    """Return all nodes that stay float32: asked for, fixed, unable to hold their constants, or chained to such."""
    names = {graph.name(index) for index in range(len(graph.nodes))}
    if unknown := sorted(set(keep) - names):
        raise UsageError(
            f"keep names {unknown[0]!r}, which is no node of the graph{did_you_mean(unknown[0], names)}; give nodes of "
            "the float32 model"
        )
    kept = norms(graph) | pixel_normalization(graph) | similarities(graph) | long_merges(graph)
    kept |= {
        index
        for index in range(len(graph.nodes))
        if graph.name(index) in keep or _is_fixed(graph, index) or _loses_constant(graph, index)
    }
    for group in gelus(graph):
        if group & kept:
            kept |= group
    return kept


def _is_fixed(graph: FloatGraph, index: int) -> bool:
    node = graph.nodes[index]
    if node.op_type != "ReduceSum":
        return node.op_type in FLOAT32_OPERATORS
    summands, sums = (np.prod(graph.shape(name)) for name in (node.input[0], node.output[0]))
    return bool(summands > _LONGEST_SUM * sums or not summands)  # of no size: of one that is not known


def _loses_constant(graph: FloatGraph, index: int) -> bool:
    """Tell whether a constant of the node means something else, or nothing, in float16."""
    node = graph.nodes[index]
    if node.op_type == "DequantizeLinear":  # its scales are checked when they are written
        return False
    for position in float16_positions(graph, index):
        values = graph.constant(node.input[position])
        if values is not None and _is_lost(values, node.op_type, position):
            return True
    return False


def _is_lost(values: NDArray[Any], op: str, position: int) -> bool:
    rounded = rounded_to_float16(values).astype(np.float32)
    if not np.isfinite(rounded).all():
        return True
    if (op, position) in _DENOMINATORS and np.any((rounded == 0) & (values != 0)):
        return True
    # Tiny entries of a matrix vanish beside its large ones. A number that stands alone, a guard of 1e-5, does not.
    alone = values.size == 1 and op in _ELEMENTWISE
    return alone and not np.allclose(rounded, values, rtol=2**-10, atol=0)


def _variable_floats(graph: FloatGraph, index: int) -> list[str]:
    names = (graph.nodes[index].input[position] for position in float16_positions(graph, index))
    return [name for name in names if name not in graph.constants]


def _check_quantization(graph: FloatGraph) -> None:
    opset = graph.opset()
    for index, node in enumerate(graph.nodes):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and opset < _OPSET_OF_FLOAT16_SCALES:
            raise UsageError(
                f"the graph is quantized ({node.op_type} {graph.name(index)!r}) and has opset {opset}, where INT8 goes "
                f"with float32 only; for INT8 with FP16 export the model with --opset {_OPSET_OF_FLOAT16_SCALES}"
            )
