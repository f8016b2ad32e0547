"""One batch of frames through both sides: free, pinned, and point by point."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.export.catalog import ISR_VARIANTS, VARIANTS
from sfpp.export.contracts import plan_for, tokens_by_block
from sfpp.export.models.recipe import Bipartite, KMeans, MergingRecipe, Recipe, tokens_after
from sfpp.export.parity.differences import Difference, OutputError, observed, output_error
from sfpp.export.parity.pinning import PinnedMatching
from sfpp.export.parity.points import LOGITS
from sfpp.export.parity.probed_model import Group, ProbedAnswer, ProbedModel
from sfpp.export.parity.reference import Reference
from sfpp.export.parity.sides import Sides
from sfpp.runtime.errors import BackendError, ModelFileError, UsageError, VerificationError
from sfpp.tooling.frames import NamedFrame
from sfpp.tooling.tasks import Agreement, Prepared


@dataclass(frozen=True, eq=False)
class Outcome:
    """What both sides say of some frames, in one mode.

    Attributes:
        error: of the raw output; None where the graph gives labels.
        agreements: one per frame.
        predictions: the file's, one per frame: labels or a pose; empty where they cannot be read, as with NaN.
        expected: PyTorch's.
        problem: why the file's output cannot be compared, or what is wrong with it whatever the frames.
    """

    error: OutputError | None
    agreements: tuple[Agreement, ...]
    predictions: tuple[Any, ...]
    expected: tuple[Any, ...]
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Pointwise:
    """What a run with its insides reported shows.

    Attributes:
        outcome: the predictions, with the same matching of tokens on both sides.
        expected: PyTorch's output.
        own: the difference that each part makes by itself, by the point's name.
        total: the difference there with everything before it.
        gaps: for an attention that matches tokens, how much less similar than the best a partner is.
    """

    outcome: Outcome
    expected: NDArray[Any]
    own: dict[str, Difference]
    total: dict[str, Difference]
    gaps: dict[str, float]


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
    found: Pointwise | None = None
    own_errors: dict[str, Difference] = {}
    total_errors: dict[str, Difference] = {}
    gaps: dict[str, float] = {}
    for group, run in probed.runs(given.tensor):
        if found is None:
            _check_merging(run, sides.reference)
        with _pinned(sides, run), observed(sides.reference.network, group.points, run.values, in_step=False) as total:
            expected = sides.pytorch.infer(own)
        total_errors.update(total)
        own_errors.update(_own_errors(sides, group, run, own, gaps))
        if found is None:
            outcome = _outcome(sides, run.answer, expected, (given, own), run.values.get(LOGITS))
            found = Pointwise(outcome, expected, own_errors, total_errors, gaps)
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
    found: dict[str, Difference] = {}
    for group, run in probed.runs(given.tensor):
        found.update(_own_errors(sides, group, run, own, {}))
        del run
    layers = {point.name for point in probed.points if point.detail}
    return {name: each for name, each in found.items() if name in layers}


def _own_errors(
    sides: Sides, group: Group, run: ProbedAnswer, own: Prepared, gaps: dict[str, float]
) -> dict[str, Difference]:
    """Run PyTorch in step with the graph; return what each part adds by itself, and add to the gaps."""
    together = (*group.carried, *group.points)
    with (
        _pinned(sides, run) as pin,
        observed(sides.reference.network, together, run.values, in_step=True) as found,
    ):
        sides.pytorch.infer(own)
    if pin is not None:
        _add_gaps(gaps, pin.gaps, group)
    return {point.name: found[point.name] for point in group.points if point.name in found}


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
    if not sides.reference.matches:  # a dispatch mode sees every operation of the network, which is not free
        yield None
        return
    with PinnedMatching(run.matchings) as pin:
        yield pin


def _prepared(sides: Sides, frames: Sequence[NamedFrame]) -> tuple[Prepared, Prepared]:
    return sides.file.prepare(frames), sides.pytorch.prepare(frames)


def _outcome(
    sides: Sides,
    output: NDArray[Any],
    expected: NDArray[Any],
    prepared: tuple[Prepared, Prepared],
    logits: NDArray[Any] | None = None,
) -> Outcome:
    # What cannot be compared agrees on nothing.
    nothing = tuple(Agreement(0.0) for _ in range(prepared[0].frames))
    if output.shape != expected.shape:
        shapes = ["x".join(map(str, each.shape)) for each in (output, expected)]
        return Outcome(None, nothing, (), (), f"the file's output is {shapes[0]}, PyTorch's is {shapes[1]}")
    theirs = tuple(sides.pytorch.predictions(expected, prepared[1]))
    kind = sides.reference.contract.outputs[0].kind
    error = None if kind in ("labels", "masks") else output_error(output, expected)
    try:
        predictions = tuple(sides.file.predictions(output, prepared[0]))
    except BackendError as failure:  # NaN: a finding, not an end
        return Outcome(error, nothing, (), theirs, str(failure))
    agreements = tuple(sides.file.agreement(*pair) for pair in zip(predictions, theirs, strict=True))
    logits = output if kind == "logits" else logits
    fault = None if logits is None else sides.reference.threshold_fault(logits, output)
    return Outcome(error, agreements, predictions, theirs, fault or "")


def _check_merging(run: ProbedAnswer, reference: Reference) -> None:
    """Count the tokens in the running graph, before numbers are compared that could not agree.

    Raises:
        ModelFileError: the graph does not name its attentions.
        VerificationError: it merges other tokens than the recipe says.
    """
    if not run.tokens:
        if reference.matches:
            raise ModelFileError("the graph does not name its attentions, so nobody sees which tokens it merges")
        return
    seen = [(each.query, each.key_value) for each in run.tokens]
    planned = _tokens(reference, reference.recipe)
    # Tokens first: where they differ, so do the matchings, and the tokens tell which variant it is.
    for attention, found, expected in zip(run.tokens, seen, planned, strict=False):
        if found != expected:
            name = attention.name.removeprefix("encoder/")
            raise VerificationError(
                f"merging is not as the contract says, first at {name}: it works on {found[0]} queries and "
                f"{found[1]} keys/values, expected {expected[0]} and {expected[1]}{_likely_recipe(seen, reference)}"
            )
    if len(seen) != len(planned):
        raise VerificationError(f"the graph has {len(seen)} attentions, and the network {len(planned)}")
    if isinstance(reference.recipe, MergingRecipe):
        _check_sharing([each.name for each in run.matchings], reference.recipe, reference)


def _tokens(reference: Reference, recipe: Recipe) -> list[tuple[int, int]]:
    return tokens_by_block(plan_for(recipe, reference.network.config, reference.spec))


def _likely_recipe(seen: list[tuple[int, int]], reference: Reference) -> str:
    """Return which of the named variants would give these tokens."""
    known = VARIANTS.items() if isinstance(reference.recipe, MergingRecipe) else ISR_VARIANTS.items()
    for name, other in known:
        with contextlib.suppress(UsageError):  # it does not fit this size
            if _tokens(reference, other) == seen:
                return f"; these are the tokens of the variant {name!r}: the contract, or the graph, is of another one"
    return "; the recipe in the contract is not the graph's"


def _check_sharing(found: Sequence[str], recipe: MergingRecipe, reference: Reference) -> None:
    """Refuse a graph in which an attention matches tokens, or does not, against what the recipe says.

    Args:
        found: the path of an attention for each matching in the graph.
        recipe: what it merges.
        reference: with the network's sizes.
    """
    expected = list(_matching_blocks(recipe, reference))
    if sorted(found) == sorted(expected):
        return
    odd = next(name for name in [*expected, *found] if found.count(name) != expected.count(name))
    does = "matches tokens" if found.count(odd) > expected.count(odd) else "reuses another block's matching of tokens"
    shared = {1: "each block matches its own", 0: "the blocks of a stage share one matching"}
    says = shared.get(recipe.share_matching, f"{recipe.share_matching} blocks share one matching")
    raise VerificationError(
        f"{odd.removeprefix('encoder/')} {does}, but the contract says that {says} (share_matching)"
    )


def _matching_blocks(recipe: MergingRecipe, reference: Reference) -> Iterator[str]:
    """Yield the path of an attention once for each matching, and each round of k-means, that it makes."""
    plan = plan_for(recipe, reference.network.config, reference.spec)
    for number, (stage, tokens) in enumerate(zip(recipe.stages, plan, strict=True)):
        sides = ((stage.query, tokens.grid_hw), (stage.key_value, tokens.key_value_grid_hw))
        count = sum(
            side.rounds if isinstance(side, KMeans) else isinstance(side, Bipartite)
            for side, grid_hw in sides
            if tokens_after(side, grid_hw) != grid_hw[0] * grid_hw[1]
        )
        for block in range(tokens.blocks):
            if recipe.matches_anew(block):
                yield from [f"encoder/stages.{number}/blocks.{block}/attention"] * count
