"""What a comparison found, as text for a terminal and as a page."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from sfpp.export.catalog import export_command
from sfpp.export.parity.differences import Place
from sfpp.export.parity.report import AgreementReport, OutputReport, PointReport
from sfpp.runtime.cli.console import example_source
from sfpp.runtime.files import write_text
from sfpp.runtime.text import clean_text
from sfpp.tooling.figures import error, is_finite, share
from sfpp.tooling.page import Bar, render

_TEMPLATE = Path(__file__).parents[1] / "templates" / "parity.html"
# Larger networks are shown stage by stage; everything is in the JSON and on the page.
_MOST_ROWS = 64
# Errors span eight orders of magnitude, so bars are logarithmic, from here to 1.
_SMALLEST = 1e-8


def report_text(report: AgreementReport) -> str:
    """Return the report: predictions, accuracy, parts, what is odd, the verdict."""
    lines = [*_head(report), *_outputs(report), *_truth(report), *_parts(report)]
    lines += [f"note: {note}" for note in report.notes]
    # Names of files and classes may hold codes that command a terminal.
    return "\n".join(clean_text(line) for line in [*lines, *_verdict(report)])


def next_command(report: AgreementReport) -> str:
    """Return what to do next: use the file, or find out whether it or the backend is at fault, or make it anew."""
    model, weights = shlex.quote(str(report.model)), shlex.quote(report.weights)
    if report.agrees:
        return f"sfpp-run {model} {example_source(report.contract.task)}"
    if not report.backend.startswith("ONNX Runtime"):
        return f"sfpp-parity {model} --weights {weights}   (in ONNX Runtime: is it the file or the backend?)"
    if report.contract.precision != "fp32":
        return "sfpp-calibrate FLOAT32.onnx --images FRAMES   (make it anew from its float32 file)"
    return f"{export_command(report.contract, weights=weights)}   (make it anew)"


def percent(fraction: float) -> str:
    """Return a share in per cent that is not rounded up to all of it, with the sign."""
    return f"{share(fraction)} %"


def place_text(place: Place | None) -> str:
    """Return where, or a dash."""
    return "-" if place is None else str(place)


def output_facts(output: OutputReport) -> Iterator[str]:
    """Yield what is to be said of the predictions in one mode."""
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
    yield f"  in {report.backend}; compared as {report.precision}"


def _outputs(report: AgreementReport) -> Iterator[str]:
    for output in report.outputs:
        yield f"{output.mode:7} {'; '.join(output_facts(output))}"


def _truth(report: AgreementReport) -> Iterator[str]:
    truth = report.truth
    if truth is not None:
        yield (
            f"mIoU against the label images of {truth.frames} frame{'s' * (truth.frames != 1)}: "
            f"{percent(truth.file_mean_iou)} this file, {percent(truth.pytorch_mean_iou)} PyTorch"
        )
        if truth.labels is not None:
            yield f"  {truth.labels.text()}"
            yield from (f"  {note}" for note in truth.labels.notes)


def _parts(report: AgreementReport) -> Iterator[str]:
    if not report.points:
        return
    points = shown_points(report.points)
    width = max(len(point.name) for point in points)
    yield ""
    yield f"{'part':{width}}  own error   so far  largest  where"
    for point in points:
        mark = "" if point.within else "  <-- out of tolerance"
        yield (
            f"{point.name:{width}}  {error(point.own):>9}  {_so_far(point):>7}  {error(point.largest):>7}  "
            f"{place_text(point.place)}{_gain(point, ', {:.2f} times')}{mark}"
        )
    parts = sum(not point.detail for point in report.points)
    if parts > _MOST_ROWS:
        yield f"... the worst of each stage, of {parts} parts; --json and --html have all"
    yield (
        f"own error: relative, allowed {report.tolerance.own:.0e}; the parts ran in {report.points_backend}"
        f"{_matching(report.points)}"
    )
    yield ""


def _gain(point: PointReport, words: str) -> str:
    return "" if point.gain is None or point.within else words.format(point.gain)


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


def write_html(report: AgreementReport, path: str | os.PathLike[str]) -> None:
    """Write a page that needs nothing but itself.

    Raises:
        SfppError: the folder does not exist, or the disk is full.
    """
    write_text(path, parity_page(report))


def parity_page(report: AgreementReport) -> str:
    """Return the page: the verdict, the figures, every part's error, and the frames that differ most."""
    contract = report.contract
    name = f"{contract.family}-{contract.size} {contract.variant} {contract.precision}"
    return render(
        _TEMPLATE,
        title=f"{report.model.name} against PyTorch",
        subtitle=f"{name}, compared as {report.precision}",
        report=report,
        segments=contract.task == "segmentation",
        worst=max(report.points, key=lambda point: _length(point.own), default=None),
        bars=[_bar(each) for each in report.points if not (each.detail and each.within)],
        layers=[_bar(each) for each in report.points if each.detail],
        longest=-math.log10(_SMALLEST),
        smallest=_SMALLEST,
        next_command=next_command(report),
        percent=percent,
    )


def _bar(point: PointReport) -> Bar:
    length = math.log10(max(_length(point.own), _SMALLEST) / _SMALLEST)
    more = (_so_far(point), error(point.largest), point.frame)
    tag = "" if point.within else "out of tolerance"
    return Bar(point.name, length, f"{error(point.own)}{_gain(point, ' ({:.2f} times)')}", more, tag, is_code=True)


def _length(own: float) -> float:
    """Return a value to sort and draw by: what is not finite is the worst."""
    return own if is_finite(own) else 1.0
