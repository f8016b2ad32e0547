"""The same network with channels of like size, so that INT8's one step for a whole tensor suits all of them.

A channel that is divided by a factor where it is made, and whose weights are multiplied by it where it is read, leaves
the network's function as it is. With powers of two as factors not even the last bit changes, so what comes out needs no
check of its own. (After the equalization of M. Nagel et al., arXiv 1906.04721, and G. Xiao et al., arXiv 2211.10438.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from sfpp.calibration.int8.observe import channel_magnitudes
from sfpp.calibration.int8.qdq import along
from sfpp.calibration.int8.quantizable import LAYOUT_OPERATORS, ProductIndex, quantizable
from sfpp.tooling.graph import attribute_of, copy_of, name_of, names_read_by, remove_unused

# Factors beyond 2 to this power would bring float16 to its limits where a channel is nearly dead.
_LARGEST_EXPONENT = 8


@dataclass(frozen=True, eq=False)
class _Use:
    """A constant input of a node, and the axis along which it has something for each channel."""

    node: onnx.NodeProto
    position: int
    axis: int
    depthwise: bool = False


@dataclass(frozen=True, eq=False)
class _Scalable:
    """A tensor whose channels may be scaled: where they are made, and where they are read."""

    tensor: str
    axis: int
    makers: tuple[_Use, ...]
    readers: tuple[_Use, ...]


def equalized(model: onnx.ModelProto, inputs: Iterable[Mapping[str, NDArray[Any]]]) -> onnx.ModelProto:
    """Return the same function, to the bit, with the channels of INT8 products' activations brought to like sizes.

    That is possible where a layer norm or a convolution makes the channels, with a ReLU behind it or not, and nothing
    but products with weights read them. Where float nodes read them too, as in merging, they stay as they are.

    Args:
        model: a float32 model as :func:`sfpp.tooling.graph.read_model` gives it.
        inputs: the arrays of some frames by input name; a few frames are enough.

    Raises:
        UsageError: no frame.
        BackendError: a tensor holds NaN or infinity, or ONNX Runtime cannot run the model.
    """
    copied = copy_of(model)
    index = ProductIndex(copied)
    found = list(_Finder(index).scalables())
    if not found:
        return copied
    magnitudes = channel_magnitudes(model, {each.tensor: each.axis for each in found}, inputs)
    constants = _Constants(index)
    for each in found:
        weights = [constants.largest_along(use) for use in each.readers if not use.depthwise]
        factors = factors_for(magnitudes[each.tensor], weights)
        for use in each.makers:
            constants.multiply(use, np.reciprocal(factors))
        for use in each.readers:
            constants.multiply(use, factors)
    remove_unused(copied.graph)
    return copied


def factors_for(magnitudes: NDArray[np.float32], weights: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return what to divide each channel by, (channels,): powers of two.

    Args:
        magnitudes: the largest of each channel, (channels,).
        weights: the largest weight of each channel, (channels,), in each product that reads it; none for a depth-wise
            convolution, whose weights have a scale for each channel and thus take any factor.
    """
    wanted = _logarithms(magnitudes)
    if weights:
        # What makes activations easier to round makes weights harder: the two meet half-way.
        wanted = (wanted - np.max([_logarithms(each) for each in weights], axis=0)) / 2
    exponents = np.rint(wanted - np.median(wanted))
    return np.asarray(np.exp2(np.clip(exponents, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)), np.float32)


def _logarithms(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return logarithms to the base of 2, the largest 0; those of zeros and of what is almost zero are cut off."""
    largest = float(values.max()) or 1.0
    return np.asarray(np.log2(np.maximum(values / largest, 2.0 ** (-2 * _LARGEST_EXPONENT))), np.float64)


class _Finder:
    """Finds tensors whose channels can be scaled."""

    def __init__(self, index: ProductIndex) -> None:
        self._index = index
        self._products = {each.node: each for each in quantizable(index.model)}

    def scalables(self) -> Iterator[_Scalable]:
        """Yield them in the graph's order."""
        for tensor in dict.fromkeys(each.activation for each in self._products.values()):
            made = self._makers(tensor)
            if made is None:
                continue
            axis, makers = made
            readers = self._uses(tensor, axis)
            if readers:
                yield _Scalable(tensor, axis, makers, tuple(readers))

    def _makers(self, tensor: str) -> tuple[int, tuple[_Use, ...]] | None:
        """Return the axis of a tensor's channels and the constants that they are proportional to, None if none are."""
        node = self._index.producers.get(tensor)
        while node is not None and node.op_type == "Relu" and self._is_read_once(node.input[0]):
            node = self._index.producers.get(node.input[0])
        if node is None or tensor not in self._index.shapes:
            return None
        last = len(self._index.shapes[tensor]) - 1
        if node.op_type == "LayerNormalization" and attribute_of(node, "axis", -1) in (-1, last):
            axis = last
        elif node.op_type == "Conv":
            axis = 1
        else:
            return None
        positions = [index for index, name in enumerate(node.input) if index and name]
        if any(self._index.constant_behind(node.input[index]) is None for index in positions):
            return None
        return axis, tuple(_Use(node, index, 0) for index in positions)

    def _is_read_once(self, tensor: str) -> bool:
        return len(self._index.readers[tensor]) == 1 and tensor not in self._index.outputs

    def _uses(self, tensor: str, axis: int) -> list[_Use] | None:
        """Return the weights that multiply the channels of a tensor, None if anything else reads it."""
        found: list[_Use] = []
        for node in self._index.readers.get(tensor, []):
            if node.op_type in LAYOUT_OPERATORS:
                behind = self._axis_behind(node, axis)
                uses = None if behind is None else self._uses(node.output[0], behind)
            else:
                uses = self._use_by(node, tensor, axis)
            if uses is None or tensor in self._index.outputs:
                return None
            found += uses
        return found

    def _axis_behind(self, node: onnx.NodeProto, axis: int) -> int | None:
        """Return where an axis lies after a change of layout, None if it does not stay one axis."""
        before, after = self._index.shapes.get(node.input[0]), self._index.shapes.get(node.output[0])
        if before is None or after is None:
            return None
        if node.op_type == "Transpose":
            return attribute_of(node, "perm", list(range(len(before)))[::-1]).index(axis)
        outside = math.prod(before[:axis])
        matching = (index for index, size in enumerate(after) if size == before[axis] > 1)
        return next((index for index in matching if math.prod(after[:index]) == outside), None)

    def _use_by(self, node: onnx.NodeProto, tensor: str, axis: int) -> list[_Use] | None:
        """Return the weight with which a product reads a tensor whose channels it sums over."""
        product = self._products.get(name_of(node))
        if product is None:
            return None
        activation, weight = self._index.activation_and_weight(node)
        position = list(node.input).index(weight)
        dims = self._index.initializers[product.weight].dims
        if activation != tensor:
            return None
        if product.operator == "Conv":
            groups = attribute_of(node, "group", 1)
            depthwise = groups == dims[0] > 1 and dims[1] == 1
            if axis != 1 or (groups > 1 and not depthwise):
                return None
            return [_Use(node, position, 0 if depthwise else 1, depthwise)]
        # A matrix product sums over the last axis of what stands first and the last but one of what stands second.
        first, rank = position == 1, len(self._index.shapes[tensor])
        turned = attribute_of(node, "transA" if first else "transB", 0)
        summed = rank - 1 if first != bool(turned) else rank - 2
        return [_Use(node, position, 1 - product.axis)] if axis == summed else None


class _Constants:
    """The initializers of a graph, multiplied for one of their readers at a time."""

    def __init__(self, index: ProductIndex) -> None:
        graph = index.model.graph
        self._index = index
        self._readers = Counter(name for node in graph.node for name in names_read_by(node))
        self._readers.update(output.name for output in graph.output)

    def largest_along(self, use: _Use) -> NDArray[np.float32]:
        """Return the largest magnitude for each channel, (channels,)."""
        values = np.abs(self._values(use))
        return np.asarray(values.max(axis=tuple(index for index in range(values.ndim) if index != use.axis)))

    def multiply(self, use: _Use, factors: NDArray[np.float32]) -> None:
        """Multiply what a node reads; other nodes that read the same constant keep it as it is."""
        values = self._values(use)
        scaled = values * along(use.axis, factors, values.ndim)
        name, stored = use.node.input[use.position], self._index.initializers
        if name not in stored or self._readers[name] > 1:
            self._readers[name] -= 1
            name = f"{name_of(use.node)}/equalized_{use.position}"
            stored[name] = self._index.model.graph.initializer.add()
            self._readers[name] = 1
            use.node.input[use.position] = name
        stored[name].CopyFrom(numpy_helper.from_array(scaled, name))

    def _values(self, use: _Use) -> NDArray[np.float32]:
        name = self._index.constant_behind(use.node.input[use.position])
        return np.asarray(numpy_helper.to_array(self._index.initializers[name or ""]), np.float32)
