"""Where a file goes wrong first, and if it is one of the usual mistakes, which."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfpp.export.models.recipe import MergingRecipe, with_matching
from sfpp.export.parity.comparison import Pointwise, compare_layers, compare_points
from sfpp.export.parity.differences import Difference, output_error
from sfpp.export.parity.inputs import Suspect, closest, fitted_normalization, numbers, suspects
from sfpp.export.parity.points import INPUT, all_points, first_of_parts
from sfpp.export.parity.probed_model import carried_by
from sfpp.export.parity.reference import pytorch_side
from sfpp.export.parity.report import Tolerance
from sfpp.export.parity.sides import Sides
from sfpp.runtime.backends.protocol import FunctionBackend
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import VerificationError
from sfpp.tooling.frames import NamedFrame
from sfpp.tooling.tasks import predictor_of

# From this share of wrong parts on, it is not a part that is wrong; of fewer parts nothing can be told.
_MOST, _FEW = 0.5, 5


@dataclass(frozen=True, eq=False)
class Case:
    """A batch of frames on which something is out of tolerance."""

    sides: Sides
    frames: Sequence[NamedFrame]
    tolerance: Tolerance


def first_place(case: Case, errors: Pointwise) -> str | None:
    """Return in words where the file goes wrong first and what explains it; None where every part agrees.

    Args:
        case: the frames.
        errors: what was found on them, in the order of the network.
    """
    wrong = first_of_parts([name for name, found in errors.own.items() if not found.relative <= case.tolerance.own])
    if wrong[:1] == [INPUT]:
        return f"the input already differs: {_input_words(case)}{_also(wrong[1:])}"
    order = list(errors.own)
    matched_badly = [name for name, gap in errors.gaps.items() if not gap <= case.tolerance.gap]
    # An attention that chooses the wrong partners computes rightly with them.
    first = min((*wrong, *matched_badly), key=lambda name: order.index(name) if name in order else -1, default=None)
    if first is None:
        return None
    # What cannot be seen of the input shows in the first thing that can.
    if INPUT not in order and first == order[0] and (place := output_place(case)) is not None:
        return place
    note = case.sides.reference.weights_note
    origin = "" if note is None else f" ({note})"
    if first not in wrong:
        return f"first disagreement at {first}: {_matching_words(case, errors.gaps[first])}{_also(wrong)}{origin}"
    found, parts = errors.own[first], first_of_parts(order)
    if len(wrong) >= max(_MOST * len(parts), _FEW) and found.finite:
        return (
            f"first disagreement at {first}: {_words(case, found)}; {len(wrong)} of {len(parts)} parts differ, each by "
            f"itself, so the graph holds other weights than these{origin}, or was converted badly"
        )
    name, found = _finer(case, first, found)
    others = wrong[1:] if found.finite else []  # behind NaN everything is NaN
    return f"first disagreement at {name}: {_words(case, found)}; everything before it agrees{_also(others)}{origin}"


def output_place(case: Case) -> str | None:
    """Return the mistake that explains the output of a graph whose input cannot be seen; None where none does."""
    sides = case.sides
    answer = sides.file.infer(sides.file.prepare(case.frames))
    if not np.issubdtype(answer.dtype, np.floating):
        return None  # labels say too little
    prepared = sides.pytorch.prepare(case.frames)
    # The whole network once for each mistake: minutes at large sizes, and only for a file that is known to be wrong.
    best: tuple[float, Suspect] | None = None
    for suspect in _suspects(case):
        image = np.ascontiguousarray(suspect.image, np.float32)
        error = output_error(answer, sides.pytorch.infer(prepared.with_tensor(image))).relative
        if best is None or error < best[0]:
            best = (error, suspect)
    if best is None or not best[0] <= case.tolerance.output:
        return None
    return f"the input differs: {_agrees_with(best[1])}"


def _words(case: Case, found: Difference) -> str:
    if not found.finite:
        return f"the graph has NaN or infinity here (first at {found.place}), which in float16 is an overflow"
    if found.place is None:
        return "its value has another size than PyTorch's"
    gain = "" if found.gain is None else f"what it computes is {found.gain:.2f} times PyTorch's, "
    frame = case.frames[min(found.place.batch, len(case.frames) - 1)].name
    return (
        f"{gain}relative error {found.relative:.1e}, allowed {case.tolerance.own:.0e} (largest at {found.place}, "
        f"frame {frame})"
    )


def _also(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"; by themselves {', '.join(names[:2])}{more} differ too"


def _finer(case: Case, name: str, found: Difference) -> tuple[str, Difference]:
    """Look into the part that ends at a point; return the first layer inside that differs, or the point itself."""
    reference = case.sides.reference
    assert case.sides.open_probes is not None
    points = all_points(reference.network, reference.recipe, reference.spec.size_hw)
    index = next(number for number, point in enumerate(points) if point.name == name)
    inside = [point for point in points[:index] if point.detail and point.name.startswith(f"{name}/")]
    if not inside:
        return name, found
    before = [point for point in points[: points.index(inside[0])] if not point.detail]
    part = [*inside, points[index]]
    with case.sides.open_probes([*carried_by(before, part), *part]) as probed:
        layers = compare_layers(case.sides, case.frames, probed)
    wrong = ((each, layer) for each, layer in layers.items() if not layer.relative <= case.tolerance.own)
    # An addition that is wrong has no layer to blame.
    return next(wrong, (name, found))


def _matching_words(case: Case, gap: float) -> str:
    """Say that partners are worse than they need be, and whether the other rule of matching explains it."""
    worse = f"tokens are merged with partners that are {gap:.1e} less similar than the best ones"
    if math.isinf(gap):
        worse = "tokens are merged with partners that the contract's rule of matching does not allow"
    reference = case.sides.reference
    assert isinstance(reference.recipe, MergingRecipe)
    if not reference.recipe.merges_bipartite:
        return worse
    said = reference.contract.matching
    local = said == "exact"
    probed = case.sides.probed
    assert probed is not None
    other = with_matching(reference.recipe, local=local, share_matching=reference.recipe.share_matching)
    changed = dataclasses.replace(reference, recipe=other)
    sides = dataclasses.replace(case.sides, reference=changed, pytorch=pytorch_side(changed))
    try:
        gaps = compare_points(sides, case.frames, probed).gaps
    except VerificationError:
        return worse
    if not all(each <= case.tolerance.gap for each in gaps.values()):
        return worse
    how = "among neighbors (local)" if local else "everywhere (exact)"
    return f"{worse}; looked for {how} they are the best - the contract says that matching is {said}"


def _input_words(case: Case) -> str:
    """Name the mistake that explains the graph's input."""
    sides, reference = case.sides, case.sides.reference
    assert sides.probed is not None
    given = sides.file.prepare(case.frames)
    _, run = next(sides.probed.runs(given.tensor))
    graph = np.asarray(run.values[INPUT], np.float32)
    step = reference.recipe.input_step if isinstance(reference.recipe, MergingRecipe) else 1
    found = closest(_suspects(case), graph, step=step, tolerance=case.tolerance.own)
    if found is not None:
        return _agrees_with(found)
    raw = _preparer(case)(dataclasses.replace(reference.spec, normalized_in_graph=True))
    fitted = fitted_normalization(
        graph, raw[:, :, ::step, ::step], tolerance=case.tolerance.own, order=reference.spec.color_order
    )
    if fitted is not None:
        expected = numbers(reference.spec.mean, reference.spec.std)
        return f"mean/std differ: {fitted}, the checkpoint's training says {expected}"
    return "none of the usual mistakes (color order, normalization, scale, resize rule) explains it"


def _suspects(case: Case) -> Iterator[Suspect]:
    reference = case.sides.reference
    return suspects(reference.contract, reference.spec, _preparer(case))


def _preparer(case: Case) -> Callable[[InputSpec], NDArray[np.float32]]:
    """Return what prepares the frames as any spec says."""
    contract = case.sides.reference.contract

    def prepare(spec: InputSpec) -> NDArray[np.float32]:
        model = predictor_of(FunctionBackend(lambda inputs: {}, {}), dataclasses.replace(contract, input=spec))
        return np.asarray(model.prepare(case.frames).tensor, np.float32)

    return prepare


def _agrees_with(suspect: Suspect) -> str:
    return f"with {suspect.words} it agrees - {suspect.verdict}"
