"""One calibration from the first frame to the report."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfpp.calibration.frames.annotations import annotations_for
from sfpp.calibration.frames.chosen import ChosenFrames, chosen_frames
from sfpp.calibration.graph import check_contract, contract_in, read_model, write_model
from sfpp.calibration.judging.examination import Examiner
from sfpp.calibration.judging.subject_choice import subject_for
from sfpp.calibration.latency import check_backends, checked, default_backends, latencies
from sfpp.calibration.making import Int8Findings, make_fp16, make_int8
from sfpp.calibration.material import Material, Notify, Progress
from sfpp.calibration.pictures import worst_pictures
from sfpp.calibration.recommendation import recommend
from sfpp.calibration.results import CalibrationReport, FileResult, FramesUsed
from sfpp.calibration.settings import CalibrationSettings
from sfpp.runtime.backends.onnxruntime import session_bytes
from sfpp.runtime.bench.settings import BackendSpec
from sfpp.runtime.contract import ModelContract, Task
from sfpp.runtime.errors import UsageError
from sfpp.runtime.files import sha256_of
from sfpp.runtime.machine import machine
from sfpp.runtime.model_file import read_contract_file
from sfpp.runtime.resources import memory_for
from sfpp.runtime.timing import StepClock

# Frames that each file is asked about on each backend: a backend that answers wrongly does so everywhere, but a frame
# of a pose model is one crop with a dozen keypoints, where one that moves by chance must not weigh much.
_ASKED: dict[Task, int] = {"segmentation": 3, "pose": 32}

# The FP16 probe, which computes each node twice, takes so many times what the model alone does: measured 1.5.
_SHADOWED = 1.6


def run(settings: CalibrationSettings, *, notify: Notify, progress: Progress) -> CalibrationReport:
    """Carry out a calibration; see :func:`sfpp.calibration.calibrate`."""
    clock = StepClock(notify)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sfpp-calibrate-")))
        material = _prepared(settings, clock, progress, stack, folder)
        files = [_reference_file(material)]
        int8: Int8Findings | None = None
        if "fp16" in settings.precision:
            files.append(make_fp16(material))
        if "int8" in settings.precision:
            known = files[-1].kept if "fp16" in settings.precision else None
            int8 = make_int8(material, float32=known)
            files.append(int8.file)
        files, timed_on = _timed(material, files)
        with clock.step("drawing what changed"):
            pictures = worst_pictures(material, files[1:])
    return CalibrationReport(
        model=settings.model,
        contract=material.contract,
        frames=_frames_used(settings, material),
        files=tuple(files),
        recommendation=recommend(files, max_drop=settings.max_drop),
        sensitivity=int8.fallback.blocks if int8 else (),
        suspects=int8.fallback.suspects if int8 else (),
        histograms=int8.histograms if int8 else (),
        pictures=pictures,
        max_drop=settings.max_drop,
        budget_held=int8.fallback.held if int8 and settings.max_drop is not None else None,
        machine=timed_on,
        seconds=clock.seconds,
        notes=material.chosen.warnings,
    )


def _prepared(
    settings: CalibrationSettings, clock: StepClock, progress: Progress, stack: contextlib.ExitStack, folder: Path
) -> Material:
    """Read the model, choose the frames, and ask the float32 file for its answers."""
    with clock.step("reading the model"):
        model = read_model(settings.model)
        contract = _contract_of(settings, model)
        subject_annotations = annotations_for(
            contract, labels=settings.labels, boxes=settings.boxes, ignore=settings.ignore
        )
        if settings.latency:
            check_backends(settings.backends)
    stack.enter_context(_memory_for(settings, contract))
    with clock.step("choosing frames"):
        chosen = stack.enter_context(
            chosen_frames(
                settings.images,
                frames=settings.frames,
                held_out=settings.held_out,
                select=settings.select,
                seed=settings.seed,
                judge_by=settings.judge_by,
                annotated=subject_annotations.names(),
                only_annotated=subject_annotations.in_scenes,
                progress=lambda done, total: progress("choosing frames", done, total),
            )
        )
    for warning in chosen.warnings:
        clock.notify(f"warning: {warning}")
    answers = folder / "answers"
    answers.mkdir()
    reference = folder / "reference.onnx"
    write_model(model, contract, reference)
    with clock.step("judging FP32"):
        examiner = Examiner(
            subject_for(contract, subject_annotations),
            chosen.held_out,
            reference=reference,
            folder=answers,
            progress=lambda done, total: progress("judging FP32", done, total),
        )
    return Material(
        settings=settings,
        model=model,
        contract=contract,
        model_sha256=sha256_of([settings.model]),
        chosen=chosen,
        examiner=examiner,
        folder=folder,
        clock=clock,
        progress=progress,
    )


def _memory_for(settings: CalibrationSettings, contract: ModelContract) -> contextlib.AbstractContextManager[None]:
    """Return the context that refuses a calibration for which there is not enough memory.

    Raises:
        MemoryShortageError: there is not, or it runs out later.
    """
    # Files exported by earlier versions do not say what is alive at one time.
    session = session_bytes(contract.live_bytes or 0, settings.model.stat().st_size)
    advice = "export the model for a smaller size (sfpp-export --res), or calibrate on a machine with more memory"
    if settings.latency:
        # Two models in turn, which is more than any step before it takes.
        return memory_for(
            f"timing {settings.model.name} and what is made of it",
            2 * session,
            advice=f"leave timing off (--no-latency), {advice}",
        )
    return memory_for(f"calibrating {settings.model.name}", int(_SHADOWED * session), advice=advice)


def _contract_of(settings: CalibrationSettings, model: Any) -> ModelContract:
    """Return the contract, of the file or as the user gave it.

    Raises:
        UsageError: the file is of lower precision already.
        ContractError: there is none, or it is another model's.
    """
    if settings.contract is not None:
        contract = read_contract_file(settings.contract)
    else:
        contract = contract_in(model, origin=settings.model.name)
    if contract.precision != "fp32":
        raise UsageError(
            f"{settings.model.name} is in {contract.precision} already; give the float32 file that sfpp-export wrote"
        )
    check_contract(model, contract, origin=settings.model.name)
    return contract


def _reference_file(material: Material) -> FileResult:
    path = material.settings.model
    return FileResult(path, "fp32", path.stat().st_size, material.examiner.reference.accuracy)


def _timed(material: Material, files: Sequence[FileResult]) -> tuple[list[FileResult], dict[str, Any]]:
    """Return the files with their latencies, and the machine."""
    if not material.settings.latency:
        return list(files), {}
    backends: Sequence[BackendSpec] = material.settings.backends or default_backends(material.contract.target)
    with material.clock.step("timing"):
        found = latencies([each.path for each in files], backends, notify=material.notify)
    with material.clock.step("comparing the answers of the backends"):
        found = checked(found, backends, material.examiner, frames=_ASKED[material.contract.task])
    return [replace(each, latencies=found[each.path]) for each in files], machine()


def _frames_used(settings: CalibrationSettings, material: Material) -> FramesUsed:
    chosen: ChosenFrames = material.chosen
    return FramesUsed(
        source=os.fspath(settings.images),
        calibration=len(chosen.calibration),
        held_out=len(chosen.held_out),
        sha256=chosen.calibration.sha256,
        selection=settings.select,
        seed=settings.seed,
        with_truth=material.examiner.reference.accuracy.against_truth is not None,
        overlapping=chosen.overlapping,
    )
