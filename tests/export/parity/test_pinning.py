"""The graph's matching in the place of PyTorch's, and how good it is."""

import numpy as np
import pytest
import torch

from sfpp.export.models import kmeans, token_merging as tm
from sfpp.export.models.recipe import Bipartite, KMeans, cells_nearby, local_candidates, partition_grid
from sfpp.export.parity.pinning import GraphCells, GraphMatching, PinnedMatching, assignment_gap, matching_gap
from sfpp.runtime.errors import VerificationError

GRID, CELL, KEEP = (6, 8), (2, 2), 7


@pytest.fixture
def tokens():
    return torch.randn(2, 48, 16, generator=torch.Generator().manual_seed(1))


def test_the_own_matching_has_no_gap(tokens):
    kept, partner = tm.match_bipartite(tokens, *GRID, *CELL, KEEP)
    assert matching_gap(*tm.unit_tokens(tokens, GRID, CELL), kept, partner) < 1e-6


@pytest.mark.parametrize("local", [False, True])
def test_a_gap_is_found_in_rows_too(tokens, monkeypatch, local):
    kept, partner = tm.match_bipartite(tokens, *GRID, *CELL, KEEP, local)
    units = tm.unit_tokens(tokens, GRID, CELL)
    candidates = local_candidates(GRID, CELL) if local else None
    partner[1, 30] = partner[1, 0]  # for better or worse
    at_once = matching_gap(*units, kept, partner, candidates)
    monkeypatch.setattr(tm, "SIMILARITY_BYTES_LIMIT", 5 * 4 * 2 * 12)  # five rows at a time
    assert matching_gap(*units, kept, partner, candidates) == pytest.approx(at_once)
    assert at_once > 1e-3


def test_another_partner_and_another_kept_source_are_told(tokens):
    kept, partner = tm.match_bipartite(tokens, *GRID, *CELL, KEEP)
    units = tm.unit_tokens(tokens, GRID, CELL)
    swapped = partner.clone()
    swapped[1, 5] = (swapped[1, 5] + 1) % 12
    assert matching_gap(*units, kept, swapped) > 1e-2
    best = (units[0] @ units[1].transpose(1, 2)).amax(-1)
    wrong = kept.clone()
    wrong[0, 0] = best[0].argmax()
    assert matching_gap(*units, wrong, partner) > 1e-2


def test_a_source_kept_twice_is_infinitely_wrong(tokens):
    kept, partner = tm.match_bipartite(tokens, *GRID, *CELL, KEEP)
    kept[0, 1] = kept[0, 0]
    assert matching_gap(*tm.unit_tokens(tokens, GRID, CELL), kept, partner) == float("inf")


def test_merging_inside_uses_the_given_matching(tokens):
    kept = torch.arange(20, 27).expand(2, -1)
    partner = torch.full((2, 36), 3)
    matching = GraphMatching(kept.numpy().astype(np.int32), partner.numpy().astype(np.int32))
    with PinnedMatching([matching]) as pin:
        merged, copy_back, _ = tm.merge_tokens(tokens, GRID, Bipartite(29 / 48, CELL))
    expected, _ = tm.merge_bipartite(tokens, kept, partner, *GRID, *CELL)
    torch.testing.assert_close(merged, expected)
    torch.testing.assert_close(copy_back(merged), tm.unmerge_bipartite(expected, kept, partner, *GRID, *CELL))
    assert pin.worst_gap > 0.1


def test_merging_inside_uses_the_given_cells(tokens):
    merging = KMeans(0.9)  # two by three cells of six by eight tokens
    free = kmeans.cluster(tokens, GRID, merging.cells_hw(GRID), 2)
    moved = free.clone()
    moved[1, 0] = 1  # the first token, to the cell beside its own
    rounds = [GraphCells(each.numpy().astype(np.int32), "there") for each in (free, moved)]
    with PinnedMatching(rounds) as pin:
        merged, copy_back, sizes = tm.merge_tokens(tokens, GRID, merging)
    totals, counts = kmeans.cell_totals(tokens, moved, *GRID, *merging.cells_hw(GRID))
    torch.testing.assert_close(merged, totals / counts.clamp(min=1).unsqueeze(-1))
    torch.testing.assert_close(copy_back(merged), kmeans.unmerge_cells(merged, moved))
    assert torch.equal(sizes, counts)
    assert [name for name, _ in pin.gaps] == ["there", "there"]


def test_how_far_an_assignment_is_from_the_best_one(tokens):
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    cells_hw = (2, 3)
    center = unit[:, :6]
    nearby = torch.from_numpy(cells_nearby(GRID, cells_hw))
    best = kmeans.nearest_cell(unit, center, *GRID, *cells_hw)
    assert assignment_gap(unit, center, best, nearby) < 1e-6
    other = best.clone()
    other[0, 0] = (best[0, 0] + 1) % 2  # of cells 0 and 1, both of which are near the first token
    expected = unit[0, 0] @ (center[0, best[0, 0]] - center[0, other[0, 0]])
    assert assignment_gap(unit, center, other, nearby) == pytest.approx(float(expected), abs=1e-6)
    other[0, 0] = 5  # too far
    assert assignment_gap(unit, center, other, nearby) == float("inf")


@pytest.mark.parametrize("change", [lambda cell: cell[:, 1:], lambda cell: cell + 6, lambda cell: cell - 6])
def test_cells_of_another_plan_are_refused(tokens, change):
    cell = kmeans.cluster(tokens, GRID, (2, 3), 1).numpy()
    for choices in ([], [GraphCells(change(cell))]):
        with (
            PinnedMatching(choices),
            pytest.raises(VerificationError, match=r"a grid of 6x8 \(rows x columns\) should be in 2x3 cells"),
        ):
            kmeans.cluster(tokens, GRID, (2, 3), 1)


def test_only_neighbors_count_in_local_matching():
    """A distant destination that is exactly alike makes a matching of neighbors no worse."""
    tokens = torch.randn(1, 48, 8, generator=torch.Generator().manual_seed(6))
    sources = partition_grid(GRID, CELL).sources
    far = int(sources[-1])  # in the last cell, at the border: some of its nine neighbors do not exist
    tokens[0, far] = tokens[0, 0]  # the first destination, which is no neighbor of it
    kept, partner = tm.match_bipartite(tokens, *GRID, *CELL, KEEP, True)
    unit = tm.unit_tokens(tokens, GRID, CELL)
    candidates = local_candidates(GRID, CELL)
    assert matching_gap(*unit, kept, partner, candidates) < 1e-6
    assert matching_gap(*unit, kept, partner) > 0.1
    # A partner beyond the neighbors is an error, however alike.
    distant = partner.clone()
    distant[0, -1] = 0
    assert matching_gap(*unit, kept, distant, candidates) == float("inf")
    with PinnedMatching([GraphMatching(kept.numpy(), partner.numpy())]) as pinned:
        tm.match_bipartite(tokens, *GRID, *CELL, KEEP, True)
    assert pinned.worst_gap < 1e-6
