"""A report as text, for a terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from sfpp.export.parity.differences import Place
from sfpp.export.parity.report import AgreementReport, OutputReport, PointReport
from sfpp.export.remaking import export_command
from sfpp.runtime.text import clean_text

# Larger networks are shown stage by stage; everything is in the JSON and on the page.
_MOST_ROWS = 64


def report_text(report: AgreementReport) -> str:
    """Return the report: answers, accuracy, parts, what is odd, the verdict."""
    lines = [*_head(report), *_answers(report), *_truth(report), *_parts(report)]
    lines += [f"note: {note}" for note in report.notes]
    # Names of files and classes may hold codes that command a terminal.
    return "\n".join(clean_text(line) for line in [*lines, *_verdict(report)])


def next_command(report: AgreementReport) -> str:
    """Return what to do next: use the file, or find out whether it or the backend is at fault, or make it anew."""
    model, weights = shlex.quote(str(report.model)), shlex.quote(report.weights)
    if report.agrees:
        return f"sfpp-run {model} {'demo' if report.contract.task == 'segmentation' else 'PEOPLE.mp4'}"
    if not report.backend.startswith("ONNX Runtime"):
        return f"sfpp-parity {model} --weights {weights}   (in ONNX Runtime: is it the file or the backend?)"
    if report.contract.precision != "fp32":
        return "sfpp-calibrate FLOAT32.onnx --images FRAMES   (make it anew from its float32 file)"
    return f"{export_command(report.contract, weights=weights)}   (make it anew)"


def percent(share: float) -> str:
    """Return a share as per cent that is not rounded up to all of it."""
    # "100 %" beside "DISAGREES" would be read as a mistake of the report.
    text = f"{100 * share:.2f} %"
    return "99.99 %" if text == "100.00 %" and share < 1 else text


def error(value: float) -> str:
    """Return an error in two digits."""
    return f"{value:.1e}"


def place_text(place: Place | None) -> str:
    """Return where, or a dash."""
    return "-" if place is None else str(place)


def answer_facts(output: OutputReport) -> Iterator[str]:
    """Yield what is to be said of the answers in one mode."""
    if output.distance_px is None:
        yield f"labels agree on {percent(output.same)} (worst frame {percent(output.worst_same)})"
    else:
        mean, largest = output.distance_px
        yield f"keypoints agree on {percent(output.same)}, apart by {mean:.2f} px in the mean and {largest:.2f} at most"
    if output.mean_iou is not None:
        yield f"mIoU against PyTorch's labels {percent(output.mean_iou)}"
    if output.max_error is not None and output.mean_error is not None and output.scale is not None:
        yield f"max error {error(output.max_error)}, mean {error(output.mean_error)} (largest value {output.scale:.3g})"


def shown_points(points: Sequence[PointReport]) -> list[PointReport]:
    """Return all parts, or of a large network those that err and the worst of each stage; layers only if they err."""
    points = [point for point in points if not point.detail or not point.within]
    if len(points) <= _MOST_ROWS:
        return list(points)
    worst: dict[str, PointReport] = {}
    for point in points:
        stage = re.split(r"/blocks\.|\.\d+/(?=attention|ffn)", point.name)[0]
        if stage not in worst or not point.own <= worst[stage].own:
            worst[stage] = point
    return [point for point in points if point in worst.values() or not point.within]


def _head(report: AgreementReport) -> Iterator[str]:
    contract, count = report.contract, len(report.frames)
    spec = contract.input
    yield (
        f"{report.model.name}: {contract.family}-{contract.size} {contract.variant} {contract.precision}, "
        f"{spec.width}x{spec.height} (width x height), target {contract.target}"
    )
    yield f"  against PyTorch with {report.weights}, on {count} frame{'s' * (count != 1)} of {report.source}"
    yield f"  in {report.backend}; judged as {report.precision}"


def _answers(report: AgreementReport) -> Iterator[str]:
    for output in report.outputs:
        yield f"{output.mode:7} {'; '.join(answer_facts(output))}"


def _truth(report: AgreementReport) -> Iterator[str]:
    truth = report.truth
    if truth is not None:
        yield (
            f"mIoU against the label pictures of {truth.frames} frame{'s' * (truth.frames != 1)}: "
            f"{percent(truth.file_mean_iou)} this file, {percent(truth.pytorch_mean_iou)} PyTorch"
        )


def _parts(report: AgreementReport) -> Iterator[str]:
    if not report.points:
        return
    points = shown_points(report.points)
    width = max(len(point.name) for point in points)
    yield ""
    yield f"{'part':{width}}  own error   so far  largest  where"
    for point in points:
        mark = "" if point.within else "  <-- out of tolerance"
        gain = "" if point.gain is None or point.within else f", {point.gain:.2f} times"
        yield (
            f"{point.name:{width}}  {error(point.own):>9}  {_so_far(point):>7}  {error(point.largest):>7}  "
            f"{place_text(point.place)}{gain}{mark}"
        )
    parts = sum(not point.detail for point in report.points)
    if parts > _MOST_ROWS:
        yield f"... the worst of each stage, of {parts} parts; --json and --html have all"
    yield (
        f"own error: relative, allowed {report.tolerance.own:.0e}; the parts ran in {report.points_backend}"
        f"{_matching(report.points)}"
    )
    yield ""


def _so_far(point: PointReport) -> str:
    return "" if point.detail else error(point.total)


def _matching(points: Sequence[PointReport]) -> str:
    gaps = [point.gap for point in points if point.gap is not None]
    return f"; partners at most {max(gaps):.1e} less similar than the best" if gaps else ""


def _verdict(report: AgreementReport) -> Iterator[str]:
    took = f"({report.seconds:.1f} s)"
    if report.agrees:
        yield f"AGREES with PyTorch {took}"
        return
    yield f"DISAGREES with PyTorch {took}:"
    yield from (f"  {failure}" for failure in report.failures if failure != report.place)
    if report.place is not None:
        yield report.place
