"""Rules on types that a version does not know or narrows, and on arithmetic beyond float16, which ends at 65504."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from sfpp.export.check.findings import ALL, CHANGELOG, FROM_10_3, OPERATORS, TRIED, Match, Rule, Version
from sfpp.export.check.graph import CheckedGraph, Node

# Every other type that ONNX has is known to no version.
_KNOWN: dict[int, tuple[Version, ...]] = {
    **dict.fromkeys(
        (
            TensorProto.FLOAT,
            TensorProto.FLOAT16,
            TensorProto.DOUBLE,
            TensorProto.INT8,
            TensorProto.INT32,
            TensorProto.INT64,
            TensorProto.UINT8,
            TensorProto.BOOL,
        ),
        ALL,
    ),
    **dict.fromkeys((TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.INT4), FROM_10_3),
    TensorProto.FLOAT4E2M1: ("10.13", "11", "rtx"),
    TensorProto.FLOAT8E8M0: ("rtx",),
}
_CASTS = {"Cast", "CastLike"}
_INT32 = np.iinfo(np.int32)
_HALF = TensorProto.FLOAT16


def type_name(number: int) -> str:
    """Return the name of a type as people write it."""
    try:
        return str(TensorProto.DataType.Name(number)).lower()
    except ValueError:
        return f"type {number}"


def _unknown(graph: CheckedGraph) -> Iterator[Match]:
    numbers = {int(each) for each in TensorProto.DataType.values()} - {TensorProto.UNDEFINED}
    partly_known = {number for number in numbers if _KNOWN.get(number) != ALL}
    for name, operator, number in graph.entering(partly_known):
        known = _KNOWN.get(number, ())
        yield Match(name, operator, type_name(number), tuple(each for each in ALL if each not in known))


def _doubles(graph: CheckedGraph) -> Iterator[Match]:
    return (Match(name, operator) for name, operator, _ in graph.entering({TensorProto.DOUBLE}))


def _float8(graph: CheckedGraph) -> Iterator[Match]:
    return (Match(name, operator) for name, operator, _ in graph.entering({TensorProto.FLOAT8E4M3FN}))


def _int64_inputs(graph: CheckedGraph) -> Iterator[Match]:
    return (Match(name, detail="input") for name in graph.inputs if graph.type(name) == TensorProto.INT64)


def _int64_outputs(graph: CheckedGraph) -> Iterator[Match]:
    return (Match(name, detail="output") for name in graph.outputs if graph.type(name) == TensorProto.INT64)


def _int64_ends(graph: CheckedGraph) -> Iterator[Match]:
    yield from _int64_inputs(graph)
    yield from _int64_outputs(graph)


def _beyond_int32(graph: CheckedGraph) -> Iterator[Match]:
    for name in graph.constants:
        if graph.type(name) != TensorProto.INT64 or (values := graph.values(name)) is None or not values.size:
            continue
        # The largest number stands for "to the end" in a Slice, and stays that when it is clamped.
        if any(node.operator != "Slice" for node in graph.readers(name)) and (
            values.min() < _INT32.min or values.max() > _INT32.max
        ):
            yield Match(name)


def _uint8_between(graph: CheckedGraph) -> Iterator[Match]:
    """Find what computes with uint8: it may be an input that is cast, or an output that was cast."""
    inputs, outputs = set(graph.inputs), set(graph.outputs)
    for node in graph.nodes:
        if node.operator in ("QuantizeLinear", "DequantizeLinear", "Constant", "Shape", "Size"):
            continue  # quantization has rules of its own
        through = node.operator == "Identity" and node.input(0) in inputs and outputs.issuperset(node.outputs)
        reads = [name for name in node.inputs if name in inputs and graph.type(name) == TensorProto.UINT8]
        writes = [name for name in node.outputs if graph.type(name) == TensorProto.UINT8]
        cast = node.operator in _CASTS
        if not through and ((reads and not cast) or any(name not in outputs or not cast for name in writes)):
            yield Match.at(node)


TYPE_RULES = (
    Rule(
        "type-unknown",
        "refused",
        ALL,
        _unknown,
        "it is {detail}, a type that TensorRT does not know here",
        "cast to a type that it knows before the model, or export without this part",
        f"{OPERATORS} (8.5 to 11.0), {CHANGELOG} (9.0, 10.0, 10.8); {TRIED}",
    ),
    Rule(
        "uint8-between",
        "refused",
        ALL,
        _uint8_between,
        "{operator} computes with uint8, which TensorRT has for inputs that are cast at once and outputs cast last",
        "cast the input to float before anything else, and to uint8 as the last step",
        f"{OPERATORS} (10.6 to 11.0); NVIDIA/TensorRT#3985; {TRIED}",
    ),
    Rule(
        "int64-end",
        "doubtful",
        ("8.6",),
        _int64_ends,
        "this {detail} is int64 in the file and becomes int32 in an engine of TensorRT 8.6, so buffers sized by the "
        "file do not fit",
        "cast labels to uint8 (sfpp-export --output labels) and other numbers to int32 within the graph",
        f"{CHANGELOG} (9.0)",
    ),
    Rule(
        "int64-output",
        "doubtful",
        FROM_10_3,
        _int64_outputs,
        "this output is int64: eight bytes for each value are written and copied where labels need one",
        "cast labels to uint8 (sfpp-export --output labels) and other numbers to int32 within the graph",
        f"{CHANGELOG} (9.0); {TRIED}",
    ),
    Rule(
        "int64-input",
        "doubtful",
        FROM_10_3,
        _int64_inputs,
        "this input is int64: eight bytes for each value are copied to the card",
        "make it int32, or uint8 for a picture",
        f"{CHANGELOG} (9.0); {TRIED}",
    ),
    Rule(
        "int64-clamped",
        "doubtful",
        ("8.6",),
        _beyond_int32,
        "it holds numbers beyond int32, to which TensorRT 8.6 clamps them",
        "keep constants within int32, or use TensorRT 10.3 or later",
        f"{OPERATORS} (8.5)",
    ),
    Rule(
        "double",
        "doubtful",
        ALL,
        _doubles,
        "it is double, which TensorRT narrows to float32",
        "export the model in float32",
        f"{OPERATORS} (8.5 to 11.0); {TRIED}",
    ),
    Rule(
        "float8",
        "doubtful",
        FROM_10_3,
        _float8,
        "it is float8, with which only cards of compute capability 8.9 and later multiply",
        "use INT8 or float16 for Orin and for older cards",
        f"NVIDIA's TensorRT-RTX guide to quantized types; {TRIED}",
    ),
)


def _norms_written_out(graph: CheckedGraph) -> Iterator[Match]:
    """Find means of float16 squares of which a root is taken: the variance of a layer norm, or an RMS norm's mean."""
    for node in graph.of("ReduceMean"):
        square = graph.writers.get(node.input(0))
        if square is None or graph.type(node.input(0)) != _HALF or not _is_square(graph, square):
            continue
        if any(_leads_to_root(graph, name) for name in node.outputs):
            yield Match.at(node, square.name)


def _is_square(graph: CheckedGraph, node: Node) -> bool:
    if node.operator == "Pow":
        exponent = graph.values(node.input(1))
        return exponent is not None and bool((exponent == 2).all())
    return node.operator == "Mul" and node.input(0) == node.input(1)


def _leads_to_root(graph: CheckedGraph, name: str) -> bool:
    """Tell whether a root of a tensor is taken, at once or after a small number is added."""
    readers = graph.readers(name)
    added = [each for node in readers if node.operator in ("Add", "Max") for each in node.outputs]
    after = [*readers, *(node for each in added for node in graph.readers(each))]
    return any(node.operator in ("Sqrt", "Pow") for node in after)


def _softmax_written_out(graph: CheckedGraph) -> Iterator[Match]:
    """Find float16 exponentials that are divided by their sum, of values from which no maximum was subtracted."""
    for node in graph.of("Exp"):
        result = node.outputs[0] if node.outputs else ""
        if graph.type(result) != _HALF:
            continue
        operators = {reader.operator for reader in graph.readers(result)}
        before = graph.writers.get(node.input(0))
        if {"ReduceSum", "Div"} <= operators and (before is None or before.operator != "Sub"):
            yield Match.at(node)


PRECISION_RULES = (
    Rule(
        "norm-float16",
        "doubtful",
        ALL,
        _norms_written_out,
        "a layer norm is written out in float16, known for wrong answers: the squares at {detail} pass 65504 as soon "
        "as a value passes 256",
        "export with --opset 17, where it is one LayerNormalization that is computed in float32, and convert with "
        "sfpp-calibrate, which keeps norms in float32",
        f"{TRIED} (its own warning); NVIDIA/TensorRT#2781, #3657",
    ),
    Rule(
        "softmax-float16",
        "doubtful",
        ALL,
        _softmax_written_out,
        "a softmax is written out in float16 without subtracting the maximum: exp passes 65504 at 11.1",
        "use the operator Softmax, or subtract the maximum before",
        "IEEE 754, binary16",
    ),
)
