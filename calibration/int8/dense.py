"""INT8 for ONNX Runtime on a CPU: uint8 from one product to the next.

ONNX Runtime has an integer kernel for a convolution only where its result is quantized too, and a fast one only for
uint8 activations. So results of convolutions, and of what is computed from nothing but such, get Q/DQ pairs as well;
each tensor has a zero point of its own, and a bias is int32. Matrix products give float.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sfpp.calibration.int8.qdq import replace_input
from sfpp.calibration.int8.quantizable import ProductIndex
from sfpp.tooling.graph import attribute_of, copy_of, name_of, remove_unused

_MICROSOFT = "com.microsoft"
# With inputs in uint8 these run in uint8.
_ELEMENTWISE = frozenset({"Add", "Relu", "Resize"})


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


def dense_results(index: ProductIndex, chosen: Collection[str]) -> list[str]:
    """Return the results that are quantized, in the graph's order: of convolutions, and of what reads nothing but such.

    Args:
        index: of a model as :func:`prepared` gives it.
        chosen: names of the products that are to be in INT8.
    """
    found: dict[str, None] = {}
    for node in index.model.graph.node:
        if _is_dense(index, node, chosen, found):
            # The kernel takes along the ReLU that alone reads its result.
            reader = index.only_reader(node)
            last = reader if reader is not None and reader.op_type == "Relu" else node
            found[last.output[0]] = None
    return list(found)


def _is_dense(index: ProductIndex, node: onnx.NodeProto, chosen: Collection[str], found: Collection[str]) -> bool:
    if node.op_type == "Conv":
        return name_of(node) in chosen
    read = [name for name in node.input if name and index.constant_behind(name) is None]
    is_inner = bool(read) and all(index.source_of(name) in found for name in read)
    return is_inner and node.op_type in _ELEMENTWISE and node.output[0] not in index.outputs


def bias_of(index: ProductIndex, node: onnx.NodeProto) -> NDArray[np.float32] | None:
    """Return a convolution's bias, (channels,)."""
    name = index.constant_behind(node.input[2]) if node.op_type == "Conv" and len(node.input) > 2 else None
    return None if name is None else np.asarray(numpy_helper.to_array(index.initializers[name]), np.float32)


def keep_from_gemm(index: ProductIndex, node: onnx.NodeProto) -> None:
    """Give the bias that is added to a matrix product as many axes as the product has, in place.

    ONNX Runtime makes one Gemm of a matrix product and a bias of one axis, and that before it looks for quantized
    products: the Gemm would then be float, with its weight dequantized anew in every run.
    """
    reader = index.only_reader(node)
    if node.op_type != "MatMul" or reader is None or reader.op_type != "Add":
        return
    added = next((each for each in reader.input if each != node.output[0]), "")
    bias = index.constant_behind(added)
    if bias is None or len(index.initializers[bias].dims) != 1:
        return
    values, rank = numpy_helper.to_array(index.initializers[bias]), len(index.shapes[node.output[0]])
    name = f"{name_of(node)}/bias"
    index.model.graph.initializer.append(numpy_helper.from_array(values.reshape([1] * (rank - 1) + [-1]), name))
    replace_input(reader, added, name)


def _join_gelu(model: onnx.ModelProto) -> None:
    """Write ``x * 0.5 * (1 + erf(x / sqrt(2)))`` as Gelu, in place; the steps in between are left unread."""
    index = ProductIndex(model)
    for node in list(model.graph.node):
        if (found := index.gelu_around(node)) is not None:
            x, (*_, last) = found
            last.op_type, last.domain = "Gelu", _MICROSOFT
            last.input[:] = [x]
            del last.attribute[:]
    if not any(each.domain == _MICROSOFT for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))


def _turn_classifiers(model: onnx.ModelProto) -> None:
    """Write the last convolutions as matrix products over channels that lie last, in place."""
    index = ProductIndex(model)
    last = index.last_products()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        turns = name_of(node) in last and _is_pointwise(index, node) and node.output[0] in index.shapes
        model.graph.node.extend(_as_matrix_product(model.graph, index, node) if turns else [node])


def _is_pointwise(index: ProductIndex, node: onnx.NodeProto) -> bool:
    """Return whether a node is a convolution of each pixel by itself, with constants."""
    constants = [index.constant_behind(name) for name in node.input[1:] if name]
    if node.op_type != "Conv" or None in constants:
        return False
    neutral = {"strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0]}
    is_plain = all(attribute_of(node, name, value) == value for name, value in neutral.items())
    dims = list(index.initializers[constants[0] or ""].dims)
    return dims[2:] == [1, 1] and is_plain and attribute_of(node, "group", 1) == 1


def _as_matrix_product(graph: onnx.GraphProto, index: ProductIndex, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that stand for a convolution of 1x1; the product bears its name."""
    name, output = name_of(node), node.output[0]
    batch, channels, height, width = index.shapes[output]
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
