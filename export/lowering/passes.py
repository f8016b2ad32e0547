"""From a traced graph to a finished one: fold, lower, name, check."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from sfpp.export.lowering.emitter import Emitter
from sfpp.export.lowering.symbolic import DOMAIN, INPUT_SHAPE
from sfpp.export.lowering.targets import ONNXRUNTIME, PORTABLE, Lowering
from sfpp.runtime.contract import Target

LOWERINGS: dict[Target, Mapping[str, Lowering]] = {
    "portable": PORTABLE,
    "onnxruntime": ONNXRUNTIME,
    # The portable graph already has attention in the form that OpenVINO fuses, and keeps to TensorRT's limits: TopK, no
    # Scatter that adds, int32 indices, opset 17.
    "openvino": PORTABLE,
    "tensorrt": PORTABLE,
}


def lowered(model: onnx.ModelProto, target: Target, *, frames: int = 1) -> onnx.ModelProto:
    """Return a traced model with every node of the domain ``sfpp`` spelled out for ``target``.

    ``frames`` is how many at once it must fit into memory for, if more than it was traced with.

    The result has static shapes on every tensor, no foldable arithmetic on shapes, readable names, equal constants
    stored once, and only standard operators of the model's opset, or the target's own; it has passed ONNX's checker.
    """
    graph = gs.import_onnx(model)
    graph.fold_constants(error_ok=False).cleanup()
    _replace_nodes(graph, LOWERINGS[target], frames)
    graph.cleanup().toposort()
    graph.import_domains = [each for each in graph.import_domains if each.domain != DOMAIN]
    used = sorted({node.domain for node in graph.nodes if node.domain})
    graph.import_domains += [onnx.helper.make_opsetid(domain, 1) for domain in used]
    graph = _without_shape_arithmetic(graph)
    share_constants(graph)
    name_tensors(graph)
    finished = _with_shapes(graph.cleanup().toposort())
    onnx.checker.check_model(finished, full_check=True)
    return finished


def _without_shape_arithmetic(graph: gs.Graph) -> gs.Graph:
    """Fold what the trace computed from shapes that an unknown operator hid.

    Each round reveals the shapes up to the next tensor whose shape was computed.
    """
    before = math.inf
    while (count := len(graph.nodes)) < before:
        before = count
        graph = gs.import_onnx(_with_shapes(graph))
        graph.fold_constants(error_ok=False).cleanup()
        if not any(node.op == "Shape" for node in graph.nodes):
            break
    return graph


def _with_shapes(graph: gs.Graph) -> onnx.ModelProto:
    """Return the graph with the shape of every tensor, as far as it can be inferred."""
    for tensor in graph.tensors().values():
        if tensor.shape is not None and not all(isinstance(size, int) for size in tensor.shape):
            tensor.shape = None  # a symbol left by an earlier inference would stand in the way of a number
    return onnx.shape_inference.infer_shapes(gs.export_onnx(graph), strict_mode=True)


def _replace_nodes(graph: gs.Graph, lowerings: Mapping[str, Lowering], frames: int) -> None:
    emit = Emitter(graph, frames=frames)
    for node in [each for each in graph.nodes if each.domain == DOMAIN]:
        for index, tensor in enumerate(node.inputs):
            if tensor.shape is None:
                tensor.shape, tensor.dtype = tuple(node.attrs[f"{INPUT_SHAPE}{index}"]), np.dtype(np.float32)
        emit.replace(node.name)
        results = lowerings[node.op](emit, node)
        _reconnect(node, results if isinstance(results, tuple) else (results,))


def _reconnect(node: gs.Node, results: tuple[gs.Variable, ...]) -> None:
    """Give the consumers of a replaced node its replacement."""
    for old, new in zip(list(node.outputs), results, strict=True):
        for consumer in list(old.outputs):
            for index, tensor in enumerate(consumer.inputs):
                if tensor is old:
                    consumer.inputs[index] = new
    node.outputs.clear()
    node.inputs.clear()


def share_constants(graph: gs.Graph) -> None:
    """Let nodes that use equal constants use the same one."""
    first: dict[tuple[str, tuple[int, ...], bytes], gs.Constant] = {}
    for node in graph.nodes:
        for index, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant):
                content = hashlib.sha256(tensor.values.tobytes()).digest()
                key = (str(tensor.values.dtype), tuple(tensor.values.shape), content)
                node.inputs[index] = first.setdefault(key, tensor)


def name_tensors(graph: gs.Graph) -> None:
    """Name nodes by their path in the network and anonymous constants after the node that uses them."""
    for node in graph.nodes:
        node.name = node.name.strip("/")
    for tensor in graph.tensors().values():
        anonymous = tensor.name.startswith(("onnx::", "/", "_"))
        if isinstance(tensor, gs.Constant) and anonymous and tensor.outputs:
            first = tensor.outputs[0]
            tensor.name = f"{first.name}/{_position(first, tensor)}"
        else:
            tensor.name = tensor.name.strip("/")


def _position(node: gs.Node, tensor: gs.Tensor) -> str:
    index = next(index for index, each in enumerate(node.inputs) if each is tensor)
    return "weight" if node.op in ("MatMul", "Conv") and index == 1 else f"constant_{index}"
