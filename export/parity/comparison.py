"""One batch of frames through both sides: free, pinned, and point by point."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.export.catalog import ISR_VARIANTS, VARIANTS
from sfpp.export.contracts import Config, plan_for, tokens_by_block
from sfpp.export.models.recipe import Bipartite, IsrRecipe, MergingRecipe, Recipe, tokens_after
from sfpp.export.parity.differences import Difference, observed
from sfpp.export.parity.pinning import GraphMatching, PinnedMatching
from sfpp.export.parity.probed_model import AttentionTokens, Group, ProbedAnswer, ProbedModel
from sfpp.export.parity.reference import Reference
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import BackendError, ModelFileError, UsageError, VerificationError
from sfpp.tooling.frames import NamedFrame
from sfpp.tooling.tasks import Agreement, Predictor, Prepared


@dataclass(frozen=True)
class OutputError:
    """How far logits or heatmaps are from PyTorch's; ``relative`` is of root mean squares."""

    relative: float
    largest: float
    mean: float
    scale: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """What both sides say of some frames, in one mode.

    Attributes:
        error: of the raw output; None where the graph gives labels.
        agreements: one per frame.
        predictions: the file's, one per frame: labels or a pose; empty where they cannot be read, as with NaN.
        expected: PyTorch's.
        problem: why the file's output cannot be compared.
    """

    error: OutputError | None
    agreements: tuple[Agreement, ...]
    predictions: tuple[Any, ...]
    expected: tuple[Any, ...]
    problem: str = ""


@dataclass(frozen=True, eq=False)
class PointErrors:
    """Differences by the points' names: ``own`` made by each part alone, ``total`` with all before it in them."""

    own: dict[str, Difference] = field(default_factory=dict)
    total: dict[str, Difference] = field(default_factory=dict)
    gaps: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Pointwise:
    """What a run with its insides reported shows: the predictions, the parts' errors, and PyTorch's output."""

    outcome: Outcome
    errors: PointErrors
    expected: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Sides:
    """Everything that is compared.

    Attributes:
        file: the model file in the backend that was asked for.
        pytorch: the learned network in its place.
        reference: that network.
        probed: the file with its insides among its outputs; None where nothing can be seen of them.
        detailed: the same with every layer's; None where that is too much.
    """

    file: Predictor
    pytorch: Predictor
    reference: Reference
    probed: ProbedModel | None
    detailed: ProbedModel | None

    @property
    def pins(self) -> bool:
        """Whether tokens are matched, so that PyTorch has to be given the graph's matching."""
        return self.reference.matches


def compare_freely(sides: Sides, frames: Sequence[NamedFrame], *, expected: NDArray[Any] | None = None) -> Outcome:
    """Run the file and PyTorch, each by itself.

    Args:
        sides: what is compared.
        frames: one batch.
        expected: PyTorch's output for them if it is known already.

    Raises:
        BackendError: the file does not run.
    """
    given, own = _prepared(sides, frames)
    output = sides.file.infer(given)
    return _outcome(sides, output, sides.pytorch.infer(own) if expected is None else expected, (given, own))


def compare_points(sides: Sides, frames: Sequence[NamedFrame], probed: ProbedModel) -> Pointwise:
    """Run the file with its insides reported, and PyTorch with the same matching of tokens.

    Args:
        sides: what is compared.
        frames: one batch.
        probed: which of the insides.

    Raises:
        BackendError: the file does not run.
        ModelFileError: its matching cannot be seen.
        VerificationError: the graph merges on other grids, in other cells or in other places than the recipe says.
    """
    given, own = _prepared(sides, frames)
    errors = PointErrors()
    found: Pointwise | None = None
    for group, run in probed.runs(given.tensor):
        if found is None:
            _check_merging(sides.reference, run)
        with _pinned(sides, run), observed(sides.reference.network, group.points, run.values, in_step=False) as total:
            expected = sides.pytorch.infer(own)
        errors.total.update(total)
        _add_own(sides, group, run, own, errors)
        found = found or Pointwise(_outcome(sides, run.answer, expected, (given, own)), errors, expected)
        del run  # before the next group's values come
    assert found is not None
    return found


def compare_layers(sides: Sides, frames: Sequence[NamedFrame], probed: ProbedModel) -> dict[str, Difference]:
    """Run the file with every layer reported and PyTorch in step; return what each layer adds by itself.

    Raises:
        BackendError, ModelFileError: the file does not run so.
        VerificationError: as for :func:`compare_points`.
    """
    given, own = _prepared(sides, frames)
    errors = PointErrors()
    for group, run in probed.runs(given.tensor):
        _add_own(sides, group, run, own, errors)
        del run
    layers = {point.name for point in probed.points if point.detail}
    return {name: found for name, found in errors.own.items() if name in layers}


def _check_merging(reference: Reference, run: ProbedAnswer) -> None:
    """Count the tokens in the running graph, before numbers are compared that could not agree."""
    if reference.matches and not run.tokens:
        raise ModelFileError("the graph does not name its attentions, so nobody sees which tokens it merges")
    recipe, config, spec = reference.recipe, reference.network.config, reference.spec
    problem = merging_problem(run.tokens, run.matchings, recipe=recipe, config=config, spec=spec)
    if problem is not None:
        raise VerificationError(problem)


def _add_own(sides: Sides, group: Group, run: ProbedAnswer, own: Prepared, errors: PointErrors) -> None:
    """Run PyTorch in step with the graph, and keep what each part adds by itself."""
    together = (*group.carried, *group.points)
    with (
        _pinned(sides, run) as pin,
        observed(sides.reference.network, together, run.values, in_step=True) as found,
    ):
        sides.pytorch.infer(own)
    errors.own.update({point.name: found[point.name] for point in group.points if point.name in found})
    if pin is not None:
        _add_gaps(errors.gaps, pin.gaps, group)


def _add_gaps(known: dict[str, float], gaps: Sequence[tuple[str, float]], group: Group) -> None:
    """Keep the worst gap of each attention, by its point's name, from the run in which it is in step."""
    mine = {point.name for point in group.points}
    worst: dict[str, float] = {}
    for path, gap in gaps:
        name = path.removeprefix("encoder/")
        worst[name] = float(np.maximum(gap, worst.get(name, 0.0)))
    known.update({name: gap for name, gap in worst.items() if name in mine or name not in known})


@contextlib.contextmanager
def _pinned(sides: Sides, run: ProbedAnswer) -> Iterator[PinnedMatching | None]:
    if not sides.pins:  # a dispatch mode sees every operation of the network, which is not free
        yield None
        return
    with PinnedMatching(run.matchings) as pin:
        yield pin


def _prepared(sides: Sides, frames: Sequence[NamedFrame]) -> tuple[Prepared, Prepared]:
    return sides.file.prepare(frames), sides.pytorch.prepare(frames)


def _outcome(
    sides: Sides, output: NDArray[Any], expected: NDArray[Any], prepared: tuple[Prepared, Prepared]
) -> Outcome:
    # What cannot be compared agrees on nothing.
    nothing = tuple(Agreement(0.0) for _ in range(prepared[0].frames))
    if output.shape != expected.shape:
        shapes = ["x".join(map(str, each.shape)) for each in (output, expected)]
        return Outcome(None, nothing, (), (), f"the file's output is {shapes[0]}, PyTorch's is {shapes[1]}")
    theirs = tuple(sides.pytorch.predictions(expected, prepared[1]))
    kind = sides.reference.contract.outputs[0].kind
    error = None if kind == "labels" else output_error(output, expected)
    try:
        predictions = tuple(sides.file.predictions(output, prepared[0]))
    except BackendError as failure:  # NaN: a finding, not an end
        return Outcome(error, nothing, (), theirs, str(failure))
    agreements = tuple(sides.file.agreement(*pair) for pair in zip(predictions, theirs, strict=True))
    return Outcome(error, agreements, predictions, theirs)


def output_error(output: NDArray[Any], expected: NDArray[Any]) -> OutputError:
    """Return how far an output is from PyTorch's; all NaN where it holds one."""
    apart = output.astype(np.float32, copy=False) - expected
    # In float64: the squares of a float16 overflow, and a sum of millions of float32 loses digits.
    square = float(np.square(apart, dtype=np.float64).mean())
    reference = float(np.square(expected, dtype=np.float64).mean())
    relative = float(np.sqrt(square / reference)) if reference else float("inf")
    np.abs(apart, out=apart)
    return OutputError(relative, float(apart.max()), float(apart.mean()), float(np.abs(expected).max()))


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
