"""Local k-means spelled out: sums over the grid's rectangles, the nearest of nine centers, sums over the cells.

Tokens are put in the order of the cells in which they start, as for local matching: everything is a small product for
each cell. There is no TopK, no big matrix, and nothing whose size or order depends on the data.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from sfpp.export.lowering.emitter import Emitter
from sfpp.export.lowering.geometry import Slots
from sfpp.export.lowering.merging import (
    as_int32,
    by_token,
    cell_tokens,
    gather_each,
    nearby_chosen,
    nearby_similarity,
    target_of_slot,
    totals_of_neighbors,
)


def lower_grid_totals(emit: Emitter, node: gs.Node) -> gs.Variable:
    """Spell out the sums over the rectangles in which the tokens start: (batch, cells, channels)."""
    (tokens,) = node.inputs
    slots = Slots.of_cells(node)
    by_cell = cell_tokens(emit, slots, tokens, "tokens")
    batch, count, width, channels = by_cell.shape
    held = (slots.token_of_slot >= 0).reshape(1, count, 1, width).astype(np.float32)
    sums = emit.output(
        "MatMul", [emit.constant(f"{slots.key}/held", held), by_cell], "start_sum", (batch, count, 1, channels)
    )
    return emit.reshape(sums, "start_total", (batch, count, channels))


def lower_nearest_cell(emit: Emitter, node: gs.Node) -> gs.Variable:
    """Spell out the assignment of tokens to the most similar of nine centers: (batch, N) int32."""
    tokens, centers = node.inputs
    slots = Slots.of_cells(node)
    similarity = nearby_similarity(emit, slots, cell_tokens(emit, slots, tokens, "tokens"), centers)
    shape = (*similarity.shape[:3], 1)
    index = emit.output("ArgMax", [similarity], "nearest", shape, dtype=np.int64, axis=3, keepdims=1)
    chosen = nearby_chosen(emit, slots, as_int32(emit, index, "nearest_index"))
    return by_token(emit, slots, chosen, "cell", "slot_of_token", slots.slot_of_token)


def lower_cell_totals(emit: Emitter, node: gs.Node) -> tuple[gs.Variable, gs.Variable]:
    """Spell out the sums over the cells, (batch, cells, channels), and the counts, (batch, cells)."""
    tokens, cell = node.inputs
    slots = Slots.of_cells(node)
    held = slots.token_of_slot
    position = np.where(held < 0, tokens.shape[1], held)
    target = target_of_slot(emit, slots, cell, "token_of_slot", position)
    totals, counts = totals_of_neighbors(emit, slots, cell_tokens(emit, slots, tokens, "summed"), target)
    return totals, emit.reshape(counts, "cell_size", totals.shape[:2])


def lower_unmerge_cells(emit: Emitter, node: gs.Node) -> gs.Variable:
    """Spell out the way back: one Gather."""
    merged, cell = node.inputs
    return gather_each(emit, merged, cell, "unmerged")
