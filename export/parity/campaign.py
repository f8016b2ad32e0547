"""Comparing batch by batch: what is kept of each, and what is made of it in the end."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from sfpp.export.parity.comparison import Outcome, Pointwise, compare_freely, compare_layers, compare_points
from sfpp.export.parity.diagnosis import Case, first_place, output_place
from sfpp.export.parity.frames import NamedFrame
from sfpp.export.parity.inputs import numbers
from sfpp.export.parity.judging import Judge
from sfpp.export.parity.opening import OpenedSides
from sfpp.export.parity.pictures import WorstFrames
from sfpp.export.parity.points import INPUT
from sfpp.export.parity.reference import weights_note
from sfpp.export.parity.report import AgreementReport, Mode
from sfpp.export.parity.tally import OutputTally, PointTally, TruthTally
from sfpp.export.parity.tolerances import TOLERANCES, precision_of
from sfpp.runtime.errors import BackendError, ModelFileError, UsageError, VerificationError

Modes = Literal["free", "pinned", "both"]
_MODES: dict[Modes, tuple[Mode, ...]] = {"free": ("free",), "pinned": ("pinned",), "both": ("free", "pinned")}


class Campaign:
    """Figures of all batches, the first batch that is out of tolerance, and a few pictures; nothing else is kept.

    Args:
        opened: both sides.
        mode: of matching.
        labels: the folder of label pictures, if any.
        ignore: their value of pixels that do not count.

    Raises:
        UsageError: a mode that this file does not have, or label pictures for a pose model.
        MediaError: there are no label pictures.
    """

    def __init__(self, opened: OpenedSides, *, mode: Modes, labels: str | os.PathLike[str] | None, ignore: int) -> None:
        self._opened, self._sides = opened, opened.sides
        self.contract = opened.sides.reference.contract
        self._precision = precision_of(self.contract.precision, opened.backend.precision)
        segments = self.contract.task == "segmentation"
        answers = "labels" if segments else "keypoints"
        self._judge = Judge(TOLERANCES[self._precision], opened.sides.pins, answers)
        self._truth = self._truth_in(labels, ignore)
        self._classes = len(self.contract.classes) if segments else 0
        self._outputs = {each: OutputTally(each, classes=self._classes) for each in _modes(mode, opened)}
        self._points = PointTally()
        every = opened.sides.detailed or opened.sides.probed
        self._every = () if every is None else every.points
        self._worst = WorstFrames(self.contract.palette)
        self._structure: str | None = None
        self._blind: str | None = None
        self._failing: tuple[Sequence[NamedFrame], Pointwise | None] | None = None
        self._names: list[str] = []

    def take(self, frames: Sequence[NamedFrame]) -> None:
        """Compare one batch.

        Raises:
            BackendError: the file does not run.
            UsageError, MediaError: a label picture is not what it should be.
        """
        self._names += [frame.name for frame in frames]
        seen = self._pointwise(frames)
        outcomes = dict(self._outcomes(frames, seen))
        for mode, outcome in outcomes.items():
            self._outputs[mode].add(outcome)
        if seen is not None:
            self._points.add(seen.errors, frames)
        # Free comes first where there are both: that is what a user gets.
        for outcome in list(outcomes.values())[:1]:
            self._worst.add(outcome, frames)
            if self._truth is not None:
                self._truth.add(outcome, frames)
        if self._failing is None and self._fails(outcomes, seen, frames):
            self._failing = (frames, seen)

    def report(self, model: Path, *, source: str, seconds: float) -> AgreementReport:
        """Return what was found.

        Raises:
            UsageError: label pictures were given, and none belongs to a frame.
        """
        outputs = tuple(tally.report() for tally in self._outputs.values() if tally.frames)
        points = self._points.reports(self._judge.tolerance, self._every)
        # Merging that is not as planned explains all the rest, so it comes first.
        failures = [*([self._structure] if self._structure else []), *self._judge.failures(outputs, points)]
        sides = self._sides
        return AgreementReport(
            model=model,
            weights=sides.reference.checkpoint.name,
            contract=self.contract,
            precision=self._precision,
            tolerance=self._judge.tolerance,
            backend=self._opened.backend.description,
            points_backend=sides.probed.description if sides.probed is not None and points else "",
            source=source,
            frames=tuple(self._names),
            outputs=outputs,
            points=points,
            truth=None if self._truth is None else self._truth.report(),
            failures=tuple(failures),
            place=self._place() if failures else None,
            notes=tuple(self._notes()),
            pictures=self._worst.pictures(),
            seconds=seconds,
        )

    def _truth_in(self, labels: str | os.PathLike[str] | None, ignore: int) -> TruthTally | None:
        if labels is None:
            return None
        if self.contract.task != "segmentation":
            raise UsageError("label pictures are for segmentation, and this is a pose model; leave --labels out")
        return TruthTally(labels, classes=self.contract.classes, ignore=ignore)

    def _pointwise(self, frames: Sequence[NamedFrame]) -> Pointwise | None:
        sides = self._sides
        if sides.probed is None or self._structure is not None or self._blind is not None:
            return None
        try:
            seen = compare_points(sides, frames, sides.probed)
            # Every layer on the first frames, the parts on all.
            if sides.detailed is None or len(self._names) > len(frames):
                return seen
            every = {**seen.errors.own, **compare_layers(sides, frames, sides.detailed)}
        except VerificationError as error:
            self._structure = str(error)
        except (BackendError, ModelFileError) as error:
            if "free" not in self._outputs:
                raise  # nothing would be compared at all
            self._blind = str(error)
        else:
            own = {point.name: every[point.name] for point in self._every if point.name in every}
            return dataclasses.replace(seen, errors=dataclasses.replace(seen.errors, own=own))
        return None

    def _outcomes(self, frames: Sequence[NamedFrame], seen: Pointwise | None) -> Iterator[tuple[Mode, Outcome]]:
        if "free" in self._outputs:
            # Without matching PyTorch computes the same in both modes, and has done so already.
            known = seen.expected if seen is not None and not self._sides.pins else None
            yield "free", compare_freely(self._sides, frames, expected=known)
        if "pinned" in self._outputs and seen is not None:
            yield "pinned", seen.outcome

    def _fails(self, outcomes: Mapping[Mode, Outcome], seen: Pointwise | None, frames: Sequence[NamedFrame]) -> bool:
        """Return whether this batch alone is out of tolerance."""
        # In tallies of its own, as those of the run know the worst of all batches.
        points, tallies = PointTally(), [OutputTally(mode, classes=0) for mode in outcomes]
        if seen is not None:
            points.add(seen.errors, frames)
        for tally, outcome in zip(tallies, outcomes.values(), strict=True):
            tally.add(outcome)
        reports = points.reports(self._judge.tolerance, self._every)
        return bool(self._judge.failures([each.report() for each in tallies], reports))

    def _place(self) -> str | None:
        """Look closer at the first batch that failed."""
        if self._structure is not None or self._failing is None:
            return self._structure
        # Only now, with a failure at hand, is it worth opening the file anew and trying mistakes one by one.
        frames, seen = self._failing
        note = weights_note(self._sides.reference.checkpoint, self.contract)
        case = Case(self._sides, frames, self._judge.tolerance, self._opened.open_probes, note)
        place = None if seen is None else first_place(case, seen.errors)
        if place is not None:
            return place
        if seen is None or INPUT not in seen.errors.own:
            return output_place(case)
        return "every part agrees by itself; small errors of all of them add up"

    def _notes(self) -> Iterator[str]:
        probed = self._sides.probed
        note = weights_note(self._sides.reference.checkpoint, self.contract)
        if note is not None:
            yield f"warning: {note}; harmless if it was only converted"
        said, trained = self.contract.input, self._sides.reference.spec
        if (said.mean, said.std) != (trained.mean, trained.std):
            yield (
                f"warning: the contract says {numbers(said.mean, said.std)}, the checkpoint's training says "
                f"{numbers(trained.mean, trained.std)}"
            )
        if probed is None:
            yield "the insides of this file cannot be seen, so only its answers were compared"
        elif self._blind is not None:
            yield f"the graph's insides were not compared, only its answers: {self._blind}"
        elif len(probed.points) == 1:
            yield "the graph's nodes have no names that are known here, so only its answers were compared"
        elif probed.missing:
            first, count = probed.missing[0], len(probed.missing)
            yield f"{count} parts were left out, which the graph does not have by name, beginning with {first}"


def _modes(mode: Modes, opened: OpenedSides) -> tuple[Mode, ...]:
    """Return the modes of comparing that this file has.

    Raises:
        UsageError: it does not have the one that was asked for.
    """
    if mode != "pinned":
        return _MODES[mode] if opened.sides.pins else ("free",)
    if not opened.sides.pins:
        raise UsageError("--mode pinned is for variants that match tokens, and this one matches none; leave it out")
    if opened.sides.probed is None:
        raise UsageError("--mode pinned needs to see the graph's matching, which this file does not show; take free")
    return _MODES[mode]
