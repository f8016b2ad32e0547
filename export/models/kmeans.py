"""Local k-means of tokens over a grid, as pure functions: which cell each token belongs to, and what a cell holds.

Shapes and ``custom_op`` are as in :mod:`sfpp.export.models.token_merging`. The way of choosing cells is that of SLIC
superpixels: a token goes to the most similar of the nine cells around it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfpp.export.models.recipe import GridHw, cells_nearby, cells_of_grid

# Added to the squared norm before the square root: a token of zeros is then like nothing, instead of NaN.
NORM_EPS = 1e-12
# How much of a cell's former center, of length 1, is added to the sum of its tokens: a cell that lost all of them stays
# where it was.
INERTIA = 1e-2


def cluster(tokens: Tensor, grid_hw: GridHw, cells_hw: GridHw, rounds: int) -> Tensor:
    """Return the cell (batch, N) of each token after so many rounds; see :class:`sfpp.export.models.recipe.KMeans`.

    Likeness is cosine similarity, and a cell's center the sum of its tokens, each of length 1.
    """
    geometry = (*grid_hw, *cells_hw)
    tokens = of_length_1(tokens)
    center = of_length_1(grid_totals(tokens, *geometry))
    cell: Tensor = nearest_cell(tokens, center, *geometry)
    for _ in range(rounds - 1):
        center = of_length_1(cell_totals(tokens, cell, *geometry)[0] + INERTIA * center)
        cell = nearest_cell(tokens, center, *geometry)
    return cell


@torch.library.custom_op("sfpp::grid_totals", mutates_args=())
def grid_totals(tokens: Tensor, grid_h: int, grid_w: int, cells_h: int, cells_w: int) -> Tensor:
    """Return the sum of the tokens of each rectangle of the grid, (batch, cells, channels)."""
    own = torch.from_numpy(cells_of_grid((grid_h, grid_w), (cells_h, cells_w))).to(tokens.device)
    totals = tokens.new_zeros((tokens.shape[0], cells_h * cells_w, tokens.shape[2]))
    return totals.index_add(1, own, tokens)


@grid_totals.register_fake
def _(tokens: Tensor, grid_h: int, grid_w: int, cells_h: int, cells_w: int) -> Tensor:
    return tokens.new_empty((tokens.shape[0], cells_h * cells_w, tokens.shape[2]))


@torch.library.custom_op("sfpp::nearest_cell", mutates_args=())
def nearest_cell(tokens: Tensor, centers: Tensor, grid_h: int, grid_w: int, cells_h: int, cells_w: int) -> Tensor:
    """Return for each token the cell, of the nine around it, whose center resembles it most.

    Args:
        tokens: (batch, N, channels) of length 1.
        centers: (batch, cells, channels) of length 1.
        grid_h: rows of the grid; grid_w its columns, cells_h and cells_w rows and columns of cells.

    Returns:
        (batch, N) int64; the first of several on a tie.
    """
    nearby = torch.from_numpy(cells_nearby((grid_h, grid_w), (cells_h, cells_w)))
    return best_of_candidates(tokens, centers, nearby.to(tokens.device))[1]


@nearest_cell.register_fake
def _(tokens: Tensor, centers: Tensor, grid_h: int, grid_w: int, cells_h: int, cells_w: int) -> Tensor:
    return tokens.new_empty(tokens.shape[:2], dtype=torch.int64)


@torch.library.custom_op("sfpp::cell_totals", mutates_args=())
def cell_totals(
    tokens: Tensor, cell: Tensor, grid_h: int, grid_w: int, cells_h: int, cells_w: int
) -> tuple[Tensor, Tensor]:
    """Return the sum of the tokens in each cell (batch, cells, channels), and how many they are (batch, cells).

    Args:
        tokens: (batch, N, channels).
        cell: (batch, N), for each token one of the nine cells around it.
        grid_h: rows of the grid; grid_w its columns, cells_h and cells_w rows and columns of cells.
    """
    batch, _, channels = tokens.shape
    totals = tokens.new_zeros((batch, cells_h * cells_w, channels)).scatter_add(1, along_channels(cell, tokens), tokens)
    ones = torch.ones_like(cell, dtype=tokens.dtype)
    return totals, tokens.new_zeros((batch, cells_h * cells_w)).scatter_add(1, cell, ones)


@cell_totals.register_fake
def _(tokens: Tensor, cell: Tensor, grid_h: int, grid_w: int, cells_h: int, cells_w: int) -> tuple[Tensor, Tensor]:
    batch, _, channels = tokens.shape
    return tokens.new_empty((batch, cells_h * cells_w, channels)), tokens.new_empty((batch, cells_h * cells_w))


@torch.library.custom_op("sfpp::unmerge_cells", mutates_args=())
def unmerge_cells(merged: Tensor, cell: Tensor) -> Tensor:
    """Give every token the row of its cell: (batch, N, channels) of (batch, cells, channels) and cell (batch, N)."""
    return merged.gather(1, along_channels(cell, merged))


@unmerge_cells.register_fake
def _(merged: Tensor, cell: Tensor) -> Tensor:
    return merged.new_empty((*cell.shape, merged.shape[2]))


def best_of_candidates(tokens: Tensor, others: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Return how alike each token and the best of its candidates are, (batch, N), and which that is, (batch, N) int64.

    Args:
        tokens: (batch, N, channels) of length 1.
        others: (batch, M, channels) of length 1.
        candidates: (N, n) positions among the others, -1 for none; the first one is taken on a tie.
    """
    similarity = (tokens.unsqueeze(2) * others[:, candidates.clamp(min=0)]).sum(-1)
    best, which = similarity.masked_fill(candidates < 0, -torch.inf).max(-1)
    return best, candidates.expand_as(similarity).gather(2, which.unsqueeze(-1)).squeeze(-1)


def of_length_1(tokens: Tensor) -> Tensor:
    """Return tokens (..., channels) scaled to length 1; zeros stay zeros."""
    return tokens / ((tokens * tokens).sum(-1, keepdim=True) + NORM_EPS).sqrt()


def along_channels(index: Tensor, like: Tensor) -> Tensor:
    """Return indices (batch, n) for each channel of ``like``, (batch, n, channels)."""
    return index.unsqueeze(-1).expand(-1, -1, like.shape[2])
