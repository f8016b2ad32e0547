"""Token merging as pure functions: which tokens are alike, merge them, count them, copy the answer back.

Shapes: tokens are (batch, N, channels) float, N = grid height x grid width in row-major order. The functions decorated
with ``custom_op`` behave like any other torch function; when a network is traced for export each of them stays a single
node, which a lowering (``sfpp.export.lowering``) then spells out for its target.

Source: SegFormer++ (arXiv 2405.14467), after Token Merging for Stable Diffusion (arXiv 2303.17604). Sizes in attention
are those of Token Merging (arXiv 2210.09461).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from sfpp.export.models.kmeans import (
    along_channels,
    best_of_candidates,
    cell_totals,
    cluster,
    of_length_1,
    unmerge_cells,
)
from sfpp.export.models.recipe import (
    Bipartite,
    GridHw,
    KMeans,
    Merging,
    Pool1d,
    Pool2d,
    cells_of_grid,
    local_candidates,
    partition_grid,
    pooled_grid,
    tokens_after,
    window_sizes,
)

# A matrix of similarities is computed in rows of at most so many bytes.
SIMILARITY_BYTES_LIMIT = 1 << 28
# The log of nothing: in float16 too it leaves an empty cell no weight in a softmax.
LOG_OF_EMPTY = -1e4


class CopyBack(Protocol):
    """Copies an answer for merged tokens, (batch, merged, channels), back to every token of the grid."""

    def __call__(self, answer: Tensor, /) -> Tensor:
        """Return (batch, N, channels) in grid order."""


class Pairs(NamedTuple):
    """Which sources stay, ``kept`` (batch, k), and where each source would go, ``partner`` (batch, S); both int64."""

    kept: Tensor
    partner: Tensor


class Cells(NamedTuple):
    """Which ``cell`` each token is in: (batch, N) int64."""

    cell: Tensor


Matching = Pairs | Cells


class Merged(NamedTuple):
    """Merged tokens (batch, merged, channels), how many each stands for (batch, merged), and the way back.

    ``sizes`` is None where all tokens stand for themselves alone.
    """

    tokens: Tensor
    copy_back: CopyBack
    sizes: Tensor | None = None


def matching_of(tokens: Tensor, grid_hw: GridHw, merging: Merging | None) -> Matching | None:
    """Match tokens (batch, N, channels) over ``grid_hw``; None where ``merging`` needs no matching.

    Raises:
        RecipeError: the merging does not fit the grid.
    """
    if merging is None or tokens_after(merging, grid_hw) == grid_hw[0] * grid_hw[1]:
        return None
    if isinstance(merging, KMeans):
        return Cells(cluster(tokens, grid_hw, merging.cells_hw(grid_hw), merging.rounds))
    if not isinstance(merging, Bipartite):
        return None
    return Pairs(*match_bipartite(tokens, *grid_hw, *merging.cell_hw, merging.kept_count(grid_hw), merging.local))


def merge_tokens(tokens: Tensor, grid_hw: GridHw, merging: Merging | None, matching: Matching | None = None) -> Merged:
    """Merge tokens as ``merging`` says.

    Args:
        tokens: (batch, N, channels) over ``grid_hw``.
        grid_hw: rows and columns.
        merging: None, or a merging that takes nothing away on this grid, returns the tokens as they are.
        matching: of other tokens on the same grid, to be used again; None matches these.

    Raises:
        RecipeError: the merging does not fit the grid.
    """
    if merging is None or tokens_after(merging, grid_hw) == grid_hw[0] * grid_hw[1]:
        return Merged(tokens, lambda answer: answer)
    if isinstance(merging, Pool1d):  # runs are windows of a grid with a single column
        grid_hw, merging = (grid_hw[0] * grid_hw[1], 1), Pool2d((merging.window, 1))
    if isinstance(merging, Pool2d):
        window_hw = merging.window_hw
        geometry = (*grid_hw, *pooled_grid(grid_hw, window_hw))
        sizes = torch.from_numpy(window_sizes(grid_hw, window_hw)).to(tokens)
        pooled = pool_2d(tokens, grid_hw, window_hw)
        return Merged(pooled, lambda answer: unmerge_windows(answer, *geometry), sizes)
    matching = matching or cast(Matching, matching_of(tokens, grid_hw, merging))
    if isinstance(matching, Cells):
        assert isinstance(merging, KMeans)
        return _merge_cells(tokens, matching.cell, (*grid_hw, *merging.cells_hw(grid_hw)))
    assert isinstance(merging, Bipartite)
    kept, partner = matching
    geometry = (*grid_hw, *merging.cell_hw)
    merged, sizes = merge_bipartite(tokens, kept, partner, *geometry, merging.local)
    return Merged(merged, lambda answer: unmerge_bipartite(answer, kept, partner, *geometry), sizes)


def log_of_sizes(sizes: Tensor) -> Tensor:
    """Return the log of how many tokens each one stands for, and of none a number that leaves it no weight."""
    return torch.where(sizes > 0.5, sizes.clamp(min=1.0).log(), LOG_OF_EMPTY)


def _merge_cells(tokens: Tensor, cell: Tensor, geometry: tuple[int, int, int, int]) -> Merged:
    """Return the mean of each cell's tokens; that of an empty cell is zero."""
    totals, sizes = cell_totals(tokens, cell, *geometry)
    means = totals / sizes.clamp(min=1.0).unsqueeze(-1)
    return Merged(means, lambda answer: unmerge_cells(answer, cell), sizes)


@torch.library.custom_op("sfpp::match_bipartite", mutates_args=())
def match_bipartite(
    tokens: Tensor, grid_h: int, grid_w: int, cell_h: int, cell_w: int, keep: int, local: bool = False
) -> tuple[Tensor, Tensor]:
    """Find each source's most similar destination (cosine), and the ``keep`` sources that resemble theirs least.

    Everywhere, or with ``local`` among the destinations of the source's own cell and the eight around it.

    Returns:
        kept: (batch, keep) int64, positions in the list of sources, in no particular order.
        partner: (batch, S) int64, for every source the position of its destination in the list of destinations; the
            first one on a tie.
    """
    grid_hw, cell_hw = (grid_h, grid_w), (cell_h, cell_w)
    sources, destinations = unit_tokens(tokens, grid_hw, cell_hw)
    if local:
        candidates = torch.from_numpy(local_candidates(grid_hw, cell_hw)).to(tokens.device)
        best, partner = best_of_candidates(sources, destinations, candidates)
    else:
        found = [similarity.max(-1) for similarity in similarity_by_rows(sources, destinations)]
        best, partner = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
    kept = best.topk(keep, largest=False).indices
    return kept, partner


@match_bipartite.register_fake
def _(
    tokens: Tensor, grid_h: int, grid_w: int, cell_h: int, cell_w: int, keep: int, local: bool = False
) -> tuple[Tensor, Tensor]:
    sources = len(partition_grid((grid_h, grid_w), (cell_h, cell_w)).sources)
    batch = tokens.shape[0]
    return tokens.new_empty((batch, keep), dtype=torch.int64), tokens.new_empty((batch, sources), dtype=torch.int64)


def similarity_by_rows(sources: Tensor, destinations: Tensor) -> Iterator[Tensor]:
    """Yield the similarities of all sources (batch, S, channels) and destinations, (batch, rows, D) at a time."""
    transposed = destinations.transpose(1, 2)
    rows = max(1, SIMILARITY_BYTES_LIMIT // (4 * len(transposed) * max(1, int(transposed.shape[2]))))
    for part in torch.split(sources, rows, dim=1):
        yield part @ transposed


def unit_tokens(tokens: Tensor, grid_hw: GridHw, cell_hw: GridHw) -> tuple[Tensor, Tensor]:
    """Return sources (batch, S, channels) and destinations (batch, D, channels), each token scaled to length 1."""
    destinations, sources = _partition_tensors(grid_hw, cell_hw, tokens.device)
    unit = of_length_1(tokens)
    return unit[:, sources], unit[:, destinations]


@torch.library.custom_op("sfpp::merge_bipartite", mutates_args=())
def merge_bipartite(
    tokens: Tensor,
    kept: Tensor,
    partner: Tensor,
    grid_h: int,
    grid_w: int,
    cell_h: int,
    cell_w: int,
    local: bool = False,
) -> tuple[Tensor, Tensor]:
    """Replace each destination by the mean of itself and the sources merged into it.

    Args:
        tokens: (batch, N, channels).
        kept: (batch, k) and partner (batch, S), as :func:`match_bipartite` returns them.
        grid_h: rows of the grid; grid_w, cell_h and cell_w likewise.
        local: whether partners are in neighboring cells, which a lowering may make use of.

    Returns:
        (batch, k + D, channels): the kept sources in the order of ``kept``, then all destinations; and how many tokens
        each of them stands for, (batch, k + D).
    """
    destinations, sources = _partition_tensors((grid_h, grid_w), (cell_h, cell_w), tokens.device)
    source_tokens, merged = tokens[:, sources], tokens[:, destinations]
    is_merged = torch.ones_like(partner, dtype=tokens.dtype).scatter(1, kept, 0.0).unsqueeze(-1)
    totals = merged.scatter_add(1, along_channels(partner, tokens), source_tokens * is_merged)
    counts = torch.ones_like(merged[..., :1]).scatter_add(1, partner.unsqueeze(-1), is_merged)
    kept_tokens = source_tokens.gather(1, along_channels(kept, tokens))
    sizes = torch.cat([torch.ones_like(kept, dtype=tokens.dtype), counts.squeeze(-1)], dim=1)
    return torch.cat([kept_tokens, totals / counts], dim=1), sizes


@merge_bipartite.register_fake
def _(tokens: Tensor, kept: Tensor, partner: Tensor, *geometry: int) -> tuple[Tensor, Tensor]:
    grid_h, grid_w, cell_h, cell_w = geometry[:4]
    merged = kept.shape[1] + len(partition_grid((grid_h, grid_w), (cell_h, cell_w)).destinations)
    return tokens.new_empty((tokens.shape[0], merged, tokens.shape[2])), tokens.new_empty((tokens.shape[0], merged))


@torch.library.custom_op("sfpp::unmerge_bipartite", mutates_args=())
def unmerge_bipartite(
    merged: Tensor, kept: Tensor, partner: Tensor, grid_h: int, grid_w: int, cell_h: int, cell_w: int
) -> Tensor:
    """Give every token of the grid the row that it was merged into; the counterpart of :func:`merge_bipartite`.

    Returns:
        (batch, N, channels) in grid order: a kept source gets its own row, a merged source its destination's.
    """
    destinations, sources = _partition_tensors((grid_h, grid_w), (cell_h, cell_w), merged.device)
    keep = kept.shape[1]
    rows = torch.arange(keep, device=kept.device).expand_as(kept)
    row_of_source = (partner + keep).scatter(1, kept, rows)
    row_of_token = partner.new_empty((len(partner), grid_h * grid_w))
    row_of_token[:, sources] = row_of_source
    row_of_token[:, destinations] = torch.arange(keep, keep + len(destinations), device=kept.device)
    return merged.gather(1, along_channels(row_of_token, merged))


@unmerge_bipartite.register_fake
def _(merged: Tensor, kept: Tensor, partner: Tensor, grid_h: int, grid_w: int, cell_h: int, cell_w: int) -> Tensor:
    return merged.new_empty((merged.shape[0], grid_h * grid_w, merged.shape[2]))


def pool_2d(tokens: Tensor, grid_hw: GridHw, window_hw: GridHw) -> Tensor:
    """Average windows of the grid.

    Returns:
        (batch, ceil(H / rows) * ceil(W / columns), channels); windows at the border average only what is inside.
    """
    batch, channels = int(tokens.shape[0]), int(tokens.shape[2])
    image = tokens.transpose(1, 2).reshape(batch, channels, *grid_hw)
    pooled = F.avg_pool2d(image, window_hw, window_hw, ceil_mode=True, count_include_pad=False)
    out_h, out_w = pooled_grid(grid_hw, window_hw)
    return pooled.reshape(batch, channels, out_h * out_w).transpose(1, 2)


@torch.library.custom_op("sfpp::unmerge_windows", mutates_args=())
def unmerge_windows(pooled: Tensor, grid_h: int, grid_w: int, windows_h: int, windows_w: int) -> Tensor:
    """Copy pooled tokens back to (batch, H * W, channels) by nearest neighbor; the counterpart of :func:`pool_2d`."""
    table = torch.from_numpy(cells_of_grid((grid_h, grid_w), (windows_h, windows_w)))
    return pooled.index_select(1, table.to(pooled.device))


@unmerge_windows.register_fake
def _(pooled: Tensor, grid_h: int, grid_w: int, windows_h: int, windows_w: int) -> Tensor:
    return pooled.new_empty((pooled.shape[0], grid_h * grid_w, pooled.shape[2]))


def _partition_tensors(grid_hw: GridHw, cell_hw: GridHw, device: torch.device) -> tuple[Tensor, Tensor]:
    partition = partition_grid(grid_hw, cell_hw)
    return torch.from_numpy(partition.destinations).to(device), torch.from_numpy(partition.sources).to(device)
