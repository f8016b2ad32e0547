"""What each target is given: standard operators only, within the limits of TensorRT, ONNX Runtime and OpenVINO.

ONNX Runtime gets its own fused attention.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from sfpp.export.lowering.emitter import Emitter
from sfpp.export.lowering.kmeans import lower_cell_totals, lower_grid_totals, lower_nearest_cell, lower_unmerge_cells
from sfpp.export.lowering.merging import (
    lower_local_match,
    lower_local_merge,
    lower_match,
    lower_merge,
    lower_unmerge,
    lower_unmerge_windows,
)

# Above this a score matrix is computed in parts: stage 1 of a 3840x2160 frame without merging would take 16 GiB.
SCORE_BYTES_LIMIT = 1 << 29
Lowering = Callable[[Emitter, gs.Node], "gs.Variable | tuple[gs.Variable, ...]"]
MICROSOFT = "com.microsoft"


def lower_attend(emit: Emitter, node: gs.Node) -> gs.Variable:
    """Spell out attention as MatMul, Softmax, MatMul for each head, in parts where the score matrix is large.

    OpenVINO, which fuses these and never holds scores, does so with parts too, in the same time and memory; and with
    the logs of sizes between, which it takes for a mask.
    """
    query, key, value, *log_size = node.inputs
    heads, scale = node.attrs["heads"], node.attrs["scale"]
    batch, tokens, channels = query.shape
    queries = _heads(emit, query, "query_heads", heads, (0, 2, 1, 3))
    keys = _heads(emit, key, "key_heads", heads, (0, 2, 3, 1))
    values = _heads(emit, value, "value_heads", heads, (0, 2, 1, 3))
    if scale != 1.0:
        factor = emit.constant(f"attention/scale_{scale:.6g}", np.array(scale, np.float32))
        queries = emit.output("Mul", [queries, factor], "scaled_query", queries.shape)
    added = [emit.reshape(each, "log_size", (each.shape[0], 1, 1, each.shape[1])) for each in log_size]
    parts = [
        _attend_part(emit, part, keys, values, added, suffix)
        for part, suffix in _query_parts(emit, queries, keys.shape[3])
    ]
    mixed = parts[0]
    if len(parts) > 1:
        mixed = emit.output("Concat", parts, "mixed", queries.shape, axis=2)
    return emit.reshape(emit.transpose(mixed, "mixed_tokens", (0, 2, 1, 3)), "attended", (batch, tokens, channels))


def _heads(emit: Emitter, tensor: gs.Tensor, name: str, heads: int, axes: tuple[int, ...]) -> gs.Variable:
    batch, tokens, channels = tensor.shape
    split = emit.reshape(tensor, f"{name}_split", (batch, tokens, heads, channels // heads))
    return emit.transpose(split, name, axes)


def _query_parts(emit: Emitter, queries: gs.Variable, context: int) -> list[tuple[gs.Variable, str]]:
    """Split the queries so that no part's score matrix exceeds the limit."""
    batch, heads, tokens, width = queries.shape
    count = -(-max(batch, emit.frames) * heads * tokens * context * 4 // SCORE_BYTES_LIMIT)
    if count == 1:
        return [(queries, "")]
    sizes = [len(part) for part in np.array_split(np.arange(tokens), count)]
    outputs = [(np.float32, (batch, heads, size, width)) for size in sizes]
    table = emit.constant(f"attention/parts_{tokens}_{count}", np.array(sizes, np.int64))
    parts = emit.outputs("Split", [queries, table], "query_parts", *outputs, axis=2)
    return [(part, f"_{index}") for index, part in enumerate(parts)]


def _attend_part(
    emit: Emitter, queries: gs.Variable, keys: gs.Variable, values: gs.Variable, added: list[gs.Variable], suffix: str
) -> gs.Variable:
    scores_shape = (*queries.shape[:3], keys.shape[3])
    scores = emit.output("MatMul", [queries, keys], f"scores{suffix}", scores_shape)
    for each in added:
        scores = emit.output("Add", [scores, each], f"sized_scores{suffix}", scores_shape)
    weights = emit.output("Softmax", [scores], f"weights{suffix}", scores_shape, axis=-1)
    return emit.output("MatMul", [weights, values], f"weighted{suffix}", queries.shape)


def lower_attend_fused(emit: Emitter, node: gs.Node) -> gs.Variable:
    """Write attention as MultiHeadAttention, which works in tiles and never holds the score matrix.

    It takes no addend that is the same for all queries. The log of a key's size is one more channel instead, in which
    each query has the inverse of the scale.
    """
    query, key, value, *log_size = node.inputs
    heads, scale = node.attrs["heads"], node.attrs["scale"]
    result_shape = query.shape
    for each in log_size:
        query, key = _with_constant(emit, query, heads, 1 / scale), _with_channel(emit, key, heads, each)
    # Zero would mean 1 / sqrt(head width) to ONNX Runtime; a scale of 1 is written out.
    return emit.output(
        "MultiHeadAttention",
        [query, key, value],
        "attended",
        result_shape,
        domain=MICROSOFT,
        num_heads=heads,
        scale=float(scale),
    )


def _with_constant(emit: Emitter, query: gs.Variable, heads: int, value: float) -> gs.Variable:
    """Return queries with one more channel in each head that is ``value``: another row of the projection's bias."""
    (add,) = query.inputs
    (product,), (bias,) = (
        [each for each in add.inputs if isinstance(each, kind)] for kind in (gs.Variable, gs.Constant)
    )
    tokens, weight = product.inputs[0].inputs
    room, ends = np.zeros((weight.shape[0], heads, 1), np.float32), np.full((heads, 1), value, np.float32)
    wide = np.concatenate([weight.values.reshape(weight.shape[0], heads, -1), room], 2).reshape(weight.shape[0], -1)
    wide_bias = np.concatenate([bias.values.reshape(heads, -1), ends], 1).reshape(-1)
    shape = (*query.shape[:2], wide.shape[1])
    projected = emit.output(
        "MatMul", [tokens, emit.constant(f"{weight.name}/sized", wide)], "sized_query/MatMul", shape
    )
    return emit.output("Add", [projected, emit.constant(f"{bias.name}/sized", wide_bias)], "sized_query/Add", shape)


def _with_channel(emit: Emitter, keys: gs.Variable, heads: int, values: gs.Variable) -> gs.Variable:
    """Return (batch, M, channels) with one more channel in each head: ``values`` (batch or 1, M)."""
    batch, tokens, channels = keys.shape
    shape = (batch, tokens, heads, 1)
    column = emit.reshape(values, "log_size", (values.shape[0], tokens, 1, 1))
    last = emit.output("Expand", [column, emit.shape(*shape)], "log_size_by_head", shape)
    split = emit.reshape(keys, "key_split", (batch, tokens, heads, channels // heads))
    both = emit.output("Concat", [split, last], "key_with_size", (*shape[:3], channels // heads + 1), axis=3)
    return emit.reshape(both, "sized_key", (batch, tokens, channels + heads))


PORTABLE: dict[str, Lowering] = {
    "Attend": lower_attend,
    "AttendSized": lower_attend,
    "MatchBipartite": lambda emit, node: (lower_local_match if node.attrs["local"] else lower_match)(emit, node),
    "MergeBipartite": lambda emit, node: (lower_local_merge if node.attrs["local"] else lower_merge)(emit, node),
    "UnmergeBipartite": lower_unmerge,
    "UnmergeWindows": lower_unmerge_windows,
    "GridTotals": lower_grid_totals,
    "NearestCell": lower_nearest_cell,
    "CellTotals": lower_cell_totals,
    "UnmergeCells": lower_unmerge_cells,
}

# Merging stays as in the portable graph. A ScatterND that adds would take a hundredth of the time of the one-hot
# product, but ONNX Runtime 1.31 runs it in threads that overwrite each other's sums where indices repeat (17 of 200
# runs came out wrong); its ScatterElements adds in one thread and gains nothing below 2000 destinations.
ONNXRUNTIME: dict[str, Lowering] = {
    **PORTABLE,
    **dict.fromkeys(("Attend", "AttendSized"), lower_attend_fused),
}
