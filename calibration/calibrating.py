"""calibrate(): one calibration from the first frame to the report."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sfpp.calibration.chosen_frames import ChosenFrames, chosen_frames
from sfpp.calibration.context import CalibrationContext, Notify, Progress
from sfpp.calibration.evaluate import Evaluator
from sfpp.calibration.latency import check_backends, checked, default_backends, latencies
from sfpp.calibration.recommend import recommend
from sfpp.calibration.report import write_report
from sfpp.calibration.results import CalibrationReport, FileResult, FramesUsed
from sfpp.calibration.settings import CalibrationSettings
from sfpp.calibration.steps import Int8Findings, make_fp16, make_int8, worst_pictures
from sfpp.runtime.backends.onnxruntime import session_bytes
from sfpp.runtime.bench.settings import BackendSpec
from sfpp.runtime.contract import ModelContract, Task, read_contract_file
from sfpp.runtime.errors import UsageError
from sfpp.runtime.files import check_destinations, check_utf8, sha256_of, write_text
from sfpp.runtime.machine import machine
from sfpp.runtime.resources import memory_for
from sfpp.runtime.scratch import scratch_folder
from sfpp.runtime.timing import StepClock
from sfpp.tooling import tasks
from sfpp.tooling.graph import check_contract, contract_in, for_one_frame, read_model, write_model
from sfpp.tooling.label_images import LabelFolder, TruthSummary
from sfpp.tooling.truth import annotations_for

# Frames that each backend's predictions are compared on: a backend that is wrong is wrong everywhere, but a frame of a
# pose model is one crop with a dozen keypoints, where one that moves by chance must not weigh much.
_COMPARED: dict[Task, int] = {"segmentation": 3, "pose": 32}

# The FP16 probe, which computes each node twice, takes so many times what the model alone does: measured 1.5.
_PROBED = 1.6


def calibrate(
    model: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    report: bool = True,
    notify: Notify = lambda line: None,
    progress: Progress = lambda step, done, total: None,
    **options: Any,
) -> CalibrationReport:
    """Make FP16 and INT8 files of a float32 model, and measure what each loses and how fast it is.

    Writes ``NAME.fp16.onnx``, ``NAME.int8.onnx`` and the report as ``NAME.calibration.html`` and ``.json``.

    Args:
        model: the float32 .onnx file that sfpp-export wrote.
        images: what to calibrate with: a folder of images, a video, a .txt list, or one image.
        report: write the report.
        notify: called with what is being done.
        progress: called with how far a step has come: its name, how many parts are done, and how many there are.
        options: the other fields of :class:`sfpp.calibration.settings.CalibrationSettings`, by name.

    Raises:
        UsageError: a setting that cannot be meant, a model of lower precision already, or a file to write that is one
            of those that are read.
        ModelFileError: the model cannot be read, or its sizes are not fixed.
        ContractError: it carries no metadata and none is given.
        MediaError: frames or labels cannot be read.
        BackendError: the model does not run, or gives NaN.
        MissingDependencyError: a library is not installed.
    """
    settings = CalibrationSettings(model=model, images=images, **options)  # type: ignore[arg-type]
    check_utf8(settings.path_of(settings.precision[0]), reader="ONNX Runtime")
    check_destinations(
        *map(settings.path_of, settings.precision),
        *((settings.page_path, settings.json_path) if report else ()),
        also_read=[
            settings.model,
            settings.images,
            settings.validation,
            settings.labels,
            settings.boxes,
            settings.contract,
        ],
    )
    found = _run(settings, notify=notify, progress=progress)
    if report:
        write_report(found, settings.page_path)
        write_text(settings.json_path, found.to_json())
    return found


def _run(settings: CalibrationSettings, *, notify: Notify, progress: Progress) -> CalibrationReport:
    clock = StepClock(notify)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        context = _prepared(settings, clock, progress, stack, folder)
        accuracy = context.evaluator.reference.accuracy
        files = [FileResult(settings.model, "fp32", settings.model.stat().st_size, accuracy)]
        int8: Int8Findings | None = None
        if "fp16" in settings.precision:
            files.append(make_fp16(context))
        if "int8" in settings.precision:
            known = files[-1].kept if "fp16" in settings.precision else None
            int8 = make_int8(context, float32=known)
            files.append(int8.file)
        files, timed_on = _timed(context, files)
        with clock.step("drawing what changed"):
            pictures = worst_pictures(context, files[1:])
    return CalibrationReport(
        model=settings.model,
        contract=context.contract,
        frames=_frames_used(context),
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
        truth=context.truth,
        notes=(*context.chosen.warnings, *(context.truth.warnings if context.truth else ())),
    )


def _prepared(
    settings: CalibrationSettings, clock: StepClock, progress: Progress, stack: contextlib.ExitStack, folder: Path
) -> CalibrationContext:
    """Read the model, choose the frames, and run the float32 file."""
    with clock.step("reading the model"):
        model = read_model(settings.model)
        of_file = _contract_of(settings, model)
        contract = for_one_frame(of_file)
        check_contract(model, contract, origin=settings.model.name)
        annotations = annotations_for(contract, labels=settings.labels, boxes=settings.boxes, rules=settings)
        if settings.latency:
            check_backends(settings.backends)
    stack.enter_context(_memory_for(settings, contract))
    with clock.step("choosing frames"):
        chosen = stack.enter_context(
            chosen_frames(
                settings,
                annotated=annotations.known(),
                only_annotated=annotations.in_scenes,
                progress=partial(progress, "choosing frames"),
            )
        )
    for warning in chosen.warnings:
        clock.notify(f"warning: {warning}")
    truth = _truth(annotations.labels, chosen, clock, progress)
    predictions = folder / "predictions"
    predictions.mkdir()
    reference = folder / "reference.onnx"
    write_model(model, contract, reference)
    with clock.step("evaluating FP32"):
        evaluator = Evaluator(
            tasks.Task(contract, annotations),
            chosen.held_out,
            reference=reference,
            folder=predictions,
            progress=partial(progress, "evaluating FP32"),
        )
    return CalibrationContext(
        settings=settings,
        model=model,
        contract=contract,
        file_input=of_file.input,
        model_sha256=sha256_of([settings.model]),
        chosen=chosen,
        evaluator=evaluator,
        folder=folder,
        clock=clock,
        progress=progress,
        truth=truth,
    )


def _truth(
    labels: LabelFolder | None, chosen: ChosenFrames, clock: StepClock, progress: Progress
) -> TruthSummary | None:
    """Find out whether the label images fit the model before anything is evaluated, and report how they are read."""
    if labels is None:
        return None
    with clock.step("looking at the label images"):
        labels.fit(chosen.annotated, progress=partial(progress, "looking at the label images"))
    truth = labels.summary(chosen.held_out.names)
    if truth is not None:
        for note in truth.notes:
            clock.notify(note)
        for warning in truth.warnings:
            clock.notify(f"warning: {warning}")
    return truth


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
    return memory_for(f"calibrating {settings.model.name}", int(_PROBED * session), advice=advice)


def _contract_of(settings: CalibrationSettings, model: Any) -> ModelContract:
    """Return the contract, of the file or as the user gave it.

    Raises:
        UsageError: the file is of lower precision already.
        ContractError: there is none.
    """
    if settings.contract is not None:
        contract = read_contract_file(settings.contract)
    else:
        contract = contract_in(model, origin=settings.model.name)
    if contract.precision != "fp32":
        raise UsageError(
            f"{settings.model.name} is in {contract.precision} already; give the float32 file that sfpp-export wrote"
        )
    return contract


def _timed(context: CalibrationContext, files: Sequence[FileResult]) -> tuple[list[FileResult], dict[str, Any]]:
    """Return the files with their latencies, and the machine."""
    if not context.settings.latency:
        return list(files), {}
    backends: Sequence[BackendSpec] = context.settings.backends or default_backends(context.contract.target)
    with context.clock.step("timing"):
        found = latencies([each.path for each in files], backends, notify=context.clock.notify)
    with context.clock.step("comparing the backends' predictions"):
        found = checked(found, backends, context.evaluator, frames=_COMPARED[context.contract.task])
    return [replace(each, latencies=found[each.path]) for each in files], machine()


def _frames_used(context: CalibrationContext) -> FramesUsed:
    settings, chosen = context.settings, context.chosen
    return FramesUsed(
        source=os.fspath(settings.images),
        calibration=len(chosen.calibration),
        held_out=len(chosen.held_out),
        sha256=chosen.calibration.sha256,
        selection=settings.select,
        seed=settings.seed,
        with_truth=context.evaluator.reference.accuracy.against_truth is not None,
        overlapping=chosen.overlapping,
    )
