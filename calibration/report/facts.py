"""What the figures rest on: frames, machine, time spent, and what was not measured."""

from __future__ import annotations

import math
from typing import Any

from sfpp.calibration.report.words import DASH, backends, file_labels, seconds_text, words
from sfpp.calibration.results import CalibrationReport
from sfpp.tooling.page import Bar, Html, Page, bars, bullets, code, facts

_GIBIBYTE = 2**30


def add_frames(page: Page, report: CalibrationReport) -> None:
    """Add which frames were seen."""
    frames = report.frames
    truth = "yes" if frames.with_truth else "no; accuracy is agreement with FP32"
    pairs: list[tuple[str, Html | str]] = [
        ("source", code(frames.source)),
        ("calibrated with", f"{frames.calibration} frames"),
        ("judged on", f"{frames.held_out} {'of the same' if frames.overlapping else 'other'} frames"),
        ("with truth", truth),
        ("selection", f"{frames.selection}, seed {frames.seed}"),
        ("SHA-256 of the frames", code(frames.sha256) if frames.sha256 else DASH),
    ]
    page.section("Frames").add(facts(pairs))


def add_machine(page: Page, report: CalibrationReport) -> None:
    """Add the model, where it was timed and with which versions, and how long each step took."""
    contract = report.contract
    section = page.section("Model and machine")
    pairs: list[tuple[str, Html | str]] = [
        ("model", code(str(report.model))),
        ("exported for", f"{contract.target}, opset {contract.opset}"),
        ("SHA-256 of the checkpoint", code(contract.checkpoint_sha256) if contract.checkpoint_sha256 else DASH),
    ]
    pairs += [
        (name.removesuffix("_bytes").replace("_", " "), _value(name, value)) for name, value in report.machine.items()
    ]
    section.add(facts(pairs))
    if report.seconds:
        total = f"{seconds_text(sum(report.seconds.values()))} in all"
        entries = [Bar(name, value, seconds_text(value)) for name, value in report.seconds.items()]
        steps = section.section("Time by step")
        steps.add(bars(entries, caption=f"Time that calibrating took, {total}", label="step", value="time"))


def _value(name: str, value: Any) -> str:
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    if name.endswith("_bytes") and isinstance(value, int | float):
        return f"{value / _GIBIBYTE:.1f} GiB"
    if isinstance(value, list | tuple):
        return ", ".join(_value("", each) for each in value) or DASH
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_value(str(key), each)}" for key, each in value.items()) or DASH
    return str(value)


def add_notes(page: Page, report: CalibrationReport) -> None:
    """Add the notes, and what was not measured."""
    if report.notes:
        page.section("Notes").add(bullets(report.notes))
    if missing := not_measured(report):
        page.section("Not measured").add(bullets(missing))


def not_measured(report: CalibrationReport) -> list[str]:
    """Return what a reader might look for in vain, and why it is not there."""
    unit = words(report)
    lines = []
    # In the order in which the page would have shown it.
    made = {file.precision for file in report.files}
    lines += [f"{each.upper()}: no such file was made." for each in ("fp16", "int8") if each not in made]
    if not unit.metric:
        metric = "PCK" if unit.answers == "keypoints" else "mIoU"
        lines.append(f"{metric}, and {unit.score} by {unit.one}: there is no truth for the frames.")
    elif not any(file.accuracy.iou_by_class or file.accuracy.pck_by_keypoint for file in report.files):
        lines.append(f"{unit.score} by {unit.one}: only the mean was taken.")
    if report.max_drop is None:
        lines.append("A limit: none was given for what INT8 may lose, so there is no verdict on it.")
    if not any(file.latencies for file in report.files):
        lines.append("Latency: nothing was timed, so the recommendation rests on accuracy and size alone.")
    lines += [
        f"{label} on {backend}: not timed."
        for label, file in zip(file_labels(report), report.files, strict=True)
        for backend in backends(report)
        if backend not in {latency.backend for latency in file.latencies}
    ]
    if not any(file.rounded for file in report.files if file.precision == "fp16") and "fp16" in made:
        lines.append(
            "FP16 as a GPU stores it: only what a CPU computes was judged, which is float32 between the operators."
        )
    if not report.sensitivity:
        lines.append("Sensitivity: the parts of the network were not quantized one by one.")
    if not report.histograms:
        lines.append("Histograms: no layer's values were kept.")
    if not report.pictures:
        lines.append("Pictures: none were drawn of what changed.")
    return lines
