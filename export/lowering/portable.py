"""The portable lowering: standard operators only, within the limits of TensorRT, ONNX Runtime and OpenVINO.

TensorRT takes at most 3840 values out of a TopK, and knows no Scatter that adds. So the sources that stay are taken in
passes, and a merge is a product with a one-hot matrix. Indices are int32 throughout, which every TensorRT has natively.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from sfpp.export.lowering.emitter import Emitter
from sfpp.export.models.recipe import Partition, partition_grid
from sfpp.export.models.token_merging import NORM_EPS

TOPK_LIMIT = 3840
# Above this a score matrix is computed in parts: stage 1 of a 3840x2160 frame without merging would take 16 GiB.
SCORE_BYTES_LIMIT = 1 << 29
# Larger than any cosine similarity, and exact in float16: marks the values that an earlier pass has taken.
_TAKEN = 4.0


def lower_attend(emit: Emitter, node: gs.Node) -> gs.Variable:
    """Spell out attention as MatMul, Softmax, MatMul for each head."""
    query, key, value = node.inputs
    heads, scale = node.attrs["heads"], node.attrs["scale"]
    batch, tokens, channels = query.shape
    queries = _heads(emit, query, "query_heads", heads, (0, 2, 1, 3))
    keys = _heads(emit, key, "key_heads", heads, (0, 2, 3, 1))
    values = _heads(emit, value, "value_heads", heads, (0, 2, 1, 3))
    if scale != 1.0:
        factor = emit.constant(f"attention/scale_{scale:.6g}", np.array(scale, np.float32))
        queries = emit.output("Mul", [queries, factor], "scaled_query", queries.shape)
    parts = [
        _attend_part(emit, part, keys, values, suffix) for part, suffix in _query_parts(emit, queries, keys.shape[3])
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
    count = -(-batch * heads * tokens * context * 4 // SCORE_BYTES_LIMIT)
    if count == 1:
        return [(queries, "")]
    sizes = [len(part) for part in np.array_split(np.arange(tokens), count)]
    outputs = [(np.float32, (batch, heads, size, width)) for size in sizes]
    table = emit.constant(f"attention/parts_{tokens}_{count}", np.array(sizes, np.int64))
    parts = emit.outputs("Split", [queries, table], "query_parts", *outputs, axis=2)
    return [(part, f"_{index}") for index, part in enumerate(parts)]


def _attend_part(
    emit: Emitter, queries: gs.Variable, keys: gs.Variable, values: gs.Variable, suffix: str
) -> gs.Variable:
    scores_shape = (*queries.shape[:3], keys.shape[3])
    scores = emit.output("MatMul", [queries, keys], f"scores{suffix}", scores_shape)
    weights = emit.output("Softmax", [scores], f"weights{suffix}", scores_shape, axis=-1)
    return emit.output("MatMul", [weights, values], f"weighted{suffix}", queries.shape)


@dataclass(frozen=True)
class _Geometry:
    """The grid and cell of a merging node, and the index tables that follow from them."""

    key: str
    partition: Partition

    @staticmethod
    def of(node: gs.Node) -> _Geometry:
        grid_h, grid_w, cell_h, cell_w = (node.attrs[name] for name in ("grid_h", "grid_w", "cell_h", "cell_w"))
        key = f"merging/grid{grid_h}x{grid_w}_cell{cell_h}x{cell_w}"
        return _Geometry(key, partition_grid((grid_h, grid_w), (cell_h, cell_w)))

    def sources_of(self, emit: Emitter, tensor: gs.Tensor, name: str) -> gs.Variable:
        """Gather the source tokens (batch, S, channels)."""
        return self._gather(emit, tensor, name, "sources", self.partition.sources)

    def destinations_of(self, emit: Emitter, tensor: gs.Tensor, name: str) -> gs.Variable:
        """Gather the destination tokens (batch, D, channels)."""
        return self._gather(emit, tensor, name, "destinations", self.partition.destinations)

    def _gather(self, emit: Emitter, tensor: gs.Tensor, name: str, which: str, index: np.ndarray) -> gs.Variable:
        table = emit.constant(f"{self.key}/{which}", index.astype(np.int32))
        batch, _, channels = tensor.shape
        return emit.output("Gather", [tensor, table], name, (batch, len(index), channels), axis=1)


def lower_match(emit: Emitter, node: gs.Node) -> tuple[gs.Variable, gs.Variable]:
    """Spell out the matching; returns kept (batch, keep), empty if nothing is kept, and partner (batch, S), int32."""
    (tokens,) = node.inputs
    geometry = _Geometry.of(node)
    batch = tokens.shape[0]
    unit = _unit_tokens(emit, tokens)
    sources = geometry.sources_of(emit, unit, "match_sources")
    destinations = geometry.destinations_of(emit, unit, "match_destinations")
    count_s, count_d = len(geometry.partition.sources), len(geometry.partition.destinations)
    transposed = emit.transpose(destinations, "match_destinations_t", (0, 2, 1))
    similarity = emit.output("MatMul", [sources, transposed], "similarity", (batch, count_s, count_d))
    one = emit.constant("merging/one", np.array([1], np.int64))
    best, partner = emit.outputs(
        "TopK", [similarity, one], "best", (np.float32, (batch, count_s, 1)), (np.int64, (batch, count_s, 1)), axis=-1
    )
    partner = emit.reshape(_as_int32(emit, partner, "partner_index"), "partner", (batch, count_s))
    keep = node.attrs["keep"]
    if keep == 0:
        return gs.Variable.empty(), partner
    return _smallest(emit, emit.reshape(best, "best_similarity", (batch, count_s)), keep), partner


def _unit_tokens(emit: Emitter, tokens: gs.Tensor) -> gs.Variable:
    """Divide each token by its length."""
    column = (*tokens.shape[:2], 1)
    square = emit.output("Mul", [tokens, tokens], "square", tokens.shape)
    axes = emit.constant("merging/last_axis", np.array([-1], np.int64))
    total = emit.output("ReduceSum", [square, axes], "square_sum", column, keepdims=1)
    guard = emit.constant("merging/norm_eps", np.array(NORM_EPS, np.float32))
    norm = emit.output("Sqrt", [emit.output("Add", [total, guard], "square_norm", column)], "norm", column)
    return emit.output("Div", [tokens, norm], "unit_tokens", tokens.shape)


def _smallest(emit: Emitter, values: gs.Variable, keep: int) -> gs.Variable:
    """Return the positions (batch, keep) int32 of the smallest values, in passes that TensorRT's TopK allows."""
    batch = values.shape[0]
    found: list[gs.Variable] = []
    for number, start in enumerate(range(0, keep, TOPK_LIMIT)):
        size = min(TOPK_LIMIT, keep - start)
        if found:
            values = _mark_taken(emit, values, found[-1], f"untaken_{number}")
        width = emit.constant(f"merging/topk_{size}", np.array([size], np.int64))
        shape = (batch, size)
        outputs = ((np.float32, shape), (np.int64, shape))
        _, index = emit.outputs("TopK", [values, width], f"least_{number}", *outputs, axis=1, largest=0)
        found.append(_as_int32(emit, index, "kept" if keep <= TOPK_LIMIT else f"kept_part_{number}"))
    if len(found) == 1:
        return found[0]
    return emit.output("Concat", found, "kept", (batch, keep), dtype=np.int32, axis=1)


def _mark_taken(emit: Emitter, values: gs.Variable, taken: gs.Variable, name: str) -> gs.Variable:
    batch, size = taken.shape
    marks = emit.constant(f"merging/taken_{batch}x{size}", np.full((batch, size), _TAKEN, np.float32))
    return emit.output("ScatterElements", [values, taken, marks], name, values.shape, axis=1)


def lower_merge(emit: Emitter, node: gs.Node) -> gs.Variable:
    """Spell out the merge: kept sources, then each destination's mean with what is merged into it."""
    tokens, kept, partner = node.inputs
    geometry = _Geometry.of(node)
    batch, _, channels = tokens.shape
    count_d = len(geometry.partition.destinations)
    sources = geometry.sources_of(emit, tokens, "sources")
    destinations = geometry.destinations_of(emit, tokens, "destinations")
    one_hot = _assignment(emit, partner, kept, count_d)
    added = emit.output("MatMul", [one_hot, sources], "added", (batch, count_d, channels))
    axes = emit.constant("merging/last_axis", np.array([-1], np.int64))
    counts = emit.output("ReduceSum", [one_hot, axes], "added_count", (batch, count_d, 1), keepdims=1)
    one = emit.constant("merging/one_float", np.array(1.0, np.float32))
    counts = emit.output("Add", [counts, one], "count", (batch, count_d, 1))
    totals = emit.output("Add", [destinations, added], "total", (batch, count_d, channels))
    means = emit.output("Div", [totals, counts], "mean", (batch, count_d, channels))
    if kept.is_empty():
        return means
    kept_tokens = _gather_each(emit, sources, kept, "kept_tokens")
    return emit.output("Concat", [kept_tokens, means], "merged", node.outputs[0].shape, axis=1)


def _assignment(emit: Emitter, partner: gs.Variable, kept: gs.Variable, count_d: int) -> gs.Variable:
    """Return the one-hot matrix (batch, D, S): 1 where a source is merged into a destination."""
    batch, count_s = partner.shape
    if not kept.is_empty():
        keep = kept.shape[1]
        nowhere = emit.constant(f"merging/nowhere_{batch}x{keep}", np.full((batch, keep), -1, np.int32))
        partner = emit.output(
            "ScatterElements", [partner, kept, nowhere], "assigned", partner.shape, dtype=np.int32, axis=1
        )
    row = emit.reshape(partner, "assigned_row", (batch, 1, count_s))
    column = emit.constant(f"merging/column_{count_d}", np.arange(count_d, dtype=np.int32).reshape(1, count_d, 1))
    shape = (batch, count_d, count_s)
    equal = emit.output("Equal", [row, column], "is_assigned", shape, dtype=np.bool_)
    return emit.output("Cast", [equal], "one_hot", shape, to=np.float32)


def lower_unmerge(emit: Emitter, node: gs.Node) -> gs.Variable:
    """Spell out the way back: one index for each token of the grid, one Gather."""
    merged, kept, partner = node.inputs
    geometry = _Geometry.of(node)
    batch, count_s = partner.shape
    count_d = len(geometry.partition.destinations)
    keep = 0 if kept.is_empty() else kept.shape[1]
    rows = partner
    if not kept.is_empty():
        offset = emit.constant(f"merging/offset_{keep}", np.array(keep, np.int32))
        rows = emit.output("Add", [partner, offset], "row_of_partner", partner.shape, dtype=np.int32)
        own = emit.constant(f"merging/own_{batch}x{keep}", np.tile(np.arange(keep, dtype=np.int32), (batch, 1)))
        rows = emit.output("ScatterElements", [rows, kept, own], "row_of_source", rows.shape, dtype=np.int32, axis=1)
    last = np.tile(np.arange(keep, keep + count_d, dtype=np.int32), (batch, 1))
    own_rows = emit.constant(f"merging/rows_{keep}_{batch}x{count_d}", last)
    shape = (batch, count_s + count_d)
    both = emit.output("Concat", [rows, own_rows], "row_by_part", shape, dtype=np.int32, axis=1)
    order = np.argsort(np.concatenate([geometry.partition.sources, geometry.partition.destinations]))
    table = emit.constant(f"{geometry.key}/grid_order", order.astype(np.int32))
    row_of_token = emit.output("Gather", [both, table], "row_of_token", shape, dtype=np.int32, axis=1)
    return _gather_each(emit, merged, row_of_token, "unmerged")


def _gather_each(emit: Emitter, tensor: gs.Tensor, index: gs.Variable, name: str) -> gs.Variable:
    """Gather tokens of (batch, N, channels) by (batch, K), each frame by its own indices, with one plain Gather."""
    batch, tokens, channels = tensor.shape
    shape = (batch, index.shape[1], channels)
    if batch > 1:
        starts = np.arange(batch, dtype=np.int32).reshape(batch, 1) * tokens
        table = emit.constant(f"merging/frame_starts_{batch}_{tokens}", starts)
        index = emit.output("Add", [index, table], f"{name}_flat_index", index.shape, dtype=np.int32)
    flat = emit.reshape(tensor, f"{name}_flat", (batch * tokens, channels))
    flat_index = emit.reshape(index, f"{name}_index", (batch * index.shape[1],))
    rows = emit.output("Gather", [flat, flat_index], f"{name}_rows", (batch * index.shape[1], channels), axis=0)
    return emit.reshape(rows, name, shape)


def _as_int32(emit: Emitter, tensor: gs.Variable, name: str) -> gs.Variable:
    return emit.output("Cast", [tensor], name, tensor.shape, dtype=np.int32, to=np.int32)


Lowering = Callable[[Emitter, gs.Node], "gs.Variable | tuple[gs.Variable, ...]"]
PORTABLE: dict[str, Lowering] = {
    "Attend": lower_attend,
    "MatchBipartite": lower_match,
    "MergeBipartite": lower_merge,
    "UnmergeBipartite": lower_unmerge,
}
