"""The grid and cell of a merging node, and the constant index tables that follow from them."""

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


@dataclass(frozen=True)
class Geometry:
    """What is known of a merging before any token is: rows x columns of its grid and of its cells."""

    grid_hw: GridHw
    cell_hw: GridHw

    @staticmethod
    def of(node: gs.Node) -> Geometry:
        """Read the attributes of a traced node."""
        grid_h, grid_w, cell_h, cell_w = (int(node.attrs[name]) for name in ("grid_h", "grid_w", "cell_h", "cell_w"))
        return Geometry((grid_h, grid_w), (cell_h, cell_w))

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

    def table(self, emit: Emitter, which: str, values: NDArray[Any]) -> gs.Constant:
        """Return one of this geometry's index tables as an int32 constant."""
        return emit.constant(f"{self.key}/{which}", values.astype(np.int32))

    def rows_of(self, emit: Emitter, tensor: gs.Tensor, name: str, which: str, index: NDArray[Any]) -> gs.Variable:
        """Gather along axis 1 of (batch, n[, channels]) by the constant table called ``which``."""
        shape = (tensor.shape[0], len(index), *tensor.shape[2:])
        table = self.table(emit, which, index)
        return emit.output("Gather", [tensor, table], name, shape, dtype=tensor.dtype, axis=1)


@dataclass(frozen=True)
class Slots:
    """The tokens of a grid by cells: ``count`` cells, incomplete ones included, of ``width`` slots each.

    A slot is a position within a cell. A slot beyond the grid's border holds some token that is never used.
    """

    geometry: Geometry

    @property
    def cells_hw(self) -> GridHw:
        """Rows and columns of cells, incomplete ones included."""
        (height, width), (cell_h, cell_w) = self.geometry.grid_hw, self.geometry.cell_hw
        return -(-height // cell_h), -(-width // cell_w)

    @property
    def count(self) -> int:
        """How many cells there are."""
        return self.cells_hw[0] * self.cells_hw[1]

    @property
    def width(self) -> int:
        """How many slots a cell has."""
        return self.geometry.cell_hw[0] * self.geometry.cell_hw[1]

    @cached_property
    def token_of_slot(self) -> Positions:
        """Flat (count * width,): the token in each slot, -1 beyond the border."""
        (height, width), (cell_h, cell_w), (rows, columns) = self.geometry.grid_hw, self.geometry.cell_hw, self.cells_hw
        padded = np.full((rows * cell_h, columns * cell_w), -1)
        padded[:height, :width] = np.arange(height * width).reshape(height, width)
        by_cell: Positions = padded.reshape(rows, cell_h, columns, cell_w).transpose(0, 2, 1, 3).reshape(-1)
        return by_cell

    @cached_property
    def source_of_slot(self) -> Positions:
        """Flat (count * width,): the position in the list of sources, S where the slot holds none."""
        sources = self.geometry.partition.sources
        position = np.full(self.geometry.grid_hw[0] * self.geometry.grid_hw[1] + 1, len(sources))
        position[sources] = np.arange(len(sources))
        return position[self.token_of_slot]  # -1 reads the last entry, which is no source

    @cached_property
    def slot_of_source(self) -> Positions:
        """(S,): where each source stands."""
        slots = np.flatnonzero(self.source_of_slot < len(self.geometry.partition.sources))
        return slots[np.argsort(self.source_of_slot[slots])]

    @cached_property
    def neighbors(self) -> Positions:
        """(count, 9): the destinations in the nine cells around each cell, -1 where there is none."""
        return neighbor_cells(*self._row_and_column, self._complete_hw)

    @cached_property
    def nearest_neighbors(self) -> Positions:
        """(count, 9): the same with the nearest destination in place of each missing one.

        A maximum over these is one over the neighbors, since it does not mind a value that comes twice; and each
        destination's first appearance comes after those of all lower ones, which settles ties.
        """
        complete_h, complete_w = self._complete_hw
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
        table = np.zeros((len(self.geometry.partition.destinations), NEIGHBORS), np.int64)
        table[destination, rank] = entries
        return table.ravel()

    @property
    def _row_and_column(self) -> tuple[Positions, Positions]:
        return np.divmod(np.arange(self.count), self.cells_hw[1])

    @property
    def _complete_hw(self) -> GridHw:
        (height, width), (cell_h, cell_w) = self.geometry.grid_hw, self.geometry.cell_hw
        return height // cell_h, width // cell_w
