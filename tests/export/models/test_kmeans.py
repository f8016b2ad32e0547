"""Local k-means and sizes in attention against slow, obvious versions."""

import math

import pytest
import torch

from sfpp.export.models import kmeans, token_merging as tm
from sfpp.export.models.attention import attend
from sfpp.export.models.recipe import KMeans, Pool2d, tokens_after

# Rows and columns of a grid, and a ratio: cells that divide it and cells that do not, a single one, a row, a column.
CASES = [
    ((12, 16), 0.75),
    ((13, 17), 0.9),
    ((9, 11), 0.6),
    ((7, 10), 0.9),
    ((4, 5), 1.0),
    ((1, 9), 0.75),
    ((8, 1), 0.8),
    ((5, 7), 0.3),
]


def start(position, size, count):
    """The cell on one side in which a position starts."""
    return next(cell for cell in range(count) if position * count < (cell + 1) * size)


def slow_cells(tokens, grid_hw, cells_hw, rounds):
    """Assign one frame's tokens (N, channels), token by token."""
    (height, width), (rows, columns) = grid_hw, cells_hw
    unit = [token / math.sqrt(float(token @ token) + 1e-12) for token in tokens]
    places = [(start(y, height, rows), start(x, width, columns)) for y in range(height) for x in range(width)]
    cell_of = [row * columns + column for row, column in places]
    center = [torch.zeros_like(tokens[0])] * (rows * columns)
    for number in range(rounds):
        for cell in range(rows * columns):
            members = [unit[token] for token, own in enumerate(cell_of) if own == cell]
            total = sum(members, torch.zeros_like(tokens[0])) + (0.01 * center[cell] if number else 0)
            center[cell] = total / math.sqrt(float(total @ total) + 1e-12)
        best = []
        for token, (row, column) in enumerate(places):
            near = [
                y * columns + x
                for y in range(max(0, row - 1), min(rows, row + 2))
                for x in range(max(0, column - 1), min(columns, column + 2))
            ]
            likeness = [float(unit[token] @ center[cell]) for cell in near]
            best.append(near[likeness.index(max(likeness))])
        cell_of = best
    return cell_of


def tokens_of(grid_hw, *, batch=2, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, grid_hw[0] * grid_hw[1], 6, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("grid_hw", "ratio"), CASES)
@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_cells_means_sizes_and_copies_equal_the_slow_version(grid_hw, ratio, rounds):
    tokens, merging = tokens_of(grid_hw), KMeans(ratio, rounds)
    cells_hw = merging.cells_hw(grid_hw)
    merged, copy_back, sizes = tm.merge_tokens(tokens, grid_hw, merging)
    back = copy_back(merged)
    assert merged.shape == (2, tokens_after(merging, grid_hw), 6)
    for frame in range(2):
        cell_of = slow_cells(tokens[frame], grid_hw, cells_hw, rounds)
        for cell in range(math.prod(cells_hw)):
            members = [token for token, own in enumerate(cell_of) if own == cell]
            assert sizes[frame, cell] == len(members)
            mean = tokens[frame, members].mean(0) if members else torch.zeros(6, dtype=torch.float64)
            torch.testing.assert_close(merged[frame, cell], mean)
        torch.testing.assert_close(back[frame], merged[frame, cell_of])


def test_tokens_that_are_all_alike_go_to_the_first_cell_nearby_and_leave_others_empty():
    tokens = torch.ones(1, 81, 4)
    matching = tm.matching_of(tokens, (9, 9), KMeans(1 - 9 / 81))
    # Of 3x3 cells each token's first neighbor: upper left, or as near to it as there is.
    assert matching.cell.reshape(9, 9)[::3, ::3].tolist() == [[0, 0, 1], [0, 0, 1], [3, 3, 4]]
    merged, _, sizes = tm.merge_tokens(tokens, (9, 9), KMeans(1 - 9 / 81))
    assert sizes[0].tolist() == [36, 18, 0, 18, 9, 0, 0, 0, 0]
    assert merged[0].sum(1).tolist() == [4, 4, 0, 4, 4, 0, 0, 0, 0]


def test_an_empty_cell_stays_where_it_was():
    """What lost its tokens in the first round can win some in the second."""
    tokens = torch.ones(1, 81, 4)
    once, twice = (kmeans.cluster(tokens, (9, 9), (3, 3), rounds) for rounds in (1, 2))
    assert torch.equal(once, twice)  # it is as alike as the others still, and comes after them


def test_a_batch_is_its_frames():
    tokens = tokens_of((9, 11), batch=3).float()
    merging = KMeans(0.8)
    together = tm.merge_tokens(tokens, (9, 11), merging)
    for frame in range(3):
        single = tm.merge_tokens(tokens[frame : frame + 1], (9, 11), merging)
        torch.testing.assert_close(together.tokens[frame : frame + 1], single.tokens)
        assert torch.equal(together.sizes[frame : frame + 1], single.sizes)


def test_a_ratio_of_zero_leaves_tokens_alone():
    tokens = tokens_of((4, 6))
    assert tm.merge_tokens(tokens, (4, 6), KMeans(0.0)).tokens is tokens
    assert tm.matching_of(tokens, (4, 6), KMeans(0.0)) is None


def test_tokens_of_zeros_do_not_make_nan():
    merged, copy_back, _ = tm.merge_tokens(torch.zeros(1, 20, 3), (4, 5), KMeans(0.7))
    assert copy_back(merged).eq(0).all()


def test_cells_can_be_used_again():
    first, second = tokens_of((9, 11)), tokens_of((9, 11), seed=4)
    merging = KMeans(0.8)
    cells = tm.matching_of(first, (9, 11), merging)
    again = tm.merge_tokens(second, (9, 11), merging, cells)
    totals, sizes = kmeans.cell_totals(second, cells.cell, 9, 11, *merging.cells_hw((9, 11)))
    torch.testing.assert_close(again.tokens, totals / sizes.clamp(min=1).unsqueeze(-1))
    assert not torch.allclose(again.tokens, tm.merge_tokens(second, (9, 11), merging).tokens)


def test_shape_rules_agree_with_the_computation():
    tokens, geometry = tokens_of((9, 11)), (9, 11, 2, 3)
    centers = tokens[:, :6].contiguous()
    cell = kmeans.nearest_cell(tokens, centers, *geometry)
    real = [kmeans.grid_totals(tokens, *geometry), cell, *kmeans.cell_totals(tokens, cell, *geometry)]
    real.append(kmeans.unmerge_cells(centers, cell))
    there, away = cell.to("meta"), tokens.to("meta")
    fake = [kmeans.grid_totals(away, *geometry), kmeans.nearest_cell(away, centers.to("meta"), *geometry)]
    fake += [*kmeans.cell_totals(away, there, *geometry), kmeans.unmerge_cells(centers.to("meta"), there)]
    assert [(each.shape, each.dtype) for each in real] == [(each.shape, each.dtype) for each in fake]


def slow_attention(query, key, value, sizes, heads, scale):
    """Attention of one frame to keys that are repeated as often as their sizes say."""
    key, value = (each.repeat_interleave(sizes, dim=0) for each in (key, value))
    parts = []
    for q, k, v in zip(*(each.chunk(heads, dim=1) for each in (query, key, value)), strict=True):
        weights = torch.exp(scale * q @ k.T)
        parts.append(weights @ v / weights.sum(1, keepdim=True))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("heads", [1, 2, 5])
def test_a_sized_key_counts_as_its_copies(heads):
    generator = torch.Generator().manual_seed(7)
    query = torch.randn(2, 13, 10, dtype=torch.float64, generator=generator)
    key, value = torch.randn(2, 2, 6, 10, dtype=torch.float64, generator=generator)
    sizes = torch.tensor([[1, 4, 0, 17, 2, 1], [1, 1, 1, 1, 1, 1]])
    answer = attend(query, key, value, heads, 0.3, tm.log_of_sizes(sizes.double()))
    for frame in range(2):
        expected = slow_attention(query[frame], key[frame], value[frame], sizes[frame], heads, 0.3)
        torch.testing.assert_close(answer[frame], expected)
    torch.testing.assert_close(answer[1], attend(query, key, value, heads, 0.3)[1])


def test_attention_to_merged_tokens_that_were_alike_is_attention_to_all():
    """Merging loses nothing where a cell's tokens are equal, if the sizes are known."""
    patches = torch.randn(1, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    tokens = patches.reshape(1, 2, 2, 8).repeat_interleave(3, 1).repeat_interleave(2, 2).reshape(1, 24, 8)
    query = torch.randn(1, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    merged, _, sizes = tm.merge_tokens(tokens, (6, 4), Pool2d((4, 2)))
    assert sizes[0].tolist() == [8, 8, 4, 4]
    merged, _, sizes = tm.merge_tokens(tokens, (6, 4), KMeans(1 - 4 / 24))
    torch.testing.assert_close(
        attend(query, merged, merged, 2, 0.5, tm.log_of_sizes(sizes)), attend(query, tokens, tokens, 2, 0.5)
    )


def test_sizes_stay_finite_in_float16():
    logs = tm.log_of_sizes(torch.tensor([[0.0, 1.0, 8040.0]])).half()
    assert logs.isfinite().all()
    assert torch.softmax(logs.float(), dim=-1)[0, 0] == 0
