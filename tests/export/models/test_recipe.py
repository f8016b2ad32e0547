"""Recipes and the index tables that follow from a grid."""

import numpy as np
import pytest

from sfpp.export.catalog import VARIANTS
from sfpp.export.models.recipe import (
    NO_MERGING,
    Bipartite,
    KMeans,
    MergingRecipe,
    Pool2d,
    StageRecipe,
    local_candidates,
    matches_locally,
    partition_grid,
    tokens_after,
    with_matching,
    with_sizes,
)
from sfpp.runtime.errors import RecipeError

GRIDS = [((8, 12), (4, 4)), ((9, 11), (4, 4)), ((5, 7), (2, 3)), ((4, 4), (4, 4)), ((3, 10), (1, 2)), ((7, 2), (2, 2))]


@pytest.mark.parametrize(("grid_hw", "cell_hw"), GRIDS)
def test_local_candidates_are_the_destinations_of_touching_cells(grid_hw, cell_hw):
    destinations, sources = partition_grid(grid_hw, cell_hw)
    cell = lambda token: np.array([token // grid_hw[1] // cell_hw[0], token % grid_hw[1] // cell_hw[1]])  # noqa: E731
    table = local_candidates(grid_hw, cell_hw)
    assert table.shape == (len(sources), 9)
    for source, row in zip(sources, table, strict=True):
        near = [i for i, d in enumerate(destinations) if np.abs(cell(d) - cell(source)).max() <= 1]
        assert row[row >= 0].tolist() == near  # ascending, so that the first one wins a tie
        assert near


def test_a_cell_that_does_not_fit_has_no_candidates():
    with pytest.raises(RecipeError, match="4x4 tokens does not fit"):
        local_candidates((3, 9), (4, 4))


def test_matching_is_changed_wherever_tokens_are_matched():
    recipe = MergingRecipe((StageRecipe(Bipartite(0.5, (2, 2)), Pool2d((2, 2))), *VARIANTS["hq"].stages[1:]))
    changed = with_matching(recipe, local=True, share_matching=3)
    assert changed.stages[0] == StageRecipe(Bipartite(0.5, (2, 2), local=True), Pool2d((2, 2)))
    assert changed.stages[1].key_value == Bipartite(0.6, (2, 2), local=True)
    assert changed.share_matching == 3
    assert matches_locally(changed)
    assert not matches_locally(recipe)
    assert with_matching(changed, local=False) == recipe


@pytest.mark.parametrize(
    ("share", "anew"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (5, [0]), (9, [0]), (0, [0])]
)
def test_blocks_share_a_matching(share, anew):
    recipe = MergingRecipe(share_matching=share)
    assert [block for block in range(5) if recipe.matches_anew(block)] == anew


def test_which_variants_match_tokens():
    assert [name for name, recipe in VARIANTS.items() if recipe.merges_bipartite] == ["hq", "hq+", "fast", "fast+"]
    keys_by_kmeans = MergingRecipe((StageRecipe(key_value=KMeans(0.9)), *[StageRecipe()] * 3))
    assert keys_by_kmeans.matches
    assert not keys_by_kmeans.merges_bipartite
    assert not NO_MERGING.matches
    assert not VARIANTS["2x2"].matches


def test_which_variants_weigh_keys_by_their_sizes():
    assert [name for name, recipe in VARIANTS.items() if recipe.sized] == ["hq+", "fast+"]
    assert with_sizes(VARIANTS["hq"]) == VARIANTS["hq+"]
    assert not any(stage.sized for stage in with_sizes(VARIANTS["2x2"]).stages)  # it merges no keys
    assert with_matching(VARIANTS["hq+"], local=True).sized


@pytest.mark.parametrize(
    ("grid_hw", "ratio", "cells_hw"),
    [
        ((67, 120), 0.9, (21, 38)),
        ((15, 11), 0.9, (5, 3)),
        ((8, 6), 0.9, (3, 2)),
        ((5, 4), 1.0, (1, 1)),
        ((5, 4), 0, (5, 4)),
    ],
)
def test_cells_of_kmeans(grid_hw, ratio, cells_hw):
    assert KMeans(ratio).cells_hw(grid_hw) == cells_hw
    assert tokens_after(KMeans(ratio), grid_hw) == cells_hw[0] * cells_hw[1]
