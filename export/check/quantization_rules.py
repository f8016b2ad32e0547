"""Rules on pairs of QuantizeLinear and DequantizeLinear: TensorRT quantizes symmetrically, to signed numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from sfpp.export.check.findings import ALL, CHANGELOG, FROM_10_3, OPERATORS, TRIED, Match, Rule
from sfpp.export.check.graph import CheckedGraph, Node

_SCALE, _ZERO_POINT = 1, 2
_FLOAT16_SCALES_FROM = 19  # the opset
_QUANTIZE_PAGE = "NVIDIA's operators documentation, Quantize"


def _pairs(graph: CheckedGraph) -> Iterator[Node]:
    """Yield both kinds of nodes, ONNX Runtime's too: TensorRT takes them for ONNX's own."""
    return (node for node in graph.nodes if node.operator in ("QuantizeLinear", "DequantizeLinear"))


def _asymmetric(graph: CheckedGraph) -> Iterator[Match]:
    for node in _pairs(graph):
        zero_points = graph.values(node.input(_ZERO_POINT))
        if zero_points is not None and zero_points.any():
            yield Match.at(node, f"{zero_points.flat[np.flatnonzero(zero_points)[0]]}")


def _to_uint8(graph: CheckedGraph) -> Iterator[Match]:
    for node in _pairs(graph):
        zero_points = graph.values(node.input(_ZERO_POINT))
        if zero_points is not None and not zero_points.any() and zero_points.dtype == np.uint8:
            yield Match.at(node)


def _without_type(graph: CheckedGraph) -> Iterator[Match]:
    for node in _pairs(graph):
        said = node.input(_ZERO_POINT) or node.integer("output_dtype")
        if node.operator == "QuantizeLinear" and not said:
            yield Match.at(node)


def _integers_beyond_int8(graph: CheckedGraph) -> Iterator[Match]:
    for node in _pairs(graph):
        if node.operator == "DequantizeLinear" and graph.type(node.input(0)) == TensorProto.INT32:
            yield Match.at(node)


def _impossible_scales(graph: CheckedGraph) -> Iterator[Match]:
    for node in _pairs(graph):
        scales = graph.values(node.input(_SCALE))
        # The comparison is false for NaN too.
        if scales is not None and scales.size and not (scales.astype(np.float32) > 0).all():
            yield Match.at(node, f"{scales.astype(np.float32).min():g}")


def _half_scales(graph: CheckedGraph) -> Iterator[Match]:
    return (Match.at(node) for node in _pairs(graph) if graph.type(node.input(_SCALE)) == TensorProto.FLOAT16)


def _early_half_scales(graph: CheckedGraph) -> Iterator[Match]:
    return _half_scales(graph) if graph.opset < _FLOAT16_SCALES_FROM else iter(())


def _by_channel(graph: CheckedGraph, node: Node) -> bool:
    """Tell whether a node has a scale for each channel."""
    shape = graph.shape(node.input(_SCALE))
    return shape is not None and len(shape) == 1 and shape[0] != 1


def _activations_by_channel(graph: CheckedGraph) -> Iterator[Match]:
    for node in _pairs(graph):
        if node.operator == "QuantizeLinear" and _by_channel(graph, node) and not graph.is_fixed(node.input(0)):
            yield Match.at(node)


def _weights_by_wrong_channel(graph: CheckedGraph) -> Iterator[Match]:
    for node in _pairs(graph):
        weight = node.input(0)
        if node.operator != "DequantizeLinear" or not _by_channel(graph, node) or not graph.is_fixed(weight):
            continue
        rank = len(graph.shape(weight) or ())
        axis = node.integer("axis", 1)
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
        transposed = bool(product.integer("transB" if position else "transA"))
        return int(transposed != bool(position))
    return None


QUANTIZATION_RULES = (
    Rule(
        "zero-point",
        "refused",
        ALL,
        _asymmetric,
        "its zero point is {detail}, and TensorRT quantizes symmetrically: every zero point must be 0",
        "quantize again with symmetric int8 activations and weights, as sfpp-calibrate does",
        f"{OPERATORS} (8.5 to 11.0); {_QUANTIZE_PAGE}; {TRIED}",
    ),
    Rule(
        "quantized-uint8",
        "refused",
        ("8.6", "10.3"),
        _to_uint8,
        "it quantizes to uint8, and TensorRT has signed types only",
        "quantize again with symmetric int8 activations and weights, as sfpp-calibrate does",
        f"{OPERATORS} (8.5, 10.6); {_QUANTIZE_PAGE}",
    ),
    Rule(
        "quantized-uint8",
        "wrong",
        ("10.13", "11", "rtx"),
        _to_uint8,
        "it quantizes to uint8, which TensorRT replaces by int8: values beyond 127 steps are clipped",
        "quantize again with symmetric int8 activations and weights, as sfpp-calibrate does",
        f"{CHANGELOG} (10.10, 10.11); {TRIED}",
    ),
    Rule(
        "quantized-untyped",
        "wrong",
        ALL,
        _without_type,
        "it has no zero point, which means uint8 in ONNX and int8 in TensorRT: values beyond 127 steps are clipped",
        "give it an int8 zero point of 0, as sfpp-calibrate does",
        f"{_QUANTIZE_PAGE} (8.6.1); ONNX's QuantizeLinear; {TRIED}",
    ),
    Rule(
        "dequantized-int32",
        "refused",
        ALL,
        _integers_beyond_int8,
        "it dequantizes int32, as ONNX Runtime's quantizer writes for a bias, and TensorRT takes int8",
        "keep the bias in float: extra_options={'QuantizeBias': False}, or use sfpp-calibrate",
        f"onnx/onnx-tensorrt#850; {OPERATORS}; {TRIED}",
    ),
    Rule(
        "scale-not-positive",
        "refused",
        ALL,
        _impossible_scales,
        "one of its scales is {detail}, and a scale must be positive",
        "quantize again with frames in which this tensor is not zero throughout",
        f"onnx/onnx-tensorrt#764; {TRIED}",
    ),
    Rule(
        "scale-float16",
        "refused",
        ("8.6",),
        _half_scales,
        "its scale is float16, and TensorRT 8.6 takes float32 scales only",
        "calibrate with --rest fp32 for TensorRT 8.6",
        f"{_QUANTIZE_PAGE} (8.6.1)",
    ),
    Rule(
        "scale-float16-early",
        "doubtful",
        FROM_10_3,
        _early_half_scales,
        f"its scale is float16, which ONNX has from opset {_FLOAT16_SCALES_FROM} on",
        f"export with --opset {_FLOAT16_SCALES_FROM}, so that ONNX Runtime takes the file too",
        f"ONNX's QuantizeLinear; {TRIED}",
    ),
    Rule(
        "activation-by-channel",
        "doubtful",
        ALL,
        _activations_by_channel,
        "it has a scale for each channel of an activation, which no product in INT8 can use",
        "give activations one scale each, and weights one for each channel",
        "NVIDIA/TensorRT#1040, #2392",
    ),
    Rule(
        "weight-axis",
        "doubtful",
        ALL,
        _weights_by_wrong_channel,
        "its scales go along {detail}: the product does not run in INT8, or runs wrong",
        "quantize a weight along the channels that the product gives (of ConvTranspose: those that it takes)",
        "NVIDIA/TensorRT#2380, #1694",
    ),
)
