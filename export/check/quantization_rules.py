"""Rules on pairs of QuantizeLinear and DequantizeLinear: TensorRT quantizes symmetrically, to signed numbers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from onnx import TensorProto

from sfpp.export.check.findings import Finder, Match, nodes_of
from sfpp.export.check.graph import CheckedGraph, Node

_SCALE, _ZERO_POINT = 1, 2
_FLOAT16_SCALES_FROM = 19  # the opset


# ONNX Runtime's too: TensorRT takes them for ONNX's own.
_pairs = partial(nodes_of, "QuantizeLinear", "DequantizeLinear", any_domain=True)


def _asymmetry(graph: CheckedGraph, node: Node) -> str:
    """Return the first zero point that is not 0."""
    zero_points = graph.values(node.input(_ZERO_POINT))
    if zero_points is None or not zero_points.any():
        return ""
    return f"{zero_points.flat[np.flatnonzero(zero_points)[0]]}"


def _is_to_uint8(graph: CheckedGraph, node: Node) -> bool:
    zero_points = graph.values(node.input(_ZERO_POINT))
    return zero_points is not None and not zero_points.any() and zero_points.dtype == np.uint8


def _is_untyped(graph: CheckedGraph, node: Node) -> bool:
    return node.operator == "QuantizeLinear" and not (node.input(_ZERO_POINT) or node.attribute("output_dtype", 0))


def _is_from_int32(graph: CheckedGraph, node: Node) -> bool:
    return node.operator == "DequantizeLinear" and graph.type(node.input(0)) == TensorProto.INT32


def _impossible_scale(graph: CheckedGraph, node: Node) -> str:
    values = graph.values(node.input(_SCALE))
    scales = np.ones(1, np.float32) if values is None or not values.size else values.astype(np.float32)
    # The comparison is false for NaN too.
    return "" if (scales > 0).all() else f"{scales.min():g}"


def _has_half_scale(graph: CheckedGraph, node: Node) -> bool:
    return graph.type(node.input(_SCALE)) == TensorProto.FLOAT16


def _has_early_half_scale(graph: CheckedGraph, node: Node) -> bool:
    return graph.opset < _FLOAT16_SCALES_FROM and _has_half_scale(graph, node)


def _is_by_channel(graph: CheckedGraph, node: Node) -> bool:
    """Tell whether a node has a scale for each channel."""
    shape = graph.shape(node.input(_SCALE))
    return shape is not None and len(shape) == 1 and shape[0] != 1


def _is_activation_by_channel(graph: CheckedGraph, node: Node) -> bool:
    return node.operator == "QuantizeLinear" and _is_by_channel(graph, node) and not graph.is_fixed(node.input(0))


def _weights_by_wrong_channel(graph: CheckedGraph) -> Iterator[Match]:
    """Yield weights with scales along one axis for each product that wants them along another one."""
    for node in graph.of("DequantizeLinear", any_domain=True):
        if not _is_by_channel(graph, node) or not graph.is_fixed(node.input(0)):
            continue
        rank = len(graph.shape(node.input(0)) or ())
        axis = node.attribute("axis", 1)
        axis += rank if axis < 0 else 0
        for reader in graph.readers(node.outputs[0]) if node.outputs else ():
            wanted = _channel_axis(reader, reader.inputs.index(node.outputs[0]), rank)
            if wanted is not None and rank and axis != wanted:
                yield Match.at(node, f"axis {axis}, and {reader.operator} wants {wanted}")


def _channel_axis(product: Node, position: int, rank: int) -> int | None:
    """Return the axis of a weight along which a product in INT8 can have scales; None for what is no product."""
    if product.operator in ("Conv", "ConvTranspose"):
        return 0 if position == 1 else None
    # Scales along the axis that is summed up could not be taken out of the integer sum.
    if product.operator == "MatMul" and rank >= 2:
        return rank - 1 if position == 1 else rank - 2
    if product.operator == "Gemm" and position < 2:
        transposed = bool(product.attribute("transB" if position else "transA", 0))
        return int(transposed != bool(position))
    return None


QUANTIZATION_FINDERS: dict[str, Finder] = {
    "zero-point": _pairs(where=_asymmetry),
    "quantized-uint8": _pairs(where=_is_to_uint8),
    "quantized-untyped": _pairs(where=_is_untyped),
    "dequantized-int32": _pairs(where=_is_from_int32),
    "scale-not-positive": _pairs(where=_impossible_scale),
    "scale-float16": _pairs(where=_has_half_scale),
    "scale-float16-early": _pairs(where=_has_early_half_scale),
    "activation-by-channel": _pairs(where=_is_activation_by_channel),
    "weight-axis": _weights_by_wrong_channel,
}
