"""How many tokens each attention will work on, known before anything is traced: what does not fit is refused here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sfpp.export.models.edaformer import EdaFormerConfig
from sfpp.export.models.recipe import GridHw, IsrRecipe, MergingRecipe, Recipe, tokens_after
from sfpp.export.models.segformer import SegFormerConfig, reduced_grid
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import RecipeError, UsageError

Config = SegFormerConfig | EdaFormerConfig


@dataclass(frozen=True)
class StageTokens:
    """How many tokens the attention of one stage works on, before and after merging or reduction."""

    grid_hw: GridHw
    query: int
    key_value: int
    key_value_grid_hw: GridHw
    name: str = ""
    blocks: int = 1


def plan_for(recipe: Recipe, config: Config, spec: InputSpec) -> tuple[StageTokens, ...]:
    """Return the tokens of every stage, in the order of the network, for an input of the spec's size.

    Raises:
        UsageError: the input is too small for the network.
        RecipeError: a cell or window is larger than a stage's grid; the stage is named.
    """
    if isinstance(config, EdaFormerConfig):
        assert isinstance(recipe, IsrRecipe)
        return tuple(_plan_isr(recipe, config, spec))
    assert isinstance(recipe, MergingRecipe)
    encoder = config.encoder
    height, width = (size // recipe.input_step for size in spec.size_hw)
    grids = encoder.stage_grids((height, width))
    pairs = [(grid, reduced_grid(grid, ratio)) for grid, ratio in zip(grids, encoder.reductions, strict=True)]
    for number, (grid, reduced) in enumerate(pairs, 1):
        if min(*grid, *reduced) < 1:
            raise UsageError(
                f"--res {spec.width}x{spec.height} (width x height) is too small: stage {number} has no key/value "
                f"tokens left after its spatial reduction; use at least {32 * recipe.input_step} pixels on each side"
            )
    return plan_tokens(recipe, pairs, blocks=encoder.depths)


def plan_tokens(
    recipe: MergingRecipe, grids: Iterable[tuple[GridHw, GridHw]], *, blocks: tuple[int, ...] = (1, 1, 1, 1)
) -> tuple[StageTokens, ...]:
    """Count the tokens of every stage.

    Args:
        recipe: what to merge.
        grids: for each stage its grid and the reduced grid of its keys and values, (rows, columns).
        blocks: how many blocks each stage has.

    Raises:
        RecipeError: a stage's cell or window is larger than its grid; the stage is named.
    """
    plan = []
    for number, (stage, (grid_hw, reduced_hw), depth) in enumerate(zip(recipe.stages, grids, blocks, strict=True), 1):
        try:
            query, key_value = tokens_after(stage.query, grid_hw), tokens_after(stage.key_value, reduced_hw)
        except RecipeError as error:
            raise RecipeError(f"stage {number}: {error}; use a larger --res or a recipe with smaller cells") from error
        plan.append(StageTokens(grid_hw, query, key_value, reduced_hw, f"stage {number}", depth))
    return tuple(plan)


def _plan_isr(recipe: IsrRecipe, config: EdaFormerConfig, spec: InputSpec) -> Iterator[StageTokens]:
    grids, decoder = config.encoder.stage_grids(spec.size_hw), config.decoder
    for number, grid_hw in enumerate(grids):
        pool, factor = config.encoder.pools[number], recipe.encoder[number]
        yield _pooled(f"encoder stage {number + 1}", grid_hw, pool, factor, config.encoder.depths[number])
    for level, grid_hw in enumerate(grids[1:]):
        pool, factor = decoder.pools[level], recipe.decoder[level]
        yield _pooled(f"decoder stage {level + 2}", grid_hw, pool, factor, decoder.depths[level])


def _pooled(name: str, grid_hw: GridHw, pool: int, factor: int, blocks: int) -> StageTokens:
    reduced = reduced_grid(grid_hw, pool * factor)
    if min(reduced) < 1:
        raise RecipeError(
            f"{name}: a reduction by {pool * factor} ({pool} as trained, times {factor}) does not fit its grid of "
            f"{grid_hw[0]}x{grid_hw[1]} (rows x columns); use a larger --res or a smaller factor in --isr"
        )
    return StageTokens(grid_hw, grid_hw[0] * grid_hw[1], reduced[0] * reduced[1], reduced, name, blocks)


def tokens_by_block(plan: tuple[StageTokens, ...]) -> list[tuple[int, int]]:
    """Return the (query, key/value) tokens of each attention, in the order of the network."""
    return [(stage.query, stage.key_value) for stage in plan for _ in range(stage.blocks)]
