"""Merging spelled out, over the whole grid and within neighboring cells: matching, merge and unmerge in operators.

TensorRT takes at most 3840 values out of a TopK, and knows no Scatter that adds. So the sources that stay are taken in
passes, and a merge is a product with a one-hot matrix. Indices are int32 throughout, which every TensorRT has natively.

Within neighboring cells the cost is linear, without a big matrix: tokens are put in the order of their cells. Then
every cell is compared with its nine neighboring destinations by one small product, and what a cell gives to each of the
nine is another small product; each destination sums up what it was given by the cells around it.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from sfpp.export.lowering.emitter import Emitter
from sfpp.export.lowering.geometry import NEIGHBORS, Geometry, Slots, positions_among, sizes_of
from sfpp.export.models.kmeans import NORM_EPS
from sfpp.export.models.recipe import cells_of_grid

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
    # The length of a source does not change which destination is best, only how good it is: one division per source.
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


def lower_merge(emit: Emitter, node: gs.Node) -> tuple[gs.Variable, gs.Variable]:
    """Spell out the merge: kept sources, then each destination's mean with what is merged into it; and their sizes."""
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
    return _merged(emit, node, sources, _means(emit, destinations, added, counts))


def _means(
    emit: Emitter, destinations: gs.Variable, added: gs.Variable, counts: gs.Variable
) -> tuple[gs.Variable, gs.Variable]:
    """Return the mean of each destination with what is added to it, and of how many, (batch, D, 1) both.

    ``counts`` leave the destination out.
    """
    one = emit.constant("merging/one_float", np.array(1.0, np.float32))
    counts = emit.output("Add", [counts, one], "count", counts.shape)
    totals = emit.output("Add", [destinations, added], "total", destinations.shape)
    return emit.output("Div", [totals, counts], "mean", destinations.shape), counts


def _merged(
    emit: Emitter, node: gs.Node, sources: gs.Variable, averaged: tuple[gs.Variable, gs.Variable]
) -> tuple[gs.Variable, gs.Variable]:
    """Return the kept sources followed by the means of all destinations, and how many tokens each stands for."""
    means, counts = averaged
    kept = node.inputs[1]
    batch, count_d = means.shape[:2]
    sizes = emit.reshape(counts, "size", (batch, count_d))
    if kept.is_empty():
        return means, sizes
    kept_tokens, keep = gather_each(emit, sources, kept, "kept_tokens"), kept.shape[1]
    merged = emit.output("Concat", [kept_tokens, means], "merged", (batch, keep + count_d, means.shape[2]), axis=1)
    alone = emit.constant(f"merging/alone_{batch}x{keep}", np.ones((batch, keep), np.float32))
    return merged, emit.output("Concat", [alone, sizes], "merged_size", merged.shape[:2], axis=1)


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


def lower_unmerge_windows(emit: Emitter, node: gs.Node) -> gs.Variable:
    """Spell out the way back from averaged windows: a Gather by a constant table, or a resized image.

    ncnn's converter makes a Crop of that Gather, and its files then answer wrongly without a word. It takes graphs with
    float32 images only, so those get the image, which costs two changes of layout (5 % of a 2x2 at 1024x1024).
    """
    (pooled,) = node.inputs
    grid_hw, windows_hw = sizes_of(node, "grid", "windows")
    batch, _, channels = pooled.shape
    shape = (batch, grid_hw[0] * grid_hw[1], channels)
    if not emit.takes_float or not all(map(resize_is_exact, grid_hw, windows_hw)):
        name = f"merging/grid{grid_hw[0]}x{grid_hw[1]}_windows{windows_hw[0]}x{windows_hw[1]}"
        table = emit.constant(name, cells_of_grid(grid_hw, windows_hw).astype(np.int32))
        return emit.output("Gather", [pooled, table], "unmerged", shape, axis=1)
    image = emit.reshape(emit.transpose(pooled, "pooled_channels", (0, 2, 1)), "image", (batch, channels, *windows_hw))
    resized_shape = (batch, channels, *grid_hw)
    modes = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
    inputs = [image, gs.Variable.empty(), gs.Variable.empty(), emit.shape(*resized_shape)]
    resized = emit.output("Resize", inputs, "resized", resized_shape, **modes)
    flat = emit.reshape(resized, "resized_channels", (batch, channels, shape[1]))
    return emit.transpose(flat, "unmerged", (0, 2, 1))


def resize_is_exact(size: int, pooled_size: int) -> bool:
    """Tell whether resizing by nearest neighbor in float32 takes the right value at each of ``size`` positions.

    Libraries divide a position by the ratio of the sizes or multiply it by the inverse. Where the exact answer is a
    whole number and the factor none in binary, rounding may give the one before: of 94 positions pooled to 32, the
    one at 47 times 16 / 47. Windows of 2 are exact up to 4188 positions, a side of 16752 pixels.
    """
    position = np.arange(size, dtype=np.float32)
    larger, smaller = np.float32(size), np.float32(pooled_size)
    ways = (position / (larger / smaller), position * (smaller / larger), position * smaller / larger)
    return all(np.array_equal(np.floor(way), np.arange(size) * pooled_size // size) for way in ways)


def gather_each(emit: Emitter, tensor: gs.Tensor, index: gs.Variable, name: str) -> gs.Variable:
    """Gather tokens of (batch, N, channels) by (batch, K), each frame by its own indices, with one plain Gather.

    The indices keep their two axes, so that the answer has its three at once: converters that trace what an index is
    made of lose it in a Reshape.
    """
    batch, tokens, channels = tensor.shape
    if batch > 1:
        starts = np.arange(batch, dtype=np.int32).reshape(batch, 1) * tokens
        table = emit.constant(f"merging/frame_starts_{batch}_{tokens}", starts)
        index = emit.output("Add", [index, table], f"{name}_flat_index", index.shape, dtype=np.int32)
    flat = emit.reshape(tensor, f"{name}_flat", (batch * tokens, channels))
    return emit.output("Gather", [flat, index], name, (batch, index.shape[1], channels), axis=0)


def as_int32(emit: Emitter, tensor: gs.Variable, name: str) -> gs.Variable:
    """Append a cast to int32."""
    return emit.output("Cast", [tensor], name, tensor.shape, dtype=np.int32, to=np.int32)


def lower_local_match(emit: Emitter, node: gs.Node) -> tuple[gs.Variable, gs.Variable]:
    """Spell out local matching; the outputs are those of matching over the whole grid."""
    (tokens,) = node.inputs
    geometry = Geometry.of(node)
    slots = Slots.of_windows(geometry)
    by_cell = cell_tokens(emit, slots, tokens, "tokens")
    destinations = unit_tokens(emit, geometry.destinations_of(emit, tokens, "destinations"))
    best, index = best_of_last_axis(emit, nearby_similarity(emit, slots, by_cell, destinations))
    in_slot = slots.slot_of_token[geometry.partition.sources]
    partner = by_token(emit, slots, nearby_chosen(emit, slots, index), "partner", "slot_of_source", in_slot)
    keep = node.attrs["keep"]
    if keep == 0:
        return gs.Variable.empty(), partner
    best = emit.output("Div", [best, lengths(emit, by_cell, "source")], "best_cosine", best.shape)
    return smallest(emit, by_token(emit, slots, best, "best_similarity", "slot_of_source", in_slot), keep), partner


def cell_tokens(emit: Emitter, slots: Slots, tokens: gs.Tensor, name: str) -> gs.Variable:
    """Return the tokens by cell, (batch, cells, slots, channels)."""
    inside = np.maximum(slots.token_of_slot, 0)
    flat = slots.rows_of(emit, tokens, f"{name}_by_slot", "slots", inside)
    return emit.reshape(flat, f"{name}_by_cell", (tokens.shape[0], slots.count, slots.width, tokens.shape[2]))


def nearby_similarity(emit: Emitter, slots: Slots, by_cell: gs.Variable, destinations: gs.Tensor) -> gs.Variable:
    """Return how alike each slot's token and its nine neighboring destinations are: (batch, cells, slots, 9).

    Args:
        emit: receives the nodes.
        slots: which token is in which cell.
        by_cell: the tokens, (batch, cells, slots, channels).
        destinations: (batch, D, channels) of length 1.
    """
    batch, count, width, channels = by_cell.shape
    nearby = slots.rows_of(emit, destinations, "nearby_flat", "neighbor", slots.nearest_neighbors.ravel())
    nearby = emit.reshape(nearby, "nearby", (batch, count, NEIGHBORS, channels))
    transposed = emit.transpose(nearby, "nearby_t", (0, 1, 3, 2))
    return emit.output("MatMul", [by_cell, transposed], "similarity", (batch, count, width, NEIGHBORS))


def nearby_chosen(emit: Emitter, slots: Slots, index: gs.Variable) -> gs.Variable:
    """Return which destination is meant by one of nine, (batch, cells, slots, 1) int32: a table says it by cell."""
    first = slots.table(emit, "first_neighbor", np.arange(slots.count).reshape(1, -1, 1, 1) * NEIGHBORS)
    entry = emit.output("Add", [index, first], "neighbor_entry", index.shape, dtype=np.int32)
    table = slots.table(emit, "neighbor", slots.nearest_neighbors.ravel())
    return emit.output("Gather", [table, entry], "chosen_by_slot", index.shape, dtype=np.int32, axis=0)


def by_token(
    emit: Emitter, slots: Slots, by_slot: gs.Variable, name: str, which: str, in_slot: NDArray[np.int64]
) -> gs.Variable:
    """Return what belongs to tokens, (batch, tokens), of values in each slot; a table says where each token stands."""
    flat = emit.reshape(by_slot, f"{name}_by_slot_flat", (by_slot.shape[0], slots.count * slots.width))
    return slots.rows_of(emit, flat, name, which, in_slot)


def lower_local_merge(emit: Emitter, node: gs.Node) -> tuple[gs.Variable, gs.Variable]:
    """Spell out the merge where all partners are neighbors."""
    tokens, kept, partner = node.inputs
    geometry = Geometry.of(node)
    slots = Slots.of_windows(geometry)
    position = positions_among(slots.token_of_slot, geometry.partition.sources)
    target = target_of_slot(emit, slots, assigned(emit, partner, kept), "source_of_slot", position)
    added, counts = totals_of_neighbors(emit, slots, cell_tokens(emit, slots, tokens, "tokens"), target)
    averaged = _means(emit, geometry.destinations_of(emit, tokens, "destinations"), added, counts)
    return _merged(emit, node, geometry.sources_of(emit, tokens, "sources"), averaged)


def target_of_slot(
    emit: Emitter, slots: Slots, target: gs.Tensor, which: str, position: NDArray[np.int64]
) -> gs.Variable:
    """Return (batch, cells * slots) int32: the destination that each slot's token goes to, -1 for none.

    Args:
        emit: receives the nodes.
        slots: which token is in which cell.
        target: (batch, n) int32, the destination of some of the tokens.
        which: name of the table.
        position: (cells * slots,), which of the n a slot's token is, n for one that is none of them.
    """
    batch, count = target.shape
    nobody = emit.constant(f"merging/nobody_{batch}", np.full((batch, 1), -1, np.int32))
    targets = emit.output("Concat", [target, nobody], "target_or_none", (batch, count + 1), dtype=np.int32, axis=1)
    return slots.rows_of(emit, targets, "target_by_slot", which, position)


def totals_of_neighbors(
    emit: Emitter, slots: Slots, by_cell: gs.Variable, target: gs.Variable
) -> tuple[gs.Variable, gs.Variable]:
    """Return the sum of the tokens that go to each destination, (batch, D, channels), and how many, (batch, D, 1).

    Args:
        emit: receives the nodes.
        slots: which token is in which cell.
        by_cell: the tokens, (batch, cells, slots, channels).
        target: as :func:`target_of_slot` returns it.
    """
    batch, count, width, channels = by_cell.shape
    shape = (batch, count, NEIGHBORS, width)
    row = emit.reshape(target, "target", (batch, count, 1, width))
    # -2 is nobody's target, where -1 is that of the tokens that stay.
    absent = np.where(slots.neighbors < 0, -2, slots.neighbors).reshape(1, count, NEIGHBORS, 1)
    one_hot = one_hot_of(emit, row, slots.table(emit, "neighbor_or_none", absent), shape)
    given = emit.output("MatMul", [one_hot, by_cell], "given", (*shape[:3], channels))
    axes = emit.constant("merging/last_axis", np.array([-1], np.int64))
    given_count = emit.output("ReduceSum", [one_hot, axes], "given_count", (*shape[:3], 1), keepdims=1)
    return _sum_of_offers(emit, slots, given, "added"), _sum_of_offers(emit, slots, given_count, "added_count")


def _sum_of_offers(emit: Emitter, slots: Slots, given: gs.Variable, name: str) -> gs.Variable:
    """Return for each destination the sum of what the cells around it give: (batch, D, channels)."""
    batch, channels = given.shape[0], given.shape[3]
    count_d = len(slots.offers) // NEIGHBORS
    flat = emit.reshape(given, f"{name}_given", (batch, slots.count * NEIGHBORS, channels))
    offers = slots.rows_of(emit, flat, f"{name}_offers_flat", "offers", slots.offers)
    offers = emit.reshape(offers, f"{name}_offers", (batch, count_d, NEIGHBORS, channels))
    axes = emit.constant("merging/axis_2", np.array([2], np.int64))
    return emit.output("ReduceSum", [offers, axes], name, (batch, count_d, channels), keepdims=0)
