"""Token merging against a slow, obvious version."""

import math

import pytest
import torch

from sfpp.export.models import token_merging as tm
from sfpp.export.models.recipe import Bipartite, Pool1d, Pool2d, partition_grid, tokens_after
from sfpp.runtime.errors import RecipeError

GRIDS = [((13, 17), (2, 3)), ((8, 12), (2, 2)), ((9, 11), (4, 4)), ((5, 7), (2, 3)), ((4, 4), (4, 4)), ((1, 6), (1, 2))]


def are_neighbors(source, destination, width, cell_hw):
    """Whether two tokens stand in the same cell or in cells that touch."""
    cells = [(index // width // cell_hw[0], index % width // cell_hw[1]) for index in (source, destination)]
    return all(abs(first - second) <= 1 for first, second in zip(*cells, strict=True))


def slow_merge(tokens, grid_hw, merging):
    """Merge one frame, token by token; returns destinations' means, kept tokens by grid index, and each token's row."""
    (height, width), (cell_h, cell_w) = grid_hw, merging.cell_hw
    destinations = [
        y * width + x for y in range(0, height - cell_h + 1, cell_h) for x in range(0, width - cell_w + 1, cell_w)
    ]
    sources = [index for index in range(height * width) if index not in destinations]
    best = []
    for source in sources:
        choice = [d for d in destinations if not merging.local or are_neighbors(source, d, width, merging.cell_hw)]
        cosines = [float(torch.cosine_similarity(tokens[source], tokens[d], dim=0)) for d in choice]
        best.append((max(cosines), choice[cosines.index(max(cosines))]))
    merged_count = min(int(height * width * merging.ratio), len(sources))
    ranking = sorted(range(len(sources)), key=lambda i: best[i][0], reverse=True)
    partner_of = {sources[i]: best[i][1] for i in ranking[:merged_count]}
    means = {}
    for destination in destinations:
        group = [destination] + [source for source, partner in partner_of.items() if partner == destination]
        means[destination] = tokens[group].mean(0)
    answer = torch.stack(
        [means[partner_of.get(i, i)] if partner_of.get(i, i) in means else tokens[i] for i in range(height * width)]
    )
    return means, partner_of, answer


@pytest.mark.parametrize(("grid_hw", "cell_hw"), GRIDS)
@pytest.mark.parametrize("ratio", [0.25, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("local", [False, True])
def test_merge_and_copy_back_equal_the_slow_version(grid_hw, cell_hw, ratio, local):
    torch.manual_seed(3)
    tokens = torch.randn(2, grid_hw[0] * grid_hw[1], 6, dtype=torch.float64)
    merging = Bipartite(ratio, cell_hw, local)
    merged, copy_back, sizes = tm.merge_tokens(tokens, grid_hw, merging)
    back = copy_back(merged)
    assert merged.shape == (2, tokens_after(merging, grid_hw), 6)
    for frame in range(2):
        means, partner_of, answer = slow_merge(tokens[frame], grid_hw, merging)
        torch.testing.assert_close(back[frame], answer)
        kept = [i for i in range(tokens.shape[1]) if i not in means and i not in partner_of]
        counted = [1 + list(partner_of.values()).count(destination) for destination in means]
        assert sizes is None or sizes[frame].tolist() == [*[1] * len(kept), *counted]
        expected = torch.cat([tokens[frame, kept], torch.stack(list(means.values()))])
        by_value = lambda rows: rows[rows[:, 0].argsort()]  # noqa: E731 - the order of merged tokens is free
        torch.testing.assert_close(by_value(merged[frame]), by_value(expected))


def test_matching_in_rows_equals_matching_at_once(monkeypatch):
    tokens = torch.randn(2, 13 * 17, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    at_once = tm.match_bipartite(tokens, 13, 17, 2, 3, 50)
    sources, destinations = tm.unit_tokens(tokens, (13, 17), (2, 3))
    monkeypatch.setattr(tm, "SIMILARITY_BYTES_LIMIT", 7 * 4 * 2 * destinations.shape[1])
    rows = [part.shape[1] for part in tm.similarity_by_rows(sources, destinations)]
    assert rows == [7] * (sources.shape[1] // 7) + [sources.shape[1] % 7]
    in_rows = tm.match_bipartite(tokens, 13, 17, 2, 3, 50)
    for expected, found in zip(at_once, in_rows, strict=True):
        assert torch.equal(expected, found)


def test_batch_equals_singles():
    tokens = torch.randn(3, 63, 8)
    merging = Bipartite(0.6, (2, 2))
    merged, copy_back, _ = tm.merge_tokens(tokens, (7, 9), merging)
    together = copy_back(merged)
    for frame in range(3):
        single, single_back, _ = tm.merge_tokens(tokens[frame : frame + 1], (7, 9), merging)
        torch.testing.assert_close(together[frame : frame + 1], single_back(single))


def test_a_tie_goes_to_the_first_destination():
    tokens = torch.ones(1, 16, 4)
    _, partner = tm.match_bipartite(tokens, 4, 4, 2, 2, 3)
    assert partner.eq(0).all()


def test_a_ratio_of_zero_leaves_tokens_alone():
    tokens = torch.randn(1, 24, 4)
    merged, copy_back, _ = tm.merge_tokens(tokens, (4, 6), Bipartite(0.0, (2, 2)))
    assert merged is tokens
    assert copy_back(merged) is tokens


def test_tokens_of_zeros_do_not_make_nan():
    tokens = torch.zeros(1, 16, 4)
    merged, copy_back, _ = tm.merge_tokens(tokens, (4, 4), Bipartite(0.5, (2, 2)))
    assert copy_back(merged).eq(0).all()


@pytest.mark.parametrize(
    ("grid_hw", "ratio", "cell", "kept", "after"),
    [
        # design table for 3840x2160: hq, then fast; keys and values of stages 1-2, queries of stages 3 and 4
        ((67, 120), 0.6, 2, 1236, 3216),
        ((135, 240), 0.8, 4, 4500, 6480),
        ((68, 120), 0.8, 4, 1122, 1632),
        ((67, 120), 0.9, 4, 324, 804),
        ((135, 240), 0.9, 4, 1260, 3240),
        ((68, 120), 0.9, 4, 306, 816),
    ],
)
def test_counts_at_3840x2160(grid_hw, ratio, cell, kept, after):
    merging = Bipartite(ratio, (cell, cell))
    assert merging.kept_count(grid_hw) == kept
    assert tokens_after(merging, grid_hw) == after


def test_partition_holds_every_token_once():
    partition = partition_grid((9, 11), (4, 4))
    assert partition.destinations.tolist() == [0, 4, 44, 48]
    assert sorted([*partition.destinations, *partition.sources]) == list(range(99))


@pytest.mark.parametrize(
    ("grid_hw", "window_hw"), [((6, 8), (2, 2)), ((7, 9), (2, 2)), ((7, 9), (3, 4)), ((6, 5), (4, 1))]
)
def test_pool_2d_averages_windows_and_copies_back(grid_hw, window_hw):
    height, width = grid_hw
    tokens = torch.randn(2, height * width, 5, dtype=torch.float64)
    merged, copy_back, sizes = tm.merge_tokens(tokens, grid_hw, Pool2d(window_hw))
    out_h, out_w = math.ceil(height / window_hw[0]), math.ceil(width / window_hw[1])
    grid = tokens.reshape(2, height, width, 5)
    for y in range(out_h):
        for x in range(out_w):
            rows = slice(y * window_hw[0], (y + 1) * window_hw[0])
            window = grid[:, rows, x * window_hw[1] : (x + 1) * window_hw[1]]
            torch.testing.assert_close(merged[:, y * out_w + x], window.mean((1, 2)))
            assert sizes[0, y * out_w + x] == window.shape[1] * window.shape[2]
    back = copy_back(merged).reshape(2, height, width, 5)
    pooled = merged.reshape(2, out_h, out_w, 5).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(pooled, size=grid_hw, mode="nearest").permute(0, 2, 3, 1)
    torch.testing.assert_close(back, expected)


@pytest.mark.parametrize(("count", "window"), [(12, 2), (13, 2), (14, 4)])
def test_pool_1d_averages_runs_and_copies_back(count, window):
    tokens = torch.randn(1, count, 3, dtype=torch.float64)
    merged, copy_back, sizes = tm.merge_tokens(tokens, (1, count), Pool1d(window))
    expected = torch.stack([tokens[0, start : start + window].mean(0) for start in range(0, count, window)])
    torch.testing.assert_close(merged[0], expected)
    assert sizes[0].tolist() == [min(window, count - start) for start in range(0, count, window)]
    rows = [index * len(expected) // count for index in range(count)]
    torch.testing.assert_close(copy_back(merged)[0], expected[rows])


@pytest.mark.parametrize("merging", [Bipartite(0.5, (4, 4)), Pool2d((2, 6)), Pool1d(40)])
def test_a_window_larger_than_the_grid_is_refused(merging):
    with pytest.raises(RecipeError, match="does not fit a grid"):
        tm.merge_tokens(torch.randn(1, 15, 2), (3, 5), merging)


@pytest.mark.parametrize("keep", [0, 5])
def test_shape_rules_agree_with_the_computation(keep):
    tokens = torch.randn(2, 24, 4)
    geometry = (4, 6, 2, 2)
    kept, partner = tm.match_bipartite(tokens, *geometry, keep)
    merged, sizes = tm.merge_bipartite(tokens, kept, partner, *geometry)
    unmerged = tm.unmerge_bipartite(merged, kept, partner, *geometry)
    fake_kept, fake_partner = tm.match_bipartite(tokens.to("meta"), *geometry, keep)
    fake_merged, fake_sizes = tm.merge_bipartite(tokens.to("meta"), fake_kept, fake_partner, *geometry)
    fake_unmerged = tm.unmerge_bipartite(fake_merged, fake_kept, fake_partner, *geometry)
    pairs = [
        (kept, fake_kept),
        (partner, fake_partner),
        (merged, fake_merged),
        (sizes, fake_sizes),
        (unmerged, fake_unmerged),
    ]
    for real, fake in pairs:
        assert (real.shape, real.dtype) == (fake.shape, fake.dtype)


def test_a_matching_can_be_used_again():
    """Other tokens on the same grid are merged as the first ones were."""
    first, second = torch.randn(2, 1, 63, 8, generator=torch.Generator().manual_seed(5))
    merging = Bipartite(0.6, (2, 2))
    matching = tm.matching_of(first, (7, 9), merging)
    merged, copy_back, _ = tm.merge_tokens(second, (7, 9), merging, matching)
    expected, _ = tm.merge_bipartite(second, *matching, 7, 9, 2, 2)
    torch.testing.assert_close(merged, expected)
    torch.testing.assert_close(copy_back(merged), tm.unmerge_bipartite(expected, *matching, 7, 9, 2, 2))
    anew, *_ = tm.merge_tokens(second, (7, 9), merging)
    assert not torch.allclose(merged, anew)


@pytest.mark.parametrize("merging", [None, Pool2d((2, 2)), Pool1d(3), Bipartite(0.0, (2, 2))])
def test_what_needs_no_matching_has_none(merging):
    assert tm.matching_of(torch.randn(1, 63, 8), (7, 9), merging) is None


def test_a_local_partner_is_a_neighbor_though_a_distant_token_is_more_alike():
    tokens = torch.eye(24).reshape(1, 24, 24) + 0.1  # 4x6, cells of 2x2
    tokens[0, 7] = tokens[0, 4]  # in the cell at the left, like the destination of the cell at the right
    sources = partition_grid((4, 6), (2, 2)).sources.tolist()
    _, everywhere = tm.match_bipartite(tokens, 4, 6, 2, 2, 3)
    _, nearby = tm.match_bipartite(tokens, 4, 6, 2, 2, 3, True)
    assert everywhere[0, sources.index(7)] == 2
    assert nearby[0, sources.index(7)] in (0, 1, 3, 4)
