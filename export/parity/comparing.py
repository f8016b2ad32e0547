"""parity(): a model file against PyTorch, on real frames, batch by batch."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sfpp.export.demo import demo_image
from sfpp.export.parity.comparison import Outcome, Pointwise, compare_freely, compare_layers, compare_points
from sfpp.export.parity.diagnosis import Case, first_place, output_place
from sfpp.export.parity.points import INPUT
from sfpp.export.parity.report import (
    TOLERANCES,
    AgreementReport,
    Mode,
    OutputReport,
    PointReport,
    TruthReport,
    precision_of,
)
from sfpp.export.parity.settings import Modes, ParitySettings
from sfpp.export.parity.sides import Sides, opened_sides
from sfpp.export.parity.tally import Limits, OutputTally, PointTally, TruthTally, WorstFrames
from sfpp.runtime.errors import BackendError, MediaError, ModelFileError, UsageError, VerificationError
from sfpp.tooling.frames import FrameSource, NamedFrame, evenly_spaced, in_batches
from sfpp.tooling.truth import annotations_for

_MODES: dict[Modes, tuple[Mode, ...]] = {"free": ("free",), "pinned": ("pinned",), "both": ("free", "pinned")}


def parity(
    model: str | os.PathLike[str],
    *,
    notify: Callable[[str], object] = lambda line: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
    **options: Any,
) -> AgreementReport:
    """Compare a model file with the PyTorch network that it was made from.

    PyTorch is rebuilt from the checkpoint, and prepares frames as the checkpoint was trained; the file runs as the
    runtime would run it. Where the graph's nodes have the names that sfpp-export gives them, every part of the network
    is compared too: in step, so that each part's own error is measured.

    Args:
        model: the file that sfpp-export or sfpp-calibrate wrote, of any precision and target.
        notify: called with lines that say what is done and what is odd.
        progress: called with the number of frames done and the number of frames there are, as far as it is known.
        options: the other fields of :class:`sfpp.export.parity.settings.ParitySettings`, by name.

    Returns:
        What was found; ``report.agrees`` is the verdict and ``report.place`` says where it goes wrong first.

    Raises:
        UsageError: an option that cannot be meant, or weights of another kind of network.
        ModelFileError, ContractError: the file cannot be opened.
        CheckpointError: the weights cannot be read.
        MediaError: the frames or label images cannot be read.
        BackendError, MissingDependencyError: the backend is not there, or fails.
        MemoryShortageError: there is less memory than comparing takes.
    """
    settings = ParitySettings(model=model, **options)  # type: ignore[arg-type]
    start = time.perf_counter()
    with opened_sides(settings, notify) as sides:
        source = FrameSource(settings.images or str(demo_image(sides.reference.contract.task)))
        comparison = Comparison(sides, settings, source.names)
        frames, total = _frames(source, settings.frames, notify)
        done = 0
        progress(0, total)
        for batch in in_batches(frames, sides.file.batch):
            comparison.take(batch)
            done += len(batch)
            progress(done, total)
        shown = settings.images or "the image that comes with sfpp"
        if not done:
            raise MediaError(f"not one frame of {shown} can be read; give another image, folder or video")
        return comparison.report(source=shown, seconds=time.perf_counter() - start)


def _frames(source: FrameSource, wanted: int, notify: Callable[[str], object]) -> tuple[Iterator[NamedFrame], int]:
    """Return the frames, and how many there will be at most."""
    for warning in source.warnings:
        notify(f"warning: {warning}")
    # A camera does not end: its first frames are as good as any.
    chosen = evenly_spaced(range(len(source.names) or wanted), wanted)
    return source.take(chosen, on_unreadable=lambda error: notify(f"warning: skipped: {error}")), len(chosen)


class Comparison:
    """Figures of all batches, the first batch that is out of tolerance, and a few pictures; nothing else is kept.

    Args:
        sides: what is compared.
        settings: how.
        names: of all frames that there are.

    Raises:
        UsageError: a mode that this file does not have, label images for a pose model, or some that do not fit.
        MediaError: there are no label images.
    """

    def __init__(self, sides: Sides, settings: ParitySettings, names: Sequence[str]) -> None:
        self._settings = settings
        self._sides = sides
        self.contract = sides.reference.contract
        self._precision = precision_of(self.contract.precision, sides.backend.precision)
        segments = self.contract.task == "segmentation"
        labels = ("masks" if self.contract.multi_label else "labels") if segments else "keypoints"
        self._limits = Limits(TOLERANCES[self._precision], sides.reference.matches, labels)
        self._truth = self._truth_in(settings, names)
        self._classes = len(self.contract.classes) if labels == "labels" else 0
        self._outputs = {each: OutputTally(each, classes=self._classes) for each in _modes(settings.mode, sides)}
        self._points = PointTally()
        every = sides.detailed or sides.probed
        self._every = () if every is None else every.points
        self._worst = WorstFrames(self.contract.palette)
        self._structure: str | None = None
        self._blind: str | None = None
        self._failing: tuple[Sequence[NamedFrame], Pointwise | None] | None = None
        self._names: list[str] = []
        self._mismatches = sides.reference.mismatches()

    def take(self, frames: Sequence[NamedFrame]) -> None:
        """Compare one batch.

        Raises:
            BackendError: the file does not run.
            UsageError, MediaError: a label image is not what it should be.
        """
        self._names += [frame.name for frame in frames]
        seen = self._pointwise(frames)
        outcomes = dict(self._outcomes(frames, seen))
        for mode, outcome in outcomes.items():
            self._outputs[mode].add(outcome)
        if seen is not None:
            self._points.add(seen, frames)
        # Free comes first where there are both: that is what a user gets.
        for outcome in list(outcomes.values())[:1]:
            self._worst.add(outcome, frames)
            if self._truth is not None:
                self._truth.add(outcome, frames)
        if self._failing is None and self._limits.failures(*self._figures()):
            # What went before was within tolerance, so it is this batch that is not.
            self._failing = (frames, seen)

    def report(self, *, source: str, seconds: float) -> AgreementReport:
        """Return what was found.

        Raises:
            UsageError: label images were given, and none belongs to a frame.
        """
        outputs, points = self._figures()
        # Merging that is not as planned explains all the rest, so it comes first.
        sides = self._sides
        odd = filter(None, (self._structure, sides.reference.threshold_note))
        failures = [*odd, *self._mismatches, *self._limits.failures(outputs, points)]
        truth = None if self._truth is None else self._truth.report()
        return AgreementReport(
            model=self._settings.model,
            weights=sides.reference.checkpoint.name,
            contract=self.contract,
            precision=self._precision,
            tolerance=self._limits.tolerance,
            backend=sides.backend.description,
            points_backend=sides.probed.description if sides.probed is not None and points else "",
            source=source,
            frames=tuple(self._names),
            outputs=outputs,
            points=points,
            truth=truth,
            failures=tuple(failures),
            place=self._place() if failures else None,
            notes=tuple(self._notes(truth)),
            pictures=self._worst.pictures(),
            seconds=seconds,
        )

    def _truth_in(self, settings: ParitySettings, names: Sequence[str]) -> TruthTally | None:
        if settings.labels is None:
            if settings.are_given:
                raise UsageError(f"{settings.given()} is for label images; give them with --labels, or leave it off")
            return None
        if self.contract.task != "segmentation":
            raise UsageError("label images are for segmentation, and this is a pose model; leave --labels out")
        labels = annotations_for(self.contract, labels=settings.labels, rules=settings).labels
        assert labels is not None
        labels.fit(names)
        return TruthTally(labels, classes=self.contract.classes)

    def _pointwise(self, frames: Sequence[NamedFrame]) -> Pointwise | None:
        sides = self._sides
        if sides.probed is None or self._structure is not None or self._blind is not None:
            return None
        try:
            seen = compare_points(sides, frames, sides.probed)
            # Every layer on the first frames, the parts on all.
            if sides.detailed is None or len(self._names) > len(frames):
                return seen
            every = {**seen.own, **compare_layers(sides, frames, sides.detailed)}
        except VerificationError as error:
            self._structure = str(error)
        except (BackendError, ModelFileError) as error:
            if "free" not in self._outputs:
                raise  # nothing would be compared at all
            self._blind = str(error)
        else:
            own = {point.name: every[point.name] for point in self._every if point.name in every}
            return dataclasses.replace(seen, own=own)
        return None

    def _outcomes(self, frames: Sequence[NamedFrame], seen: Pointwise | None) -> Iterator[tuple[Mode, Outcome]]:
        if "free" in self._outputs:
            # Without matching PyTorch computes the same in both modes, and has done so already.
            known = seen.expected if seen is not None and not self._sides.reference.matches else None
            free = compare_freely(self._sides, frames, expected=known)
            # What is wrong with the threshold shows in the logits, also of a graph that gives labels.
            yield (
                "free",
                free if seen is None or free.problem else dataclasses.replace(free, problem=seen.outcome.problem),
            )
        if "pinned" in self._outputs and seen is not None:
            yield "pinned", seen.outcome

    def _figures(self) -> tuple[tuple[OutputReport, ...], tuple[PointReport, ...]]:
        """Return what is known of the outputs and the parts so far."""
        outputs = tuple(tally.report() for tally in self._outputs.values() if tally.frames)
        return outputs, self._points.reports(self._limits.tolerance, self._every)

    def _place(self) -> str | None:
        """Look closer at the first batch that failed."""
        known = self._structure or next(iter(self._mismatches), None)
        if self._structure is not None or self._failing is None:
            return known
        # Only now, with a failure at hand, is it worth opening the file anew and trying mistakes one by one.
        frames, seen = self._failing
        case = Case(self._sides, frames, self._limits.tolerance)
        place = None if seen is None else first_place(case, seen)
        if place is not None:
            return place
        if seen is None or INPUT not in seen.own:
            return output_place(case) or known
        return known or "every part agrees by itself; small errors of all of them add up"

    def _notes(self, truth: TruthReport | None) -> Iterator[str]:
        probed = self._sides.probed
        if truth is not None and truth.labels is not None:
            yield from (f"warning: {each}" for each in truth.labels.warnings)
        note = self._sides.reference.weights_note
        if note is not None:
            is_same_file = self.contract.checkpoint_sha256 == self._sides.reference.checkpoint.sha256
            yield f"warning: {note}{'' if is_same_file else '; harmless if it was only converted'}"
        for each in self._sides.reference.checkpoint.preparation.notes:
            yield f"warning: {each}"
        if self.contract.input.matrix is not None:
            yield "both were given the colors that NV12 keeps; what that loses against BGR is in docs/export.md"
        if probed is None:
            yield "the insides of this file cannot be seen, so only its outputs were compared"
        elif self._blind is not None:
            yield f"the graph's insides were not compared, only its outputs: {self._blind}"
        elif len(probed.points) == 1:
            yield "the graph's nodes have no names that are known here, so only its outputs were compared"
        elif probed.missing:
            first, count = probed.missing[0], len(probed.missing)
            yield f"{count} parts were left out, which the graph does not have by name, beginning with {first}"


def _modes(mode: Modes, sides: Sides) -> tuple[Mode, ...]:
    """Return the modes of comparing that this file has.

    Raises:
        UsageError: it does not have the one that was asked for.
    """
    if mode != "pinned":
        return _MODES[mode] if sides.reference.matches else ("free",)
    if not sides.reference.matches:
        raise UsageError("--mode pinned is for variants that match tokens, and this one matches none; leave it out")
    if sides.probed is None:
        raise UsageError("--mode pinned needs to see the graph's matching, which this file does not show; take free")
    return _MODES[mode]
