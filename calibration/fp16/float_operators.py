"""Which ONNX operators take float16, and which chains of nodes must take it whole or not at all."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from sfpp.calibration.fp16.float_graph import FloatGraph

# These move, repeat or choose values and compute none, up to their sign.
REARRANGING = frozenset(
    {
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Expand", "Tile", "Dropout"),
        *("Slice", "Split", "Concat", "Gather", "GatherElements", "GatherND", "Compress", "ReverseSequence"),
        *("ScatterElements", "ScatterND", "DepthToSpace", "SpaceToDepth", "Pad", "Where", "TopK"),
        *("Relu", "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Abs", "Neg"),
    }
)
# Sums of many values and steep functions: the bits that they need cost little beside the products, which are the work.
FLOAT32_OPERATORS = frozenset(
    {
        *("LayerNormalization", "InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization"),
        *("LpNormalization", "RMSNormalization", "Softmax", "LogSoftmax", "Softplus", "Exp", "Log", "Pow", "Sqrt"),
        *("Reciprocal", "CumSum", "GlobalAveragePool", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2"),
        *("ReduceProd", "ReduceLogSum", "ReduceLogSumExp"),
    }
)
# Inputs that stay float32 whatever the data is, by operator and position.
_FLOAT32_INPUTS = frozenset({("Resize", 1), ("Resize", 2), ("Upsample", 1)})
# Operators of other domains that take float16 for all their float32 inputs and outputs.
_ELSEWHERE = frozenset({("com.microsoft", "MultiHeadAttention"), ("com.microsoft", "Gelu")})
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})
# What may stand between a root and the division by it: its inverse, a guard, a change of shape.
_INVERTING = frozenset({"Reciprocal", "Pow", "Div"})
_TO_DIVISION = frozenset(
    {"Reciprocal", "Clip", "Max", "Expand", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity"}
)
_CHOICES = frozenset({"TopK", "ArgMax"})
_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare"})
# From a square root up to what it is the length or the deviation of; a step that a chain lacks is passed over.
_ABOVE_ROOT = (
    frozenset({"Add", "Max", "Clip"}),
    _REDUCTIONS,
    frozenset({"Mul", "Pow"}),
    frozenset({"Sub"}),
    frozenset({"ReduceMean"}),
)
# Local merging adds up the 16 tokens of a cell at most; merging over the whole grid, as many as there are.
LONGEST_MERGE = 64


def float16_positions(graph: FloatGraph, index: int) -> tuple[int, ...]:
    """Return the positions of a node's float32 inputs that become float16 where the node does."""
    node = graph.nodes[index]
    signature = _signature_of(graph, node)
    return tuple(
        position
        for position, _ in graph.float_inputs(index)
        if (node.op_type, position) not in _FLOAT32_INPUTS and signature.takes_float16(position)
    )


def writes_float16(graph: FloatGraph, index: int) -> bool:
    """Tell whether all float32 outputs of a node become float16 where its inputs do."""
    node = graph.nodes[index]
    signature = _signature_of(graph, node)
    following = {signature.letter(position) for position in float16_positions(graph, index)}
    floats = (position for position, name in enumerate(node.output) if graph.is_float32(name))
    return all(signature.letter(position, output=True) in following for position in floats)


@dataclass(frozen=True)
class _Signature:
    """The types of an operator: a letter for each input and output, and which letters may stand for float16."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    float16: frozenset[str]

    def letter(self, position: int, *, output: bool = False) -> str:
        """Return the letter of an input or output; the last one stands for all that follow."""
        letters = self.outputs if output else self.inputs
        return letters[min(position, len(letters) - 1)] if letters else ""

    def takes_float16(self, position: int) -> bool:
        return self.letter(position) in self.float16


_UNKNOWN = _Signature((), ("?",), frozenset())


def _signature_of(graph: FloatGraph, node: onnx.NodeProto) -> _Signature:
    if (node.domain, node.op_type) in _ELSEWHERE:
        return _Signature(("T",), ("T",), frozenset({"T"}))
    return _signature(node.op_type, graph.opset(node.domain), node.domain.removeprefix("ai.onnx"))


@functools.cache
def _signature(op: str, opset: int, domain: str) -> _Signature:
    try:
        schema = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return _UNKNOWN
    float16 = (each.type_param_str for each in schema.type_constraints if "tensor(float16)" in each.allowed_type_strs)
    inputs, outputs = (tuple(each.type_str for each in side) for side in (schema.inputs, schema.outputs))
    return _Signature(inputs, outputs, frozenset(float16))


def norms(graph: FloatGraph) -> set[int]:
    """Return the nodes of every ``x / sqrt(sum of squares)``, decomposed layer norms with their weight and bias too.

    A square overflows at 256, and the guard added under a root (1e-12, 1e-6) is nothing in float16.
    """
    found: set[int] = set()
    for index, node in enumerate(graph.nodes):
        if node.op_type == "Sqrt" or (node.op_type == "Pow" and _is_root(graph, index)):
            above = _above(graph, index)
            operators = {graph.nodes[each].op_type for each in above}
            if operators & _REDUCTIONS:
                found |= {index, *above, *_below(graph, index, centered="Sub" in operators)}
        elif node.op_type == "ReduceL2":
            found |= {index, *_below(graph, index, centered=False)}
    return found


def _is_image(value: onnx.ValueInfoProto, dimensions: int) -> bool:
    is_bytes = value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    return dimensions == 4 or (dimensions == 3 and is_bytes)


def pixel_normalization(graph: FloatGraph) -> set[int]:
    """Return the arithmetic between images and the first product; images are inputs of four dimensions, or of NV12.

    A mean of 123.675 and a deviation of 58.395 keep only three digits in float16, and so do their pixels.
    """
    found: set[int] = set()
    images = {value.name for value in graph.model.graph.input if _is_image(value, len(graph.shape(value.name)))}
    for index, node in enumerate(graph.nodes):
        variable = [name for name in node.input if name and name not in graph.constants]
        from_images = bool(variable) and all(name in images or graph.writer.get(name) in found for name in variable)
        if from_images and node.op_type in {"Cast", "Clip", *REARRANGING, *_ARITHMETIC}:
            found.add(index)
    # A float32 image that is normalized already is merely cut and turned: nothing to protect.
    return found if any(graph.nodes[each].op_type in _ARITHMETIC for each in found) else set()


def similarities(graph: FloatGraph) -> set[int]:
    """Return the products of two tensors from which a TopK or ArgMax chooses: how alike tokens are.

    Which tokens merge is a choice between near ties. With all of the matching in float16, twice to three times as many
    pixels change their label: 0.15 instead of 0.05 % (B0 fast at 480x360), 2.2 instead of 0.4 % at 320x256.
    """
    return {
        index
        for index, node in enumerate(graph.nodes)
        if node.op_type == "MatMul" and not graph.has_constant_input(index) and _readers(graph, index, _CHOICES)
    }


def long_merges(graph: FloatGraph) -> set[int]:
    """Return what averages more tokens than float16 can be trusted to add up, from the one-hot matrix to the division.

    Where all tokens are alike, in the border of a letterbox or in a dark frame, one destination is given thousands of
    them: 6400 in a gray frame of 1920x1080, whose sum is 19 000 (B0 hq), and 3840x2160 has four times the tokens.
    Whatever the frames of a measurement show, that leaves float16's range.
    """
    found: set[int] = set()
    for index, node in enumerate(graph.nodes):
        is_one_hot = node.op_type == "Cast" and graph.element_type(node.input[0]) == onnx.TensorProto.BOOL
        if is_one_hot and _summands(graph, index) > LONGEST_MERGE:
            found |= {index, *_to_division(graph, index)}
    return found


def gelus(graph: FloatGraph) -> Iterator[frozenset[int]]:
    """Yield the five nodes of each GELU that is written with Erf, which backends run as one if they have one type."""
    for node in graph.nodes:
        if (found := graph.gelu_around(node)) is not None:
            yield frozenset(graph.writer[each.output[0]] for each in found[1])


def _is(graph: FloatGraph, index: int, op: str) -> bool:
    return bool(graph.nodes[index].op_type == op)


def _is_root(graph: FloatGraph, index: int) -> bool:
    """Tell whether a Pow raises to a half, or to minus a half."""
    exponent = graph.constant(graph.nodes[index].input[1])
    return exponent is not None and bool(np.all(np.abs(exponent) == 0.5))


def _readers(graph: FloatGraph, index: int, ops: Collection[str]) -> list[int]:
    return [reader for reader, _ in graph.readers_of(index) if graph.nodes[reader].op_type in ops]


def _above(graph: FloatGraph, root: int) -> set[int]:
    found: set[int] = set()
    level = {root}
    for ops in _ABOVE_ROOT:
        above = {each for index in level for each in graph.sources(index) if graph.nodes[each].op_type in ops}
        found |= above
        level = above or level
    return found


def _below(graph: FloatGraph, root: int, *, centered: bool) -> set[int]:
    """Return what leads from a root to the division by it, and for a layer norm its weight and bias."""
    found: set[int] = set()
    divisions: set[int] = set()
    level, inverse = {root}, False
    while level:
        inverse = inverse or any(graph.nodes[each].op_type in _INVERTING for each in level)
        divisions |= _among_readers(graph, level, {"Div", "Mul"} if inverse else {"Div"})
        guarded = _with_constant(graph, _among_readers(graph, level, {"Add"}))
        level = (guarded | _among_readers(graph, level, _TO_DIVISION)) - found
        level |= {each for each in divisions - found if _is(graph, each, "Div") and graph.has_constant_input(each)}
        found |= level
    found |= divisions
    if centered:
        found |= {each for index in divisions for each in graph.sources(index) if _is(graph, each, "Sub")}
        weights = _with_constant(graph, _among_readers(graph, divisions, {"Mul"}))
        found |= weights | _with_constant(graph, _among_readers(graph, divisions | weights, {"Add"}))
    return found


def _among_readers(graph: FloatGraph, level: Collection[int], ops: Collection[str]) -> set[int]:
    return {reader for index in level for reader in _readers(graph, index, ops)}


def _with_constant(graph: FloatGraph, level: Collection[int]) -> set[int]:
    return {index for index in level if graph.has_constant_input(index)}


def _summands(graph: FloatGraph, one_hot: int) -> int:
    """Return how many values a product with a one-hot matrix adds up for each of its own; 0 without a product."""
    rows_columns = graph.shape(graph.nodes[one_hot].output[0])[-2:]
    products = [
        position
        for reader, position in graph.readers_of(one_hot)
        if _is(graph, reader, "MatMul") and len(rows_columns) == 2
    ]
    return max((rows_columns[1 - position] for position in products), default=0)


def _to_division(graph: FloatGraph, one_hot: int) -> set[int]:
    """Return the products and sums below a one-hot matrix, up to the division that makes them means."""
    found: set[int] = set()
    level = set(_readers(graph, one_hot, {"MatMul", "ReduceSum"}))
    while level:
        found |= level
        unfinished = [index for index in level if not _is(graph, index, "Div")]
        level = _among_readers(graph, unfinished, {"Add", "Div"}) - found
    return found
