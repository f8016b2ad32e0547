"""Q/DQ pairs and int8 weights: where they stand in a graph, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sfpp.calibration.int8.quantizable import LAYOUT_OPERATORS, ProductIndex
from sfpp.calibration.int8.ranges import LARGEST_INT8
from sfpp.runtime.contract import FloatType
from sfpp.runtime.errors import UsageError
from sfpp.tooling.graph import copy_of, name_of, remove_unused

_ZERO_POINT = "int8/zero_point"
_SMALLEST_FLOAT16 = float(np.finfo(np.float16).tiny)


class PairPlaces:
    """Finds the tensors that are to be quantized so that chosen products read their activations in INT8.

    A pair stands as near as possible to where the values come from, so that products which read them in different
    layouts share it: backends move pairs through changes of layout. But a change of layout that also feeds a float node
    stays in front of the pair.

    Args:
        index: of the model as it is before anything is written.
        activations: the input that each chosen product reads as its activation, by the product's name.
    """

    def __init__(self, index: ProductIndex, activations: Mapping[str, str]) -> None:
        self._index = index
        self._activations = activations

    def find(self) -> dict[str, list[onnx.NodeProto]]:
        """Return, for each tensor to put a pair on, the nodes that are to read its dequantized values."""
        places = dict.fromkeys(map(self._place, self._activations.values()))
        return {place: [node for node in self._index.readers[place] if self._in_int8(node, place)] for place in places}

    def _place(self, tensor: str) -> str:
        producer = self._index.producers.get(tensor)
        while producer is not None and producer.op_type in LAYOUT_OPERATORS and self._read_in_int8_only(tensor):
            tensor = producer.input[0]
            producer = self._index.producers.get(tensor)
        return tensor

    def _read_in_int8_only(self, tensor: str) -> bool:
        readers = self._index.readers.get(tensor, [])
        return tensor not in self._index.outputs and all(self._in_int8(reader, tensor) for reader in readers)

    def _in_int8(self, node: onnx.NodeProto, tensor: str) -> bool:
        """Return whether a node reads a tensor as a chosen product's activation, directly or for nothing but such."""
        if node.op_type in LAYOUT_OPERATORS:
            return bool(node.input[0] == tensor) and self._read_in_int8_only(node.output[0])
        return self._activations.get(name_of(node)) == tensor


class PairWriter:
    """Writes Q/DQ pairs and int8 weights into a graph, in place; :meth:`finish` puts the new nodes in order."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        infos = [*graph.input, *graph.value_info]
        self._shapes = {info.name: [size.dim_value for size in info.type.tensor_type.shape.dim] for info in infos}
        self._constants: set[str] = set()
        self._behind: dict[str, list[onnx.NodeProto]] = {}  # by the tensor that they follow
        self._first: list[onnx.NodeProto] = []

    def quantize(
        self, tensor: str, scale: float, zero_point: np.int8 | np.uint8, readers: Iterable[onnx.NodeProto]
    ) -> None:
        """Put a pair on a tensor, one scale and zero point for all of it, for these readers."""
        step = self._constant(f"{tensor}/scale", np.array(scale, np.float32))
        signed = zero_point.dtype == np.int8
        zero = self._constant(_ZERO_POINT if signed else f"{tensor}/zero_point", np.array(zero_point))
        quantized, dequantized = f"{tensor}/quantized", f"{tensor}/dequantized"
        self._behind[tensor] = [
            helper.make_node("QuantizeLinear", [tensor, step, zero], [quantized], name=quantized),
            helper.make_node("DequantizeLinear", [quantized, step, zero], [dequantized], name=dequantized),
        ]
        if tensor in self._shapes:
            kind = TensorProto.INT8 if signed else TensorProto.UINT8
            self._declare(quantized, kind, self._shapes[tensor])
            self._declare(dequantized, TensorProto.FLOAT, self._shapes[tensor])
        for node in readers:
            replace_input(node, tensor, dequantized)

    def store(self, name: str, values: NDArray[np.signedinteger[Any]], scales: NDArray[np.float32], axis: int) -> str:
        """Store a weight in int8 or a bias in int32, one scale for each index of an axis; return it dequantized."""
        inputs = [self._constant(f"{name}/quantized", values), self._constant(f"{name}/scale", scales)]
        if values.dtype == np.int8:
            inputs.append(self._constant(f"{_ZERO_POINT}s_{len(scales)}", np.zeros(len(scales), np.int8)))
        dequantized = f"{name}/dequantized"
        self._first.append(helper.make_node("DequantizeLinear", inputs, [dequantized], name=dequantized, axis=axis))
        self._declare(dequantized, TensorProto.FLOAT, list(values.shape))
        return dequantized

    def finish(self) -> None:
        """Order the nodes so that each follows what it reads, and drop what is read no more."""
        produced = {name for node in self._graph.node for name in node.output}
        ordered = list(self._first)
        for tensor, pair in self._behind.items():
            ordered += [] if tensor in produced else pair  # on an input of the graph
        for node in self._graph.node:
            ordered.append(copy_of(node))
            ordered += [each for output in node.output for each in self._behind.get(output, ())]
        del self._graph.node[:]
        self._graph.node.extend(ordered)
        remove_unused(self._graph)

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
        """Store an initializer unless there is one of this name, and return the name."""
        if name not in self._constants:
            self._constants.add(name)
            self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _declare(self, tensor: str, element_type: int, shape: list[int]) -> None:
        self._graph.value_info.append(helper.make_tensor_value_info(tensor, element_type, shape))


def replace_input(node: onnx.NodeProto, old: str, new: str) -> None:
    """Let a node read another tensor, wherever it reads the old one."""
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new


def quantized_weight(
    weight: NDArray[np.float32],
    axis: int,
    *,
    largest: int = LARGEST_INT8,
    rest: FloatType = "fp32",
    least_scales: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight in int8 and its scales, (channels of the axis,), with which nothing is clipped.

    A channel of zeros has scale 1.

    Args:
        weight: of any shape.
        axis: that of the output channels.
        largest: what the largest magnitude of each channel becomes, 127 at most.
        rest: with ``fp16`` the scales are normal float16 numbers.
        least_scales: (channels,), below which no scale may be; None sets no limit.

    Raises:
        UsageError: a scale is too large for float16.
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    magnitudes = np.abs(weight).max(axis=others)
    steps = np.maximum(magnitudes / largest, np.finfo(np.float32).tiny)
    least = np.zeros_like(steps) if least_scales is None else least_scales
    scales = np.where((magnitudes > 0) | (least > 0), np.maximum(steps, least), 1).astype(np.float32)
    if rest == "fp16":
        scales = rounded_up_to_float16(scales)
    rounded = np.rint(weight / along(axis, scales, weight.ndim))
    return np.clip(rounded, -largest, largest).astype(np.int8), scales


def quantized_bias(
    bias: NDArray[np.float32], weight_scales: NDArray[np.float32], step: float
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return a bias, (channels,), in int32 and its scales: those of the weight times the activation's ``step``."""
    scales = weight_scales * np.float32(step)
    return np.rint(bias.astype(np.float64) / scales).astype(np.int32), scales


def rounded_up_to_float16(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the next float16 numbers that are not smaller, and normal: smaller ones lose digits, or become zero.

    Raises:
        UsageError: beyond the range of float16.
    """
    with np.errstate(over="ignore"):
        nearest = np.maximum(scales, _SMALLEST_FLOAT16).astype(np.float16)
    raised = np.where(nearest < scales, np.nextafter(nearest, np.float16(np.inf)), nearest).astype(np.float32)
    if not np.isfinite(raised).all():
        raise UsageError(
            f"a scale of {scales.max():.6g} is beyond float16 (65504): values this large need float32; "
            "take rest='fp32', or leave the product out of INT8"
        )
    return raised


def along(axis: int, scales: NDArray[np.float32], dims: int) -> NDArray[np.float32]:
    """Return scales in a shape that multiplies with a weight of so many dimensions, each channel with its own."""
    return scales.reshape([-1 if index == axis else 1 for index in range(dims)])
