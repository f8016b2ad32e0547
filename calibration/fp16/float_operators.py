"""Which ONNX operators take float16, at which of their inputs, and which are better off without."""

from __future__ import annotations

import functools
from dataclasses import dataclass

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
