"""Merging within neighboring cells, spelled out at linear cost: no big matrix, no Scatter that adds.

Tokens are put in the order of their cells. Then every cell is compared with its nine neighboring destinations by one
small product, and what a cell gives to each of the nine is another small product; each destination sums up what it was
given by the cells around it. The operators are those that every target knows.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from sfpp.export.lowering.emitter import Emitter
from sfpp.export.lowering.geometry import NEIGHBORS, Geometry, Slots
from sfpp.export.lowering.merging import (
    assigned,
    best_of_last_axis,
    lengths,
    means,
    merged_tokens,
    one_hot_of,
    smallest,
    unit_tokens,
)


def lower_local_match(emit: Emitter, node: gs.Node) -> tuple[gs.Variable, gs.Variable]:
    """Spell out local matching; the outputs are those of matching over the whole grid."""
    (tokens,) = node.inputs
    geometry = Geometry.of(node)
    slots = Slots(geometry)
    batch, count, width = tokens.shape[0], slots.count, slots.width
    by_cell = cell_tokens(emit, slots, tokens)
    best, index = best_of_last_axis(emit, _similarity(emit, slots, tokens, by_cell))
    # What TopK counts is one of nine; a table says which destination that is for this cell.
    first = slots.geometry.table(emit, "first_neighbor", np.arange(count).reshape(1, count, 1, 1) * NEIGHBORS)
    entry = emit.output("Add", [index, first], "neighbor_entry", index.shape, dtype=np.int32)
    table = geometry.table(emit, "neighbor", slots.nearest_neighbors.ravel())
    partner = emit.output("Gather", [table, entry], "partner_by_slot", index.shape, dtype=np.int32, axis=0)
    partner = _of_sources(emit, slots, partner, "partner")
    keep = node.attrs["keep"]
    if keep == 0:
        return gs.Variable.empty(), partner
    best = emit.output("Div", [best, lengths(emit, by_cell, "source")], "best_cosine", (batch, count, width, 1))
    return smallest(emit, _of_sources(emit, slots, best, "best_similarity"), keep), partner


def cell_tokens(emit: Emitter, slots: Slots, tokens: gs.Variable) -> gs.Variable:
    """Return the tokens by cell, (batch, cells, slots, channels)."""
    inside = np.maximum(slots.token_of_slot, 0)
    flat = slots.geometry.rows_of(emit, tokens, "tokens_by_slot", "slots", inside)
    return emit.reshape(flat, "tokens_by_cell", (tokens.shape[0], slots.count, slots.width, tokens.shape[2]))


def _similarity(emit: Emitter, slots: Slots, tokens: gs.Variable, by_cell: gs.Variable) -> gs.Variable:
    """Return how alike each slot's token and its nine neighboring destinations are: (batch, cells, slots, 9)."""
    batch, _, channels = tokens.shape
    destinations = unit_tokens(emit, slots.geometry.destinations_of(emit, tokens, "destinations"))
    flat = slots.nearest_neighbors.ravel()
    nearby = slots.geometry.rows_of(emit, destinations, "nearby_flat", "neighbor", flat)
    nearby = emit.reshape(nearby, "nearby", (batch, slots.count, NEIGHBORS, channels))
    transposed = emit.transpose(nearby, "nearby_t", (0, 1, 3, 2))
    return emit.output("MatMul", [by_cell, transposed], "similarity", (batch, slots.count, slots.width, NEIGHBORS))


def _of_sources(emit: Emitter, slots: Slots, by_slot: gs.Variable, name: str) -> gs.Variable:
    """Return what belongs to the sources, (batch, S), of values in each slot."""
    flat = emit.reshape(by_slot, f"{name}_by_slot_flat", (by_slot.shape[0], slots.count * slots.width))
    return slots.geometry.rows_of(emit, flat, name, "slot_of_source", slots.slot_of_source)


def lower_local_merge(emit: Emitter, node: gs.Node) -> gs.Variable:
    """Spell out the merge where all partners are neighbors."""
    tokens, kept, partner = node.inputs
    geometry = Geometry.of(node)
    slots = Slots(geometry)
    batch, _, channels = tokens.shape
    by_cell = cell_tokens(emit, slots, tokens)
    shape = (batch, slots.count, NEIGHBORS, slots.width)
    target = emit.reshape(_target_of_slot(emit, slots, partner, kept), "target", (batch, slots.count, 1, slots.width))
    # -2 is nobody's target, where -1 is that of the tokens that stay.
    absent = np.where(slots.neighbors < 0, -2, slots.neighbors).reshape(1, slots.count, NEIGHBORS, 1)
    one_hot = one_hot_of(emit, target, geometry.table(emit, "neighbor_or_none", absent), shape)
    given = emit.output("MatMul", [one_hot, by_cell], "given", (*shape[:3], channels))
    axes = emit.constant("merging/last_axis", np.array([-1], np.int64))
    given_count = emit.output("ReduceSum", [one_hot, axes], "given_count", (*shape[:3], 1), keepdims=1)
    added = _sum_of_offers(emit, slots, given, "added")
    counts = _sum_of_offers(emit, slots, given_count, "added_count")
    averaged = means(emit, geometry.destinations_of(emit, tokens, "destinations"), added, counts)
    return merged_tokens(emit, node, kept, geometry.sources_of(emit, tokens, "sources"), averaged)


def _target_of_slot(emit: Emitter, slots: Slots, partner: gs.Variable, kept: gs.Variable) -> gs.Variable:
    """Return (batch, cells * slots) int32: the destination that each slot's token is merged into, -1 for none."""
    batch, count_s = partner.shape
    nobody = emit.constant(f"merging/nobody_{batch}", np.full((batch, 1), -1, np.int32))
    inputs = [assigned(emit, partner, kept), nobody]
    targets = emit.output("Concat", inputs, "assigned_or_none", (batch, count_s + 1), dtype=np.int32, axis=1)
    return slots.geometry.rows_of(emit, targets, "target_by_slot", "source_of_slot", slots.source_of_slot)


def _sum_of_offers(emit: Emitter, slots: Slots, given: gs.Variable, name: str) -> gs.Variable:
    """Return for each destination the sum of what the cells around it give: (batch, D, channels)."""
    batch, channels = given.shape[0], given.shape[3]
    count_d = len(slots.geometry.partition.destinations)
    flat = emit.reshape(given, f"{name}_given", (batch, slots.count * NEIGHBORS, channels))
    offers = slots.geometry.rows_of(emit, flat, f"{name}_offers_flat", "offers", slots.offers)
    offers = emit.reshape(offers, f"{name}_offers", (batch, count_d, NEIGHBORS, channels))
    axes = emit.constant("merging/axis_2", np.array([2], np.int64))
    return emit.output("ReduceSum", [offers, axes], name, (batch, count_d, channels), keepdims=0)
