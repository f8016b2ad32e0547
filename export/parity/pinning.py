"""PyTorch with the matching of an exported graph: is what the graph chose right, and is the rest exact?

Where tokens are nearly equal (a clear sky, a padded border), float32 cannot tell which of many destinations or cells
resembles a token most, so two sound implementations merge differently. Comparing their logits then says little. Here
the learned model is given the graph's choice: the logits must agree as closely as without merging, and every choice
must be as good as PyTorch's own up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sfpp.export.models.kmeans import best_of_candidates
from sfpp.export.models.recipe import cells_nearby, local_candidates
from sfpp.export.models.token_merging import similarity_by_rows, unit_tokens
from sfpp.runtime.errors import VerificationError

_MATCH = torch.ops.sfpp.match_bipartite.default
_NEAREST = torch.ops.sfpp.nearest_cell.default


@dataclass(frozen=True)
class GraphMatching:
    """One matching as the graph made it: ``kept`` (batch, k) and ``partner`` (batch, S), positions as integers.

    ``name`` is the path of its attention, for messages.
    """

    kept: NDArray[np.integer[Any]]
    partner: NDArray[np.integer[Any]]
    name: str = ""


@dataclass(frozen=True)
class GraphCells:
    """One round of k-means as the graph made it: ``cell`` (batch, N), positions as integers; ``name`` likewise."""

    cell: NDArray[np.integer[Any]]
    name: str = ""


GraphChoice = GraphMatching | GraphCells


class PinnedMatching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside this context each matching, and each round of k-means, returns the graph's choice.

    A graph that merges on another grid, in other cells or in other places raises :class:`VerificationError`.

    Args:
        choices: all of the graph's, in the order of the network.

    Attributes:
        gaps: by how much of cosine similarity each of the graph's choices fell short of the best possible one, with the
            path of its attention, in the order of the network.
    """

    def __init__(self, choices: Sequence[GraphChoice]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gaps: list[tuple[str, float]] = []
        self._matchings = (each for each in choices if isinstance(each, GraphMatching))
        self._cells = (each for each in choices if isinstance(each, GraphCells))

    @property
    def worst_gap(self) -> float:
        """The largest of the gaps; NaN if one is, 0 before any matching."""
        return float(np.max([0.0, *(gap for _, gap in self.gaps)]))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _MATCH:
            return self._match(*args)
        if func is _NEAREST:
            return self._assign(*args)
        return func(*args, **(kwargs or {}))

    def _match(
        self, tokens: Tensor, grid_h: int, grid_w: int, cell_h: int, cell_w: int, keep: int, local: bool = False
    ) -> tuple[Tensor, Tensor]:
        grid_hw, cell_hw = (grid_h, grid_w), (cell_h, cell_w)
        sources, destinations = unit_tokens(tokens, grid_hw, cell_hw)
        candidates = local_candidates(grid_hw, cell_hw) if local else None
        count_s, count_d = int(sources.shape[1]), int(destinations.shape[1])
        matching = next(self._matchings, None)
        if matching is None or not _fits(matching, len(tokens), keep=keep, sources=count_s, destinations=count_d):
            raise VerificationError(
                f"merging is not in the graph as planned: on a grid of {grid_h}x{grid_w} (rows x columns) with cells "
                f"of {cell_h}x{cell_w}, {keep} of {count_s} tokens should stay; please report this with the command"
            )
        kept = torch.from_numpy(matching.kept.astype(np.int64))
        partner = torch.from_numpy(matching.partner.astype(np.int64))
        self.gaps.append((matching.name, matching_gap(sources, destinations, kept, partner, candidates)))
        return kept, partner

    def _assign(self, tokens: Tensor, centers: Tensor, grid_h: int, grid_w: int, cells_h: int, cells_w: int) -> Tensor:
        choice, shape, count = next(self._cells, None), tuple(tokens.shape[:2]), cells_h * cells_w
        if choice is None or choice.cell.shape != shape or not bool(((choice.cell >= 0) & (choice.cell < count)).all()):
            raise VerificationError(
                f"merging is not in the graph as planned: a grid of {grid_h}x{grid_w} (rows x columns) should be in "
                f"{cells_h}x{cells_w} cells; please report this with the command"
            )
        cell = torch.from_numpy(choice.cell.astype(np.int64))
        nearby = torch.from_numpy(cells_nearby((grid_h, grid_w), (cells_h, cells_w)))
        self.gaps.append((choice.name, assignment_gap(tokens, centers, cell, nearby)))
        return cell


def _fits(matching: GraphMatching, batch: int, *, keep: int, sources: int, destinations: int) -> bool:
    """Return whether the positions are as many, and as large, as this grid and cell allow."""
    shapes = matching.kept.shape == (batch, keep) and matching.partner.shape == (batch, sources)
    limits = ((matching.kept, sources), (matching.partner, destinations))
    return shapes and all(bool(((values >= 0) & (values < limit)).all()) for values, limit in limits)


def matching_gap(
    sources: Tensor,
    destinations: Tensor,
    kept: Tensor,
    partner: Tensor,
    candidates: NDArray[np.int64] | None = None,
) -> float:
    """Return how far a matching is from a best one, in cosine similarity; 0 is optimal, rounding gives about 1e-6.

    Args:
        sources: (batch, S, channels) of length 1.
        destinations: (batch, D, channels) of length 1.
        kept: (batch, k) sources that were not merged.
        partner: (batch, S) destination of every source.
        candidates: (S, 9) destinations that each source may choose from, -1 for none; None leaves it all of them.

    Returns:
        The larger of: the best similarity of a source less that of its partner; the best similarity of a kept source
        less that of a merged one, since the least similar are the ones to keep. Infinite if a source is kept twice, or
        if a partner is none of the candidates.
    """
    count_d, start = int(destinations.shape[1]), 0
    bests, choices = [], []
    for similarity in similarity_by_rows(sources, destinations):
        rows = slice(start, start := start + int(similarity.shape[1]))
        if candidates is not None:
            similarity = similarity.masked_fill(~_allowed(candidates[rows], count_d), -torch.inf)
        bests.append(similarity.amax(-1))
        choices.append(similarity.gather(2, partner[:, rows].unsqueeze(-1)).squeeze(-1))
    best, chosen = torch.cat(bests, dim=1), torch.cat(choices, dim=1)
    gap = float((best - chosen).max())
    is_kept = torch.zeros_like(best, dtype=torch.bool).scatter(1, kept, value=True)
    if not bool((is_kept.sum(1) == kept.shape[1]).all()):
        return float("inf")
    most_similar_kept = best.masked_fill(~is_kept, -2.0).amax(1)
    least_similar_merged = best.masked_fill(is_kept, 2.0).amin(1)
    return max(gap, float((most_similar_kept - least_similar_merged).max()))


def assignment_gap(tokens: Tensor, centers: Tensor, cell: Tensor, candidates: Tensor) -> float:
    """Return how far an assignment to cells is from the best one, in cosine similarity; 0 is optimal.

    Args:
        tokens: (batch, N, channels) of length 1.
        centers: (batch, cells, channels) of length 1.
        cell: (batch, N), the cell of each token.
        candidates: (N, 9) cells that each token may choose from, -1 for none.

    Returns:
        The largest shortfall; infinite if a cell is none of the candidates.
    """
    if not bool((cell.unsqueeze(-1) == candidates).any(-1).all()):
        return float("inf")
    best, _ = best_of_candidates(tokens, centers, candidates)
    chosen = (tokens * centers.gather(1, cell.unsqueeze(-1).expand_as(tokens))).sum(-1)
    return float((best - chosen).max())


def _allowed(candidates: NDArray[np.int64], count_d: int) -> Tensor:
    """Return (rows, D) bool: which destinations each of these sources may choose."""
    # One column more receives the entries that stand for no destination.
    allowed = torch.zeros((len(candidates), count_d + 1), dtype=torch.bool)
    table = torch.from_numpy(candidates)
    return allowed.scatter(1, torch.where(table < 0, count_d, table), value=True)[:, :count_d]
