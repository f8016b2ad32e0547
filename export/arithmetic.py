"""Multiply-adds of an exported graph, counted node by node."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs


def multiply_adds(model: onnx.ModelProto | str | Path) -> Counter[str]:
    """Count the multiply-adds of every matrix product and convolution of a graph with static shapes.

    Additions, norms, softmax and interpolation are not counted, as the papers do not count them.

    Returns:
        Multiply-adds by operator (``Conv``, ``MatMul``); ``.total()`` is the sum.
    """
    if not isinstance(model, onnx.ModelProto):
        model = onnx.load(str(model))
    counts: Counter[str] = Counter()
    for node in gs.import_onnx(model).nodes:
        if node.op == "MatMul":
            counts[node.op] += math.prod(node.outputs[0].shape) * node.inputs[0].shape[-1]
        elif node.op == "Conv":
            # Each output value is a product over the kernel and the input channels of its group.
            counts[node.op] += math.prod(node.outputs[0].shape) * math.prod(node.inputs[1].shape[1:])
        elif node.op == "MultiHeadAttention":
            # Scores and their product with the values; (batch, tokens, channels) of queries, keys, and values.
            query, key, value = (each.shape for each in node.inputs[:3])
            counts[node.op] += query[0] * query[1] * key[1] * (query[2] + value[2])
    return counts


def activation_bytes(model: onnx.ModelProto) -> int:
    """Count the bytes that all nodes of a graph with static shapes read and write, constants left out.

    A backend that fuses nodes moves less.
    """
    total = 0
    for node in gs.import_onnx(model).nodes:
        tensors = [each for each in (*node.inputs, *node.outputs) if isinstance(each, gs.Variable) and each.shape]
        total += sum(math.prod(each.shape) * np.dtype(each.dtype).itemsize for each in tensors)
    return total
