"""Merging recipes: what each stage merges, and how many tokens that leaves. Plain data, no tensors."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import RecipeError

GridHw = tuple[int, int]


@dataclass(frozen=True)
class Bipartite:
    """``bsm``: merge the ``ratio`` most redundant tokens into the top-left tokens of cells of ``cell_hw``."""

    ratio: float
    cell_hw: GridHw

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
    """Merging for the whole network: one recipe a stage, and the step by which the input is first thinned out."""

    stages: tuple[StageRecipe, ...] = (StageRecipe(), StageRecipe(), StageRecipe(), StageRecipe())
    input_step: int = 1


NO_MERGING = MergingRecipe()


@dataclass(frozen=True)
class IsrRecipe:
    """Inference spatial reduction of EDAFormer: factors on the trained pooling sizes.

    ``encoder`` holds one a stage, ``decoder`` one for each of the stages 2, 3 and 4; 1 is as trained.
    """

    encoder: tuple[int, ...] = (1, 1, 1, 1)
    decoder: tuple[int, ...] = (1, 1, 1)

    def __str__(self) -> str:
        return f"{''.join(map(str, self.encoder))}-{''.join(map(str, self.decoder))}"


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


def pooled_grid(grid_hw: GridHw, window_hw: GridHw) -> GridHw:
    """Return the grid after pooling: each side divided by its window, rounded up.

    Raises:
        RecipeError: the window is larger than the grid.
    """
    if window_hw[0] > grid_hw[0] or window_hw[1] > grid_hw[1]:
        sizes = f"{window_hw[0]}x{window_hw[1]} tokens does not fit a grid of {grid_hw[0]}x{grid_hw[1]}"
        raise RecipeError(f"a window of {sizes} (rows x columns)")
    return -(-grid_hw[0] // window_hw[0]), -(-grid_hw[1] // window_hw[1])


Recipe = MergingRecipe | IsrRecipe


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
