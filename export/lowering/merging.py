"""Merging over the whole grid, spelled out: matching, merge and unmerge in standard operators.

TensorRT takes at most 3840 values out of a TopK, and knows no Scatter that adds. So the sources that stay are taken in
passes, and a merge is a product with a one-hot matrix. Indices are int32 throughout, which every TensorRT has natively.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from sfpp.export.lowering.emitter import Emitter
from sfpp.export.lowering.geometry import Geometry
from sfpp.export.models.token_merging import NORM_EPS

TOPK_LIMIT = 3840
# Larger than any cosine similarity, and exact in float16: marks the values that an earlier pass has taken.
_TAKEN = 4.0


def lower_match(emit: Emitter, node: gs.Node) -> tuple[gs.Variable, gs.Variable]:
    """Spell out the matching; returns kept (batch, keep), empty if nothing is kept, and partner (batch, S), int32."""
    (tokens,) = node.inputs
    geometry = Geometry.of(node)
    batch = tokens.shape[0]
    sources = geometry.sources_of(emit, tokens, "sources")
    destinations = unit_tokens(emit, geometry.destinations_of(emit, tokens, "destinations"))
    count_s, count_d = len(geometry.partition.sources), len(geometry.partition.destinations)
    transposed = emit.transpose(destinations, "match_destinations_t", (0, 2, 1))
    similarity = emit.output("MatMul", [sources, transposed], "similarity", (batch, count_s, count_d))
    best, index = best_of_last_axis(emit, similarity)
    partner = emit.reshape(index, "partner", (batch, count_s))
    keep = node.attrs["keep"]
    if keep == 0:
        return gs.Variable.empty(), partner
    # The length of a source does not change which destination is best, only how good it is: one division a source.
    best = emit.output("Div", [best, lengths(emit, sources, "source")], "best_cosine", best.shape)
    return smallest(emit, emit.reshape(best, "best_similarity", (batch, count_s)), keep), partner


def best_of_last_axis(emit: Emitter, similarity: gs.Variable) -> tuple[gs.Variable, gs.Variable]:
    """Return the largest value of each row and where it stands, int32; both keep the axis with size 1."""
    shape = (*similarity.shape[:-1], 1)
    one = emit.constant("merging/one", np.array([1], np.int64))
    outputs = ((np.float32, shape), (np.int64, shape))
    best, index = emit.outputs("TopK", [similarity, one], "best", *outputs, axis=-1)
    return best, as_int32(emit, index, "partner_index")


def lengths(emit: Emitter, tokens: gs.Tensor, name: str) -> gs.Variable:
    """Return the length of each token, (..., 1)."""
    column = (*tokens.shape[:-1], 1)
    square = emit.output("Mul", [tokens, tokens], f"{name}_square", tokens.shape)
    axes = emit.constant("merging/last_axis", np.array([-1], np.int64))
    total = emit.output("ReduceSum", [square, axes], f"{name}_square_sum", column, keepdims=1)
    guard = emit.constant("merging/norm_eps", np.array(NORM_EPS, np.float32))
    return emit.output("Sqrt", [emit.output("Add", [total, guard], f"{name}_guarded", column)], f"{name}_norm", column)


def unit_tokens(emit: Emitter, tokens: gs.Variable) -> gs.Variable:
    """Divide each destination by its length."""
    return emit.output("Div", [tokens, lengths(emit, tokens, "destination")], "match_destinations", tokens.shape)


def smallest(emit: Emitter, values: gs.Variable, keep: int) -> gs.Variable:
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
        found.append(as_int32(emit, index, "kept" if keep <= TOPK_LIMIT else f"kept_part_{number}"))
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
    geometry = Geometry.of(node)
    batch, _, channels = tokens.shape
    count_d = len(geometry.partition.destinations)
    sources = geometry.sources_of(emit, tokens, "sources")
    one_hot = _assignment(emit, partner, kept, count_d)
    added = emit.output("MatMul", [one_hot, sources], "added", (batch, count_d, channels))
    axes = emit.constant("merging/last_axis", np.array([-1], np.int64))
    counts = emit.output("ReduceSum", [one_hot, axes], "added_count", (batch, count_d, 1), keepdims=1)
    destinations = geometry.destinations_of(emit, tokens, "destinations")
    return merged_tokens(emit, node, kept, sources, means(emit, destinations, added, counts))


def means(emit: Emitter, destinations: gs.Variable, added: gs.Variable, counts: gs.Variable) -> gs.Variable:
    """Return the mean of each destination and what is added to it; counts (batch, D, 1) leave the destination out."""
    one = emit.constant("merging/one_float", np.array(1.0, np.float32))
    counts = emit.output("Add", [counts, one], "count", counts.shape)
    totals = emit.output("Add", [destinations, added], "total", destinations.shape)
    return emit.output("Div", [totals, counts], "mean", destinations.shape)


def merged_tokens(
    emit: Emitter, node: gs.Node, kept: gs.Variable, sources: gs.Variable, averaged: gs.Variable
) -> gs.Variable:
    """Return the kept sources followed by all destinations."""
    if kept.is_empty():
        return averaged
    kept_tokens = gather_each(emit, sources, kept, "kept_tokens")
    return emit.output("Concat", [kept_tokens, averaged], "merged", node.outputs[0].shape, axis=1)


def assigned(emit: Emitter, partner: gs.Variable, kept: gs.Variable) -> gs.Variable:
    """Return (batch, S) int32: the destination that each source is merged into, -1 for those that stay."""
    if kept.is_empty():
        return partner
    batch, keep = partner.shape[0], kept.shape[1]
    nowhere = emit.constant(f"merging/nowhere_{batch}x{keep}", np.full((batch, keep), -1, np.int32))
    inputs = [partner, kept, nowhere]
    return emit.output("ScatterElements", inputs, "assigned", partner.shape, dtype=np.int32, axis=1)


def _assignment(emit: Emitter, partner: gs.Variable, kept: gs.Variable, count_d: int) -> gs.Variable:
    """Return the one-hot matrix (batch, D, S): 1 where a source is merged into a destination."""
    batch, count_s = partner.shape
    row = emit.reshape(assigned(emit, partner, kept), "assigned_row", (batch, 1, count_s))
    column = emit.constant(f"merging/column_{count_d}", np.arange(count_d, dtype=np.int32).reshape(1, count_d, 1))
    return one_hot_of(emit, row, column, (batch, count_d, count_s))


def one_hot_of(emit: Emitter, row: gs.Variable, column: gs.Constant, shape: tuple[int, ...]) -> gs.Variable:
    """Return 1.0 where ``row`` equals ``column``, both broadcast to ``shape``, else 0.0."""
    equal = emit.output("Equal", [row, column], "is_assigned", shape, dtype=np.bool_)
    return emit.output("Cast", [equal], "one_hot", shape, to=np.float32)


def lower_unmerge(emit: Emitter, node: gs.Node) -> gs.Variable:
    """Spell out the way back: one index for each token of the grid, one Gather."""
    merged, kept, partner = node.inputs
    geometry = Geometry.of(node)
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
    row_of_token = geometry.rows_of(emit, both, "row_of_token", "grid_order", order)
    return gather_each(emit, merged, row_of_token, "unmerged")


def gather_each(emit: Emitter, tensor: gs.Tensor, index: gs.Variable, name: str) -> gs.Variable:
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


def as_int32(emit: Emitter, tensor: gs.Variable, name: str) -> gs.Variable:
    """Append a cast to int32."""
    return emit.output("Cast", [tensor], name, tensor.shape, dtype=np.int32, to=np.int32)
