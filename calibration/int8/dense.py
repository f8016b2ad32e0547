"""INT8 for ONNX Runtime on a CPU: uint8 from one product to the next.

ONNX Runtime has an integer kernel for a convolution only where its result is quantized too, and a fast one only for
uint8 activations. So results of convolutions, and of what is computed from nothing but such, get Q/DQ pairs as well;
each tensor has a zero point of its own, and a bias is int32. Matrix products give float.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sfpp.calibration.int8.qdq import PairPlaces, PairWriter, quantized_weight, replace_input
from sfpp.calibration.int8.quantizable import ProductIndex, Quantizable
from sfpp.calibration.int8.ranges import Range
from sfpp.tooling.graph import attribute_of, copy_of, name_of, remove_unused, shapes_of

_MICROSOFT = "com.microsoft"
# With inputs in uint8 these run in uint8.
_ELEMENTWISE = frozenset({"Add", "Relu", "Resize"})
_LEVELS = 255
# An int32 bias may take this much, so that the sum of products has room beside it.
_LARGEST_BIAS = 2**30


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 model's function with GELU as one operator, and with 1x1 classifiers as matrix products.

    The steps of GELU all read its input, and ONNX Runtime would not put them together again with a DQ for each. A
    matrix product gives logits in float, where a convolution would round them to 256 levels.

    Args:
        model: with the type and shape of every tensor; it stays as it is.
    """
    changed = copy_of(model)
    _join_gelu(changed)
    _turn_classifiers(changed)
    remove_unused(changed.graph)
    return changed


def dense_tensors(model: onnx.ModelProto, products: Iterable[Quantizable]) -> set[str]:
    """Return the tensors whose ranges :func:`write_dense` wants, for these products and any part of them."""
    chosen = list(products)
    results = _Results(model, {each.node for each in chosen}).find()
    return {*results, *(each.activation for each in chosen)}


def write_dense(
    model: onnx.ModelProto, products: Mapping[str, Quantizable], ranges: Mapping[str, Range], *, largest_weight: int
) -> None:
    """Mark the products, and what lies between them, in place.

    Args:
        model: as :func:`prepared` gives it.
        products: by their node's name.
        ranges: of the tensors that :func:`dense_tensors` names.
        largest_weight: the largest magnitude of an int8 weight.
    """
    index, shapes = ProductIndex(model), shapes_of(model)
    results = set(_Results(model, products.keys()).find())
    chosen = [node for node in model.graph.node if name_of(node) in products]
    inputs = {name_of(node): index.activation_and_weight(node) for node in chosen}
    # What is no result comes from a float node, and is quantized for products alone.
    from_float = {name: inputs[name][0] for name in inputs if products[name].activation not in results}
    places = {**PairPlaces(model, from_float).find(), **{name: index.readers[name] for name in results}}
    writer = PairWriter(model.graph)
    for tensor, readers in places.items():
        step, zero = _step_and_zero(ranges[index.source_of(tensor)])
        writer.quantize(tensor, step, readers, zero_point=zero)
    for node in chosen:
        product = products[name_of(node)]
        step, _ = _step_and_zero(ranges[product.activation])
        weight = numpy_helper.to_array(index.initializers[product.weight])
        bias = _bias_of(index, node)
        least = None if bias is None else (np.abs(bias) / (step * _LARGEST_BIAS)).astype(np.float32)
        integers, scales = quantized_weight(weight, product.axis, largest=largest_weight, least_scales=least)
        stored = writer.store(f"{product.node}/weight", integers, scales, product.axis)
        replace_input(node, inputs[product.node][1], stored)
        if bias is not None:
            bias_scales = scales * np.float32(step)
            quantized_bias = np.rint(bias.astype(np.float64) / bias_scales).astype(np.int32)
            node.input[2] = writer.store(f"{product.node}/bias", quantized_bias, bias_scales, 0)
        elif product.operator == "MatMul":
            _keep_from_gemm(model.graph, index, node, len(shapes[inputs[product.node][0]]))
    writer.finish()


def _bias_of(index: ProductIndex, node: onnx.NodeProto) -> NDArray[np.float32] | None:
    """Return a convolution's bias, (channels,)."""
    name = index.constant_behind(node.input[2]) if node.op_type == "Conv" and len(node.input) > 2 else None
    return None if name is None else np.asarray(numpy_helper.to_array(index.initializers[name]), np.float32)


def _keep_from_gemm(graph: onnx.GraphProto, index: ProductIndex, node: onnx.NodeProto, rank: int) -> None:
    """Give the bias that is added to a matrix product as many axes as the product has.

    ONNX Runtime makes one Gemm of a matrix product and a bias of one axis, and that before it looks for quantized
    products: the Gemm would then be float, with its weight dequantized anew in every run.
    """
    readers = index.readers.get(node.output[0], [])
    if len(readers) != 1 or readers[0].op_type != "Add":
        return
    added = next((each for each in readers[0].input if each != node.output[0]), "")
    bias = index.constant_behind(added)
    if bias is None or len(index.initializers[bias].dims) != 1:
        return
    values = numpy_helper.to_array(index.initializers[bias])
    name = f"{name_of(node)}/bias"
    graph.initializer.append(numpy_helper.from_array(values.reshape([1] * (rank - 1) + [-1]), name))
    replace_input(readers[0], added, name)


def _step_and_zero(values: Range) -> tuple[float, np.uint8]:
    """Return the step between neighboring uint8 values, and the one that stands for zero."""
    step = max((values.high - values.low) / _LEVELS, float(np.finfo(np.float32).tiny))
    return step, np.uint8(np.clip(np.rint(-values.low / step), 0, _LEVELS))


class _Results:
    """Finds the results that are quantized: those of convolutions, and what is computed from nothing but such."""

    def __init__(self, model: onnx.ModelProto, chosen: Collection[str]) -> None:
        self._nodes = model.graph.node
        self._index = ProductIndex(model)
        self._chosen = chosen

    def find(self) -> list[str]:
        """Return the tensors, in the graph's order."""
        found: dict[str, None] = {}
        for node in self._nodes:
            if self._is_dense(node, found):
                found[self._place(node.output[0])] = None
        return list(found)

    def _is_dense(self, node: onnx.NodeProto, found: Collection[str]) -> bool:
        if node.op_type == "Conv":
            return name_of(node) in self._chosen
        read = [name for name in node.input if name and self._index.constant_behind(name) is None]
        is_inner = bool(read) and all(self._index.source_of(name) in found for name in read)
        return is_inner and node.op_type in _ELEMENTWISE and node.output[0] not in self._index.outputs

    def _place(self, tensor: str) -> str:
        """Return the tensor itself, or that behind the ReLU which alone reads it: the kernel takes that along."""
        readers = self._index.readers.get(tensor, [])
        is_inner = tensor not in self._index.outputs and len(readers) == 1 and readers[0].op_type == "Relu"
        return readers[0].output[0] if is_inner else tensor


def _join_gelu(model: onnx.ModelProto) -> None:
    """Write ``x * 0.5 * (1 + erf(x / sqrt(2)))`` as Gelu, in place; the steps in between are left unread."""
    index = ProductIndex(model)
    for node in list(model.graph.node):
        if node.op_type == "Erf" and (found := _gelu_around(index, node)):
            last, x = found
            last.op_type, last.domain = "Gelu", _MICROSOFT
            last.input[:] = [x]
            del last.attribute[:]
    if not any(each.domain == _MICROSOFT for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))


def _gelu_around(index: ProductIndex, erf: onnx.NodeProto) -> tuple[onnx.NodeProto, str] | None:
    """Return the last step of a GELU, and the tensor that it is of; None if the node belongs to none."""
    scaled = index.producers.get(erf.input[0])
    if scaled is None or scaled.op_type not in ("Div", "Mul"):
        return None
    x, factor = _variable_and_constant(index, scaled)
    if factor is None or not math.isclose(factor, math.sqrt(0.5 if scaled.op_type == "Mul" else 2), rel_tol=1e-5):
        return None
    shifted = _only_reader(index, erf)
    if shifted is None or shifted.op_type != "Add" or _variable_and_constant(index, shifted)[1] != 1:
        return None
    last, others = shifted, [x, 0.5]
    while others:
        before, reader = last.output[0], _only_reader(index, last)
        if reader is None or reader.op_type != "Mul":
            return None
        other = next((name for name in reader.input if name != before), "")
        constant = _number_in(index, other)
        if (other if constant is None else constant) not in others:
            return None
        others.remove(other if constant is None else constant)
        last = reader
    return last, x


def _only_reader(index: ProductIndex, node: onnx.NodeProto) -> onnx.NodeProto | None:
    readers = index.readers.get(node.output[0], [])
    return readers[0] if len(readers) == 1 and node.output[0] not in index.outputs else None


def _number_in(index: ProductIndex, tensor: str) -> float | None:
    """Return the value of a constant that holds one number."""
    name = index.constant_behind(tensor)
    if name is None or math.prod(index.initializers[name].dims) != 1:
        return None
    return float(numpy_helper.to_array(index.initializers[name]).ravel()[0])


def _variable_and_constant(index: ProductIndex, node: onnx.NodeProto) -> tuple[str, float | None]:
    """Return the two inputs of a node as a tensor and a number; for Div the number must stand second."""
    first, second = node.input
    constant = _number_in(index, second)
    if constant is not None or node.op_type == "Div":
        return first, constant
    return second, _number_in(index, first)


def _turn_classifiers(model: onnx.ModelProto) -> None:
    """Write the last convolutions as matrix products over channels that lie last, in place."""
    index, shapes = ProductIndex(model), shapes_of(model)
    last = index.last_products()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        turns = name_of(node) in last and _is_pointwise(index, node) and node.output[0] in shapes
        model.graph.node.extend(_as_matrix_product(model.graph, index, shapes, node) if turns else [node])


def _is_pointwise(index: ProductIndex, node: onnx.NodeProto) -> bool:
    """Return whether a node is a convolution of each pixel by itself, with constants."""
    constants = [index.constant_behind(name) for name in node.input[1:] if name]
    if node.op_type != "Conv" or None in constants:
        return False
    neutral = {"strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0]}
    is_plain = all(attribute_of(node, name, value) == value for name, value in neutral.items())
    dims = list(index.initializers[constants[0] or ""].dims)
    return dims[2:] == [1, 1] and is_plain and attribute_of(node, "group", 1) == 1


def _as_matrix_product(
    graph: onnx.GraphProto, index: ProductIndex, shapes: Mapping[str, tuple[int, ...]], node: onnx.NodeProto
) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that stand for a convolution of 1x1; the product bears its name."""
    name, output = name_of(node), node.output[0]
    batch, channels, height, width = shapes[output]
    weight, *bias = (
        numpy_helper.to_array(index.initializers[index.constant_behind(each) or ""]) for each in node.input[1:]
    )

    def constant(part: str, values: NDArray[np.float32]) -> str:
        graph.initializer.append(numpy_helper.from_array(values, f"{name}/{part}"))
        return f"{name}/{part}"

    def declared(part: str, last: int) -> str:
        info = helper.make_tensor_value_info(f"{name}/{part}", TensorProto.FLOAT, [batch, height, width, last])
        graph.value_info.append(info)
        return f"{name}/{part}"

    turned, product = declared("channels_last", weight.shape[1]), declared("product", channels)
    matrix = constant("matrix", np.ascontiguousarray(weight[:, :, 0, 0].T))
    yield helper.make_node("Transpose", [node.input[0]], [turned], name=turned, perm=[0, 2, 3, 1])
    yield helper.make_node("MatMul", [turned, matrix], [product], name=name)
    if bias:
        product, before = declared("sum", channels), product
        yield helper.make_node("Add", [before, constant("added", bias[0])], [product], name=product)
    yield helper.make_node("Transpose", [product], [output], name=f"{name}/channels_first", perm=[0, 3, 1, 2])
