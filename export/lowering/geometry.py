"""The grid and cells of a merging node, and the constant index tables that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from sfpp.export.lowering.emitter import Emitter
from sfpp.export.models.recipe import GridHw, Partition, cells_around, neighbor_cells, partition_grid

Positions = NDArray[np.int64]
NEIGHBORS = 9


class Tables:
    """Constant index tables that are named by what they belong to, and what is gathered by them."""

    @property
    def key(self) -> str:
        """What the tables are named by; equal keys mean equal tables."""
        raise NotImplementedError

    def table(self, emit: Emitter, which: str, values: NDArray[Any]) -> gs.Constant:
        """Return one of the index tables as an int32 constant."""
        return emit.constant(f"{self.key}/{which}", values.astype(np.int32))

    def rows_of(self, emit: Emitter, tensor: gs.Tensor, name: str, which: str, index: NDArray[Any]) -> gs.Variable:
        """Gather along axis 1 of (batch, n[, channels]) by the constant table called ``which``."""
        shape = (tensor.shape[0], len(index), *tensor.shape[2:])
        table = self.table(emit, which, index)
        return emit.output("Gather", [tensor, table], name, shape, dtype=tensor.dtype, axis=1)


@dataclass(frozen=True)
class Geometry(Tables):
    """What is known of a bipartite merging before any token is: rows x columns of its grid and of its cells."""

    grid_hw: GridHw
    cell_hw: GridHw

    @staticmethod
    def of(node: gs.Node) -> Geometry:
        """Read the attributes of a traced node."""
        return Geometry(*sizes_of(node, "grid", "cell"))

    @property
    def key(self) -> str:
        """What tables of this geometry are named by."""
        return f"merging/grid{self.grid_hw[0]}x{self.grid_hw[1]}_cell{self.cell_hw[0]}x{self.cell_hw[1]}"

    @cached_property
    def partition(self) -> Partition:
        """Which tokens are destinations and which are sources."""
        return partition_grid(self.grid_hw, self.cell_hw)

    def sources_of(self, emit: Emitter, tensor: gs.Tensor, name: str) -> gs.Variable:
        """Gather the source tokens (batch, S, channels)."""
        return self.rows_of(emit, tensor, name, "sources", self.partition.sources)

    def destinations_of(self, emit: Emitter, tensor: gs.Tensor, name: str) -> gs.Variable:
        """Gather the destination tokens (batch, D, channels)."""
        return self.rows_of(emit, tensor, name, "destinations", self.partition.destinations)


@dataclass(frozen=True, eq=False)
class Slots(Tables):
    """The tokens of a grid by cells, ``width`` slots in each; a slot is a position within a cell.

    Attributes:
        name: what the tables are named by.
        rows: (grid rows,), ascending: the row of cells that each row of the grid is in.
        columns: (grid columns,), ascending: the column of cells likewise.
        destinations_hw: rows and columns of the cells that tokens may be merged into; others lie behind them.
    """

    name: str
    rows: Positions
    columns: Positions
    destinations_hw: GridHw

    @staticmethod
    def of_windows(geometry: Geometry) -> Slots:
        """Divide a grid into cells of one size; those at the border that are incomplete are no destinations."""
        sides = zip(geometry.grid_hw, geometry.cell_hw, strict=True)
        rows, columns = (np.arange(size) // cell for size, cell in sides)
        (height, width), (cell_h, cell_w) = geometry.grid_hw, geometry.cell_hw
        return Slots(geometry.key, rows, columns, (height // cell_h, width // cell_w))

    @staticmethod
    def of_cells(node: gs.Node) -> Slots:
        """Divide the grid of a traced node into its number of cells, all of nearly one size."""
        grid_hw, cells_hw = sizes_of(node, "grid", "cells")
        rows, columns = (np.arange(size) * count // size for size, count in zip(grid_hw, cells_hw, strict=True))
        name = f"merging/grid{grid_hw[0]}x{grid_hw[1]}_cells{cells_hw[0]}x{cells_hw[1]}"
        return Slots(name, rows, columns, cells_hw)

    @property
    def key(self) -> str:
        """What the tables are named by."""
        return self.name

    @property
    def cells_hw(self) -> GridHw:
        """Rows and columns of cells."""
        return int(self.rows[-1]) + 1, int(self.columns[-1]) + 1

    @property
    def count(self) -> int:
        """How many cells there are."""
        return self.cells_hw[0] * self.cells_hw[1]

    @property
    def width(self) -> int:
        """How many slots a cell has: as many as the largest one has tokens."""
        return int(np.bincount(self.rows).max() * np.bincount(self.columns).max())

    @cached_property
    def slot_of_token(self) -> Positions:
        """Flat (N,): where each token stands."""
        in_row, in_column = _rank_in_group(self.rows), _rank_in_group(self.columns)
        across = int(in_column.max()) + 1
        cell = self.rows[:, np.newaxis] * self.cells_hw[1] + self.columns
        slot = in_row[:, np.newaxis] * across + in_column
        flat: Positions = (cell * self.width + slot).ravel()
        return flat

    @cached_property
    def token_of_slot(self) -> Positions:
        """Flat (count * width,): the token in each slot, -1 for none."""
        tokens = np.full(self.count * self.width, -1)
        tokens[self.slot_of_token] = np.arange(len(self.slot_of_token))
        return tokens

    @cached_property
    def neighbors(self) -> Positions:
        """(count, 9): the destinations in the nine cells around each cell, -1 where there is none."""
        return neighbor_cells(*self._row_and_column, self.destinations_hw)

    @cached_property
    def nearest_neighbors(self) -> Positions:
        """(count, 9): the same with the nearest destination in place of each missing one.

        A maximum over these is one over the neighbors, since it does not mind a value that comes twice; and each
        destination's first appearance comes after those of all lower ones, which settles ties.
        """
        complete_h, complete_w = self.destinations_hw
        rows, columns = cells_around(*self._row_and_column)
        nearest: Positions = np.clip(rows, 0, complete_h - 1) * complete_w + np.clip(columns, 0, complete_w - 1)
        return nearest

    @cached_property
    def offers(self) -> Positions:
        """Flat (D * 9,): for each destination the entries of ``neighbors``, as flat indices, that are it.

        Fewer than nine are filled up with 0: the upper left cell has no neighbor beyond the corner, so what is computed
        for that entry is nothing.
        """
        flat = self.neighbors.ravel()
        entries = np.flatnonzero(flat >= 0)
        destination = flat[entries]
        order = np.argsort(destination, kind="stable")
        destination, entries = destination[order], entries[order]
        rank = np.arange(len(entries)) - np.searchsorted(destination, destination)
        table = np.zeros((self.destinations_hw[0] * self.destinations_hw[1], NEIGHBORS), np.int64)
        table[destination, rank] = entries
        return table.ravel()

    @property
    def _row_and_column(self) -> tuple[Positions, Positions]:
        return np.divmod(np.arange(self.count), self.cells_hw[1])


def positions_among(tokens: Positions, chosen: Positions) -> Positions:
    """Return where each of ``tokens`` stands in the list of chosen ones; its length for those that do not."""
    found = np.searchsorted(chosen, tokens).clip(max=len(chosen) - 1)
    position: Positions = np.where(chosen[found] == tokens, found, len(chosen))
    return position


def _rank_in_group(groups: Positions) -> Positions:
    """Return for ascending group numbers how many of the same group come before each."""
    rank: Positions = np.arange(len(groups)) - np.searchsorted(groups, groups)
    return rank


def sizes_of(node: gs.Node, *names: str) -> tuple[GridHw, ...]:
    """Return pairs of attributes of a traced node, such as ``grid_h`` and ``grid_w``."""
    return tuple((int(node.attrs[f"{name}_h"]), int(node.attrs[f"{name}_w"])) for name in names)
