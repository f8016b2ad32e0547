"""Which products of a graph can be computed in INT8, in the form that each kind of library runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import onnx

from sfpp.runtime.contract import FloatType
from sfpp.tooling.graph import GraphIndex, attribute_of, name_of, shapes_of

# What changes neither a tensor's values nor how many there are, only where they lie. TensorRT and OpenVINO move Q/DQ
# pairs through these by themselves.
LAYOUT_OPERATORS = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
# What may stand between the last product and the graph's output.
_AFTER_CLASSIFIER = LAYOUT_OPERATORS | {
    *("Add", "Sum", "Sub", "Mul", "Div", "Concat", "Slice", "Cast", "Clip", "Resize", "Upsample"),
    *("ArgMax", "TopK", "Softmax", "LogSoftmax", "Sigmoid", "Greater"),
}
_WIDE_WINDOW, _MANY_CHANNELS = 4, 64
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})


@dataclass(frozen=True)
class Int8Form:
    """How INT8 is written.

    Attributes:
        largest_weight: the largest magnitude of an int8 weight.
        keeps_concat: leave Concat as it is, which OpenVINO does not bear.
        dense: for ONNX Runtime on a CPU: see :mod:`sfpp.calibration.int8.dense`. Otherwise activations are int8 with
            zero point 0, and only what products read is quantized.
    """

    largest_weight: int
    keeps_concat: bool = True
    dense: bool = False


# CPUs without VNNI add two products of a uint8 activation with an int8 weight in 16 bits. With weights within 64 they
# never overflow there: 2 * 255 * 64 = 32640.
_WITHOUT_OVERFLOW = 64
PORTABLE = Int8Form(_WITHOUT_OVERFLOW, keeps_concat=False)
TENSORRT = Int8Form(127)
ONNXRUNTIME = Int8Form(_WITHOUT_OVERFLOW, dense=True)


def form_for(target: str, rest: FloatType = "fp32") -> Int8Form:
    """Return the form for what a file was exported for, and for what it computes in where INT8 is not."""
    if target == "tensorrt":
        return TENSORRT
    # With float16 for the rest a file is for GPUs, where the kernels that the dense form is for are not.
    return ONNXRUNTIME if target == "onnxruntime" and rest == "fp32" else PORTABLE


@dataclass(frozen=True)
class Quantizable:
    """A product of an activation with a constant weight.

    Attributes:
        node: its name, or that of its output where it has none.
        operator: ``Conv``, ``MatMul`` or ``Gemm``.
        activation: the tensor whose range counts: that which the product reads, traced back through what only changes
            its layout, so that products which read the same values in two layouts have one range.
        weight: name of the initializer, float32.
        axis: that of the output channels in the weight.
    """

    node: str
    operator: str
    activation: str
    weight: str
    axis: int


def quantizable(model: onnx.ModelProto, form: Int8Form = PORTABLE) -> tuple[Quantizable, ...]:
    """Return the products of ``model`` that can be INT8, in the graph's order.

    These are Conv, depth-wise too, and MatMul and Gemm with a constant float32 weight. Not among them are products of
    two activations (attention, similarity, merging), and the classifier, that is the last products before an output:
    its error would be the answer's, and it is small. Nor are narrow spatial reductions, which a backend computes wrong
    (see below). A weight that reaches its product through more than Identity, as in a graph whose constants were not
    folded, is left alone.

    In the dense form these are Conv, narrow reductions too, and MatMul with the weight behind an activation of three
    axes or more (of two ONNX Runtime makes a float Gemm); a classifier is among them where it is a MatMul, whose result
    stays float.
    """
    index = ProductIndex(model)
    last = index.last_products()
    suits = partial(_suits_dense, index, last) if form.dense else partial(_suits, index, last)
    return tuple(each for node in model.graph.node if suits(node) and (each := index.product(node)) is not None)


def _suits(index: ProductIndex, last: Collection[str], node: onnx.NodeProto) -> bool:
    return name_of(node) not in last and not _is_narrow_reduction(index, node)


def _suits_dense(index: ProductIndex, last: Collection[str], node: onnx.NodeProto) -> bool:
    if node.op_type == "MatMul":
        is_weight_second = index.constant_behind(node.input[1]) is not None
        return is_weight_second and len(index.shapes.get(node.output[0], ())) > 2
    return node.op_type == "Conv" and name_of(node) not in last


def work_of(model: onnx.ModelProto, products: Sequence[Quantizable]) -> dict[str, int]:
    """Return the multiply-adds of each product, by its node's name."""
    shapes = shapes_of(model)
    weights = {tensor.name: [int(size) for size in tensor.dims] for tensor in model.graph.initializer}
    outputs = {name_of(node): node.output[0] for node in model.graph.node}
    return {
        each.node: math.prod(shapes[outputs[each.node]])
        * (math.prod(weights[each.weight]) // weights[each.weight][each.axis])
        for each in products
    }


class ProductIndex(GraphIndex):
    """A model's nodes, and what is to be known of its products."""

    def product(self, node: onnx.NodeProto) -> Quantizable | None:
        """Return what is to be known of a product with a constant weight, None for any other node."""
        if node.domain not in ("", "ai.onnx") or node.op_type not in ("Conv", "MatMul", "Gemm"):
            return None
        constants = [self.constant_behind(name) for name in node.input[:2]]
        if constants.count(None) != 1:
            return None
        position = 1 if constants[0] is None else 0
        weight = self.initializers[constants[position] or ""]
        axis = _output_axis(node, weight, position)
        if axis is None:
            return None
        activation = self.source_of(node.input[1 - position])
        return Quantizable(name_of(node), node.op_type, activation, weight.name, axis)

    def activation_and_weight(self, node: onnx.NodeProto) -> tuple[str, str]:
        """Return which input of a quantizable product is the activation, and which the weight."""
        first, second = node.input[:2]
        return (first, second) if self.constant_behind(first) is None else (second, first)

    def source_of(self, tensor: str) -> str:
        """Return the tensor in which the values of ``tensor`` came to be, before mere changes of layout."""
        return self.origin(tensor, LAYOUT_OPERATORS)

    def last_products(self) -> frozenset[str]:
        """Return the names of the products whose result reaches an output without passing another product."""
        found: set[str] = set()
        pending, seen = list(self.outputs), set(self.outputs)
        while pending:
            node = self.producers.get(pending.pop())
            if node is not None and node.op_type in _PRODUCTS:
                found.add(name_of(node))
            elif node is not None and node.op_type in _AFTER_CLASSIFIER:
                pending += [name for name in node.input if name not in seen]
                seen.update(node.input)
        return frozenset(found)


def _is_narrow_reduction(index: ProductIndex, node: onnx.NodeProto) -> bool:
    """Return whether a convolution reduces windows that do not overlap, of few channels: the keys of SegFormer-B0.

    OpenVINO 2026.4 computes these wrong in INT8 on CPUs with AMX where the rest is float32 (from 9 to 56 channels and
    windows of 4x4 or more, tried), which cost a B0 2.4 points of mean IoU. They are a thirtieth of the network's work,
    so that nothing is lost by leaving them.
    """
    weight = index.constant_behind(node.input[1]) if node.op_type == "Conv" else None
    if weight is None:
        return False
    _, channels, *kernel = (int(size) for size in index.initializers[weight].dims)
    strides = attribute_of(node, "strides", [1] * len(kernel))
    return strides == kernel and min(kernel) >= _WIDE_WINDOW and channels < _MANY_CHANNELS


def _output_axis(node: onnx.NodeProto, weight: onnx.TensorProto, position: int) -> int | None:
    """Return the axis of the output channels, or None for a weight that cannot be INT8."""
    dims = len(weight.dims)
    if weight.data_type != onnx.TensorProto.FLOAT:
        return None
    if node.op_type == "Conv":
        return 0 if position == 1 and dims >= 3 else None
    if dims != 2:
        return None
    return 1 - position if attribute_of(node, "transB" if position else "transA", 0) else position
