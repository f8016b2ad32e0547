"""Merging recipes: what each stage merges, and how many tokens that leaves. Plain data, no tensors."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import RecipeError

GridHw = tuple[int, int]


@dataclass(frozen=True)
class Bipartite:
    """``bsm``: merge the ``ratio`` most redundant tokens into the top-left tokens of cells of ``cell_hw``.

    With ``local`` a token looks for its partner in its own cell and the eight around it only, instead of everywhere.
    """

    ratio: float
    cell_hw: GridHw
    local: bool = False

    def kept_count(self, grid_hw: GridHw) -> int:
        """Return how many source tokens stay unmerged on this grid.

        Raises:
            RecipeError: the cell is larger than the grid.
        """
        sources = partition_grid(grid_hw, self.cell_hw).sources
        tokens = grid_hw[0] * grid_hw[1]
        return len(sources) - min(int(tokens * self.ratio), len(sources))


@dataclass(frozen=True)
class Pool2d:
    """``n2d``: average windows of ``window_hw`` grid positions; border windows average what is inside."""

    window_hw: GridHw


@dataclass(frozen=True)
class Pool1d:
    """``n1d``: average runs of ``window`` tokens along the flattened axis."""

    window: int


Merging = Bipartite | Pool2d | Pool1d


@dataclass(frozen=True)
class StageRecipe:
    """What one encoder stage merges: its queries, its keys and values, both, or nothing."""

    query: Merging | None = None
    key_value: Merging | None = None


@dataclass(frozen=True)
class MergingRecipe:
    """Merging for the whole network: one recipe per stage, and the step by which the input is first thinned out.

    The blocks of a stage reuse the matching of the first of every ``share_matching`` blocks; 1 matches anew in each
    block, as published, and 0 matches once per stage.
    """

    stages: tuple[StageRecipe, ...] = (StageRecipe(), StageRecipe(), StageRecipe(), StageRecipe())
    input_step: int = 1
    share_matching: int = 1

    def matches_anew(self, block: int) -> bool:
        """Return whether this block of a stage, counted from 0, finds its own matching."""
        return block % self.share_matching == 0 if self.share_matching else block == 0

    @property
    def merges_bipartite(self) -> bool:
        """Whether any stage matches tokens."""
        return any(isinstance(side, Bipartite) for stage in self.stages for side in (stage.query, stage.key_value))


NO_MERGING = MergingRecipe()


def matches_locally(recipe: Recipe) -> bool:
    """Whether bipartite matching looks for partners nearby only."""
    if not isinstance(recipe, MergingRecipe):
        return False
    sides = [side for stage in recipe.stages for side in (stage.query, stage.key_value)]
    return any(isinstance(side, Bipartite) and side.local for side in sides)


def with_matching(recipe: MergingRecipe, *, local: bool, share_matching: int = 1) -> MergingRecipe:
    """Return the recipe with every bipartite matching local or exact, shared among ``share_matching`` blocks."""

    def changed(side: Merging | None) -> Merging | None:
        return replace(side, local=local) if isinstance(side, Bipartite) else side

    stages = tuple(StageRecipe(changed(stage.query), changed(stage.key_value)) for stage in recipe.stages)
    return replace(recipe, stages=stages, share_matching=share_matching)


@dataclass(frozen=True)
class IsrRecipe:
    """Inference spatial reduction of EDAFormer: factors on the trained pooling sizes.

    ``encoder`` holds one per stage, ``decoder`` one for each of the stages 2, 3 and 4; 1 is as trained.
    """

    encoder: tuple[int, ...] = (1, 1, 1, 1)
    decoder: tuple[int, ...] = (1, 1, 1)

    def __str__(self) -> str:
        return f"{''.join(map(str, self.encoder))}-{''.join(map(str, self.decoder))}"


Recipe = MergingRecipe | IsrRecipe


class Partition(NamedTuple):
    """Flat token indices, int64, ascending: (D,) destinations and (S,) sources; together every token once."""

    destinations: NDArray[np.int64]
    sources: NDArray[np.int64]


@functools.lru_cache(maxsize=64)
def partition_grid(grid_hw: GridHw, cell_hw: GridHw) -> Partition:
    """Split a grid into destinations, the top-left tokens of complete cells, and sources, all others.

    Raises:
        RecipeError: the cell is larger than the grid, so that there would be no destination.
    """
    (height, width), (cell_h, cell_w) = grid_hw, cell_hw
    if cell_h > height or cell_w > width:
        raise RecipeError(
            f"a cell of {cell_h}x{cell_w} tokens does not fit a grid of {height}x{width} (rows x columns)"
        )
    rows = np.arange(0, height // cell_h * cell_h, cell_h)
    columns = np.arange(0, width // cell_w * cell_w, cell_w)
    is_destination = np.zeros(grid_hw, bool)
    is_destination[np.ix_(rows, columns)] = True
    flat = is_destination.ravel()
    return Partition(np.flatnonzero(flat), np.flatnonzero(~flat))


@functools.lru_cache(maxsize=64)
def local_candidates(grid_hw: GridHw, cell_hw: GridHw) -> NDArray[np.int64]:
    """Return (S, 9) int64: for each source the destinations of its own cell and the eight around it.

    They are positions in the list of destinations, ascending, with -1 where the grid ends. Sources beyond the last
    complete cell have the neighbors that exist; each source has at least one.

    Raises:
        RecipeError: the cell is larger than the grid.
    """
    sources = partition_grid(grid_hw, cell_hw).sources
    rows, columns = grid_hw[0] // cell_hw[0], grid_hw[1] // cell_hw[1]
    return neighbor_cells(sources // grid_hw[1] // cell_hw[0], sources % grid_hw[1] // cell_hw[1], (rows, columns))


def cells_around(row: NDArray[np.int64], column: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns, both (n, 9), of each (row, column) and the eight around it, also beyond the border."""
    steps = np.arange(-1, 2)
    return row[:, np.newaxis] + np.repeat(steps, 3), column[:, np.newaxis] + np.tile(steps, 3)


def neighbor_cells(row: NDArray[np.int64], column: NDArray[np.int64], cells_hw: GridHw) -> NDArray[np.int64]:
    """Return (n, 9): the cells around each (row, column), itself among them, as flat indices; -1 outside of the map."""
    rows, columns = cells_around(row, column)
    inside = (rows >= 0) & (rows < cells_hw[0]) & (columns >= 0) & (columns < cells_hw[1])
    return np.where(inside, rows * cells_hw[1] + columns, -1)


def pooled_grid(grid_hw: GridHw, window_hw: GridHw) -> GridHw:
    """Return the grid after pooling: each side divided by its window, rounded up.

    Raises:
        RecipeError: the window is larger than the grid.
    """
    if window_hw[0] > grid_hw[0] or window_hw[1] > grid_hw[1]:
        sizes = f"{window_hw[0]}x{window_hw[1]} tokens does not fit a grid of {grid_hw[0]}x{grid_hw[1]}"
        raise RecipeError(f"a window of {sizes} (rows x columns)")
    return -(-grid_hw[0] // window_hw[0]), -(-grid_hw[1] // window_hw[1])


def strided_grids(size_hw: GridHw, kernels: tuple[int, ...], strides: tuple[int, ...]) -> tuple[GridHw, ...]:
    """Return the grids (rows, columns) after each of a chain of strided convolutions padded by half their kernel."""
    grids = []
    for kernel, stride in zip(kernels, strides, strict=True):
        pad = kernel // 2
        size_hw = ((size_hw[0] + 2 * pad - kernel) // stride + 1, (size_hw[1] + 2 * pad - kernel) // stride + 1)
        grids.append(size_hw)
    return tuple(grids)


def tokens_after(merging: Merging | None, grid_hw: GridHw) -> int:
    """Return how many tokens of a grid are left after merging.

    Raises:
        RecipeError: a cell or window is larger than the grid.
    """
    tokens = grid_hw[0] * grid_hw[1]
    if merging is None:
        return tokens
    if isinstance(merging, Bipartite):
        return merging.kept_count(grid_hw) + len(partition_grid(grid_hw, merging.cell_hw).destinations)
    if isinstance(merging, Pool1d):
        if merging.window > tokens:
            raise RecipeError(f"a window of {merging.window} tokens does not fit a grid of {tokens} tokens")
        return -(-tokens // merging.window)
    rows, columns = pooled_grid(grid_hw, merging.window_hw)
    return rows * columns
