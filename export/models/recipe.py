"""Merging recipes: what each stage merges, and how many tokens that leaves. Plain data, no tensors."""

from __future__ import annotations

import functools
import math
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


@dataclass(frozen=True)
class KMeans:
    """``kmeans``: gather tokens in cells that leave about ``1 - ratio`` of their number, by local k-means.

    A cell starts as a rectangle of the grid. In each of ``rounds`` a token goes to the most similar of the nine cells
    around it, and a cell becomes the mean of its tokens.
    """

    ratio: float
    rounds: int = 2

    def cells_hw(self, grid_hw: GridHw) -> GridHw:
        """Return the rows and columns of cells on this grid; a cell has rows and columns of like number."""
        side = (1 - self.ratio) ** 0.5
        return max(1, round(grid_hw[0] * side)), max(1, round(grid_hw[1] * side))


Merging = Bipartite | Pool2d | Pool1d | KMeans


@dataclass(frozen=True)
class StageRecipe:
    """What one encoder stage merges: its queries, its keys and values, both, or nothing.

    With ``sized`` a merged key weighs as much in the softmax as all of the tokens that it stands for: the log of their
    number is added to its scores. Without, each weighs as one token, as published.
    """

    query: Merging | None = None
    key_value: Merging | None = None
    sized: bool = False


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
        """Whether any stage looks for pairs of like tokens."""
        return any(isinstance(side, Bipartite) for side in self.sides)

    @property
    def matches(self) -> bool:
        """Whether it depends on the tokens in any stage which of them are merged."""
        return any(isinstance(side, Bipartite | KMeans) for side in self.sides)

    @property
    def merges_keys(self) -> bool:
        """Whether any stage merges keys and values."""
        return any(stage.key_value is not None for stage in self.stages)

    @property
    def sized(self) -> bool:
        """Whether merged keys weigh by their sizes wherever keys are merged."""
        return self.merges_keys and all(stage.sized for stage in self.stages if stage.key_value is not None)

    @property
    def sides(self) -> list[Merging | None]:
        """What each stage merges: its queries, then its keys and values, stage by stage."""
        return [side for stage in self.stages for side in (stage.query, stage.key_value)]


NO_MERGING = MergingRecipe()


def matches_locally(recipe: Recipe) -> bool:
    """Whether bipartite matching looks for partners nearby only."""
    if not isinstance(recipe, MergingRecipe):
        return False
    return any(isinstance(side, Bipartite) and side.local for side in recipe.sides)


def with_matching(recipe: MergingRecipe, *, local: bool | None, share_matching: int = 1) -> MergingRecipe:
    """Return the recipe with every bipartite matching local or exact, shared among ``share_matching`` blocks.

    With None for ``local`` it looks for partners where it did.
    """

    def changed(side: Merging | None) -> Merging | None:
        return replace(side, local=local) if isinstance(side, Bipartite) and local is not None else side

    stages = tuple(
        replace(each, query=changed(each.query), key_value=changed(each.key_value)) for each in recipe.stages
    )
    return replace(recipe, stages=stages, share_matching=share_matching)


def with_sizes(recipe: MergingRecipe) -> MergingRecipe:
    """Return the recipe with merged keys that weigh by their sizes in every stage."""
    stages = tuple(replace(stage, sized=stage.key_value is not None) for stage in recipe.stages)
    return replace(recipe, stages=stages)


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


@functools.lru_cache(maxsize=64)
def cells_of_grid(grid_hw: GridHw, cells_hw: GridHw) -> NDArray[np.int64]:
    """Return (N,) int64: in which of ``cells_hw`` rectangles each token of a grid is; in exact integers."""
    rows, columns = (np.arange(size) * count // size for size, count in zip(grid_hw, cells_hw, strict=True))
    flat: NDArray[np.int64] = (rows[:, np.newaxis] * cells_hw[1] + columns).ravel()
    return flat


@functools.lru_cache(maxsize=64)
def cells_nearby(grid_hw: GridHw, cells_hw: GridHw) -> NDArray[np.int64]:
    """Return (N, 9): for each token the cell in which it starts and the eight around it, ascending; -1 for none."""
    return neighbor_cells(*np.divmod(cells_of_grid(grid_hw, cells_hw), cells_hw[1]), cells_hw)


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


def window_sizes(grid_hw: GridHw, window_hw: GridHw) -> NDArray[np.float32]:
    """Return how many tokens each window of a grid holds, (1, windows): fewer at the border."""
    rows, columns = (
        np.minimum(window, size - np.arange(count) * window)
        for size, window, count in zip(grid_hw, window_hw, pooled_grid(grid_hw, window_hw), strict=True)
    )
    return np.outer(rows, columns).reshape(1, -1).astype(np.float32)


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
    if isinstance(merging, KMeans):
        return math.prod(merging.cells_hw(grid_hw))
    if isinstance(merging, Pool1d):
        if merging.window > tokens:
            raise RecipeError(f"a window of {merging.window} tokens does not fit a grid of {tokens} tokens")
        return -(-tokens // merging.window)
    rows, columns = pooled_grid(grid_hw, merging.window_hw)
    return rows * columns
