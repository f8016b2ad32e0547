"""Is the merging in a graph what its contract says? Counted while the graph runs, before any number is compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sfpp.export.catalog import ISR_VARIANTS, VARIANTS
from sfpp.export.models.recipe import Bipartite, IsrRecipe, MergingRecipe, Recipe, tokens_after
from sfpp.export.parity.pinning import GraphMatching
from sfpp.export.parity.probes import AttentionTokens
from sfpp.export.planning import Config, plan_for, tokens_by_block
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import UsageError


def merging_problem(
    tokens: Sequence[AttentionTokens],
    matchings: Sequence[GraphMatching],
    *,
    recipe: Recipe,
    config: Config,
    spec: InputSpec,
) -> str | None:
    """Return in words where the graph merges other tokens than the recipe says; None where it does as it should.

    Args:
        tokens: what each attention met, in the order of the network; none where the graph does not name its attentions.
        matchings: those that the graph made.
        recipe: what the contract says.
        config: the network's sizes.
        spec: the input's size.
    """
    if not tokens:
        return None
    seen = [(each.query, each.key_value) for each in tokens]
    planned = tokens_by_block(plan_for(recipe, config, spec))
    # Tokens first: where they differ, so do the matchings, and the tokens tell which variant it is.
    for attention, expected in zip(tokens, planned, strict=False):
        if (attention.query, attention.key_value) != expected:
            name = attention.name.removeprefix("encoder/")
            return (
                f"merging is not as the contract says, first at {name}: it works on {attention.query} queries and "
                f"{attention.key_value} keys/values, expected {expected[0]} and {expected[1]}"
                f"{_likely_recipe(seen, recipe, config, spec)}"
            )
    if len(seen) != len(planned):
        return f"the graph has {len(seen)} attentions, and the network {len(planned)}"
    return _sharing_problem(matchings, recipe, config, spec)


def _likely_recipe(seen: list[tuple[int, int]], recipe: Recipe, config: Config, spec: InputSpec) -> str:
    """Return which of the named variants would give these tokens."""
    known = VARIANTS.items() if isinstance(recipe, MergingRecipe) else ISR_VARIANTS.items()
    fitting = next((name for name, other in known if _tokens(other, config, spec) == seen), None)
    if fitting is None:
        return "; the recipe in the contract is not the graph's"
    return f"; these are the tokens of the variant {fitting!r}: the contract, or the graph, is of another one"


def _tokens(recipe: Recipe, config: Config, spec: InputSpec) -> list[tuple[int, int]] | None:
    try:
        return tokens_by_block(plan_for(recipe, config, spec))
    except UsageError:  # it does not fit this size
        return None


def _sharing_problem(matchings: Sequence[GraphMatching], recipe: Recipe, config: Config, spec: InputSpec) -> str | None:
    """Return which attention matches tokens, or does not, against what the recipe says."""
    if isinstance(recipe, IsrRecipe):
        return None
    found, expected = [each.name for each in matchings], list(_matching_blocks(recipe, config, spec))
    if sorted(found) == sorted(expected):
        return None
    odd = next(name for name in [*expected, *found] if found.count(name) != expected.count(name))
    does = "matches tokens" if found.count(odd) > expected.count(odd) else "reuses another block's matching of tokens"
    shared = {1: "each block matches its own", 0: "the blocks of a stage share one matching"}
    says = shared.get(recipe.share_matching, f"{recipe.share_matching} blocks share one matching")
    return f"{odd.removeprefix('encoder/')} {does}, but the contract says that {says} (share_matching)"


def _matching_blocks(recipe: MergingRecipe, config: Config, spec: InputSpec) -> Iterator[str]:
    """Yield the path of an attention once for each matching that it makes."""
    plan = plan_for(recipe, config, spec)
    for number, (stage, tokens) in enumerate(zip(recipe.stages, plan, strict=True)):
        sides = ((stage.query, tokens.grid_hw), (stage.key_value, tokens.key_value_grid_hw))
        count = sum(
            isinstance(side, Bipartite) and tokens_after(side, grid_hw) != grid_hw[0] * grid_hw[1]
            for side, grid_hw in sides
        )
        for block in range(tokens.blocks):
            if recipe.matches_anew(block):
                yield from [f"encoder/stages.{number}/blocks.{block}/attention"] * count
