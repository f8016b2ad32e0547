"""A report as one HTML page: the verdict, the answers, every part's error, and the frames that differ most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sfpp.export.parity.report import AgreementReport, MarkedFrame, OutputReport, PointReport
from sfpp.export.parity.words import error, next_command, percent
from sfpp.tooling.page import (
    Bar,
    Column,
    Html,
    Page,
    Tile,
    bars,
    bullets,
    code,
    facts,
    folded,
    gallery,
    headline,
    notice,
    paragraph,
    picture,
    table,
    tiles,
)

# Errors span eight orders of magnitude, so bars are logarithmic, from here to 1.
_SMALLEST = 1e-8


def parity_page(report: AgreementReport) -> Page:
    """Return the page, to be written."""
    contract = report.contract
    name = f"{contract.family}-{contract.size} {contract.variant} {contract.precision}"
    page = Page(f"{report.model.name} against PyTorch", subtitle=f"{name}, judged as {report.precision}")
    _add_head(page, report)
    _add_answers(page, report)
    _add_pictures(page, report)
    _add_parts(page, report)
    _add_truth(page, report)
    _add_facts(page, report)
    return page


def _add_head(page: Page, report: AgreementReport) -> None:
    if report.agrees:
        page.add(headline("Agrees with PyTorch", "Everything is within the tolerances of its precision."))
    else:
        place = report.place or "Where it goes wrong could not be told."
        page.add(headline("Does not agree with PyTorch", f"{place[0].upper()}{place[1:]}."))
    page.add(tiles(_tiles(report)))
    if report.failures:
        page.add(notice("Out of tolerance", bullets(report.failures), tone="bad"))
    for note in report.notes:
        page.add(notice("Note", note.removeprefix("warning: "), tone="warn"))


def _tiles(report: AgreementReport) -> Iterator[Tile]:
    for output in report.outputs:
        what = "Labels" if output.distance_px is None else "Keypoints"
        yield Tile(f"{what} as PyTorch's", percent(output.same), f"{output.mode}, {len(report.frames)} frames")
    worst = max(report.points, key=lambda point: _finite(point.own), default=None)
    if worst is not None:
        yield Tile("Largest own error", error(worst.own), worst.name)
    if report.truth is not None:
        yield Tile("mIoU", percent(report.truth.file_mean_iou), f"PyTorch {percent(report.truth.pytorch_mean_iou)}")


def _add_answers(page: Page, report: AgreementReport) -> None:
    segments = report.contract.task == "segmentation"
    same = "pixels with PyTorch's label" if segments else "sure keypoints that are where PyTorch has them"
    last = Column("mIoU", "%", "with PyTorch's labels as the truth") if segments else Column("distance", "px", "mean")
    columns = [
        Column("Mode", numeric=False),
        Column("same", "%", same),
        Column("worst frame", "%"),
        last,
        Column("relative error", "", "root mean square of the difference over that of PyTorch's output"),
        Column("max error"),
        Column("mean error"),
    ]
    section = page.section("Answers")
    section.add(table(columns, [_answer_row(each) for each in report.outputs], caption="The file against PyTorch"))
    if len(report.outputs) > 1:
        section.add(
            paragraph(
                "Free: each side matches tokens by itself, and settles near ties in its own way. Pinned: PyTorch is "
                "given the graph's matching, so that only errors are left."
            )
        )


def _answer_row(output: OutputReport) -> list[str]:
    figures = [output.relative_error, output.max_error, output.mean_error]
    last = "-" if output.mean_iou is None else _share(output.mean_iou)
    if output.distance_px is not None:
        last = f"{output.distance_px[0]:.2f}"
    return [output.mode, _share(output.same), _share(output.worst_same), last, *map(_error, figures)]


def _add_pictures(page: Page, report: AgreementReport) -> None:
    if not report.pictures:
        return
    segments = report.contract.task == "segmentation"
    marks = (
        "Yellow pixels have another label than PyTorch gives them; the tint is that of PyTorch's classes."
        if segments
        else "A ring is where PyTorch has a keypoint, a disc where the file has it."
    )
    section = page.section("Frames that differ most")
    section.add(paragraph(marks), gallery(_figure(each) for each in report.pictures))


def _figure(frame: MarkedFrame) -> Html:
    caption = f"{frame.name}: {percent(1 - frame.same)} differ"
    return picture(frame.image_bgr, caption, alt=f"Frame {caption}")


def _add_parts(page: Page, report: AgreementReport) -> None:
    if not report.points:
        return
    section = page.section("Parts of the network")
    section.add(
        paragraph(
            f"The own error is what a part adds by itself, given the graph's values before it, relative to what it "
            f"computes; {error(report.tolerance.own)} is allowed. So far is the error with everything before it. Bars "
            f"are logarithmic, from {error(_SMALLEST)} to 1. They ran in {report.points_backend}."
        )
    )
    parts = [point for point in report.points if not (point.detail and point.within)]
    section.add(_chart(parts, caption="Parts, in the order of the network"))
    if layers := [point for point in report.points if point.detail]:
        chart = _chart(layers, caption="Layers, on the first frames")
        section.add(folded(f"Show the {len(layers)} layers inside", chart))


def _chart(points: Sequence[PointReport], *, caption: str) -> Html:
    more = ("so far", "largest", "on frame")
    longest = -math.log10(_SMALLEST)
    return bars([_bar(each) for each in points], caption=caption, label="part", value="own", more=more, largest=longest)


def _bar(point: PointReport) -> Bar:
    length = math.log10(max(_finite(point.own), _SMALLEST) / _SMALLEST)
    gain = "" if point.gain is None or point.within else f" ({point.gain:.2f} times)"
    more = ("" if point.detail else error(point.total), error(point.largest), point.frame)
    tag = "" if point.within else "out of tolerance"
    return Bar(code(point.name), length, f"{error(point.own)}{gain}", more=more, tag=tag)


def _add_truth(page: Page, report: AgreementReport) -> None:
    truth = report.truth
    if truth is None:
        return
    columns = [Column("Class", numeric=False), Column("this file", "%"), Column("PyTorch", "%")]
    rows = [[name, _share(truth.file_iou[name]), _share(truth.pytorch_iou[name])] for name in truth.file_iou]
    total = ["mean", _share(truth.file_mean_iou), _share(truth.pytorch_mean_iou)]
    caption = f"Intersection over union with the label pictures of {truth.frames} frames"
    page.section("Accuracy").add(table(columns, [total, *rows], caption=caption))


def _add_facts(page: Page, report: AgreementReport) -> None:
    spec, limits = report.contract.input, report.tolerance
    pairs: list[tuple[str, Html | str]] = [
        ("model", code(str(report.model))),
        ("weights", code(report.weights)),
        ("input", f"{spec.width}x{spec.height} (width x height), {spec.resize}"),
        ("ran in", report.backend),
        ("target", report.contract.target),
        ("frames", f"{len(report.frames)} of {report.source}"),
        ("allowed own error", error(limits.own)),
        ("allowed error of the output", error(limits.output)),
        ("labels or keypoints that must be the same", f"{percent(limits.labels)}, free {percent(limits.free_labels)}"),
        ("allowed gap of a matching", error(limits.gap)),
        ("took", f"{report.seconds:.1f} s"),
        ("next", code(next_command(report))),
    ]
    page.section("How it was compared").add(facts(pairs))


def _finite(value: float) -> float:
    """Return a value to sort and draw by: what is not finite is the worst."""
    return value if math.isfinite(value) else 1.0


def _error(value: float | None) -> str:
    return "-" if value is None else error(value)


def _share(value: float) -> str:
    return "-" if math.isnan(value) else percent(value).removesuffix(" %")
