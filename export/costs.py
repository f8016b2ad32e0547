"""What a run of an exported graph takes, counted node by node."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import onnx

from sfpp.tooling.graph import bytes_of, infos_of, running_order

ADVICE = (
    "take a smaller size (--res) or a variant that merges more, close other programs, or do it on a machine with more "
    "memory: the file itself needs less where it runs"
)
# What these give is what they take under another shape: ONNX Runtime copies nothing.
_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})


def multiply_adds(model: onnx.ModelProto) -> Counter[str]:
    """Count the multiply-adds of every matrix product and convolution of a graph with static shapes.

    Additions, norms, softmax and interpolation are not counted, as the papers do not count them.

    Returns:
        Multiply-adds by operator (``Conv``, ``MatMul``); ``.total()`` is the sum.
    """
    counts: Counter[str] = Counter()
    for node, count in products(model):
        counts[node.op_type] += count
    return counts


def products(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Yield every matrix product and convolution of a graph with static shapes, and its multiply-adds."""
    infos = infos_of(model.graph).items()
    shapes = {name: tuple(each.dim_value for each in info.type.tensor_type.shape.dim) for name, info in infos}
    shapes.update((each.name, tuple(each.dims)) for each in model.graph.initializer)
    for node in model.graph.node:
        if node.op_type == "MatMul":
            yield node, math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        elif node.op_type == "Conv":
            # Each output value is a product over the kernel and the input channels of its group.
            yield node, math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "MultiHeadAttention":
            # Scores and their product with the values; (batch, tokens, channels) of queries, keys, and values.
            query, key, value = (shapes[name] for name in node.input[:3])
            yield node, query[0] * query[1] * key[1] * (query[2] + value[2])


def activation_bytes(model: onnx.ModelProto) -> int:
    """Count the bytes that all nodes of a graph with static shapes read and write, constants left out.

    A backend that fuses nodes moves less.
    """
    sizes = bytes_of(model.graph)
    return sum(sizes.get(name, 0) for node in model.graph.node for name in (*node.input, *node.output))


def live_bytes(model: onnx.ModelProto, *, fused: bool = False) -> int:
    """Return the most bytes that tensors alive at one time take in a run of a graph with static shapes.

    Constants are left out. The order is that of ONNX Runtime, where each tensor is computed when the next one needs it:
    of attention in parts, one part's scores are alive at a time.

    Args:
        model: the graph, with the shape of every tensor.
        fused: whether attention is computed without ever holding scores, as OpenVINO does.
    """
    sizes, owners = bytes_of(model.graph), dict[str, str]()
    nodes = [model.graph.node[index] for index in running_order(model.graph.node)]
    for node in nodes:
        if fused and node.op_type == "Softmax":
            sizes.update(dict.fromkeys((node.input[0], node.output[0]), 0))
        if node.op_type in _VIEWS:
            owners[node.output[0]] = owners.get(node.input[0], node.input[0])
    last = {owners.get(name, name): index for index, node in enumerate(nodes) for name in (*node.input, *node.output)}
    last.update({owners.get(each.name, each.name): len(nodes) for each in model.graph.output})
    ending: dict[int, int] = Counter()
    for name, index in last.items():
        ending[index] += sizes.get(name, 0)
    now = peak = sum(sizes.get(each.name, 0) for each in model.graph.input)
    for index, node in enumerate(nodes):
        now += sum(sizes.get(name, 0) for name in node.output if name not in owners)
        peak = max(peak, now)
        now -= ending[index]
    return peak
