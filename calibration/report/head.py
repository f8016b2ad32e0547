"""The head of the report: what to use here, whether the limit is held, and the figures that matter most."""

from __future__ import annotations

from sfpp.calibration.recommend import fastest
from sfpp.calibration.report.words import (
    SPACE,
    common_digits,
    file_labels,
    is_finite,
    megabytes,
    number,
    percent,
    recommended,
    size_digits,
    words,
)
from sfpp.calibration.results import CalibrationReport, FileResult
from sfpp.tooling.page import Page, Tile, headline, notice, tiles


def add_head(page: Page, report: CalibrationReport) -> None:
    """Add the recommendation, its key figures, and what the reader must not miss."""
    page.add(headline(finding(report), report.recommendation.text))
    index = recommended(report)
    if index is not None:
        page.add(tiles(_tiles(report, index)))
    if report.max_drop is not None:
        title, detail = budget_verdict(report)
        held = report.budget_held
        page.add(notice(title, detail, tone="warn" if held is None else "good" if held else "bad"))
    if report.frames.overlapping:
        page.add(notice("Judged on the frames that it was calibrated with.", OVERLAP, tone="warn"))


OVERLAP = (
    "The ranges were chosen on the same frames by which the files are judged, so accuracy looks better here than it "
    "will be on others. Give other frames to judge by for figures to rely on."
)


def finding(report: CalibrationReport) -> str:
    """Return the recommendation in a few words."""
    precision = report.recommendation.precision
    if precision == "fp32":
        return "Keep FP32 here"
    # FP16 was made from a file that the reader knows; that INT8 was tried in vain is the news.
    refused = precision == "fp16" and any(file.precision == "int8" for file in report.files)
    return f"Use {precision.upper()} here{', not INT8' if refused else ''}"


def budget_verdict(report: CalibrationReport) -> tuple[str, str]:
    """Return whether INT8 lost no more than it was allowed to, in a sentence, and by which figures."""
    unit = words(report)
    limit = f"the limit is {unit.drop(report.max_drop or 0.0)}"
    if report.budget_held is None:
        return "Nothing can be said on the limit for INT8.", f"No INT8 file was judged; {limit}."
    title = "INT8 keeps to the limit." if report.budget_held else "INT8 does not keep to the limit."
    losses = [
        _loss(label, file, unit.drop(abs(file.drop)))
        for label, file in zip(file_labels(report), report.files, strict=True)
        if file.precision == "int8" and is_finite(file.drop)
    ]
    return title, f"{'; '.join([*losses, limit] if losses else ['No INT8 file was kept', limit])}."


def _loss(label: str, file: FileResult, amount: str) -> str:
    return f"{label} {'loses' if file.drop >= 0 else 'gains'} {amount}"


def _tiles(report: CalibrationReport, index: int) -> list[Tile]:
    file, reference = report.files[index], report.files[0]
    entries = _accuracy_tiles(report, file, is_reference=index == 0)
    if (best := fastest(file)) is not None:
        time = f"{number(best.p50_ms, common_digits([best.p50_ms]))}{SPACE}ms"
        ratio = f", {number(best.speedup)}\u00d7 FP32 there" if index and is_finite(best.speedup) else ""
        entries.append(Tile("Latency", time, f"{best.backend}{ratio}"))
    size = f"{megabytes(file.size_bytes, size_digits(report))}{SPACE}MB"
    compared = index and reference.size_bytes
    entries.append(
        Tile(
            "File", size, f"{percent(file.size_bytes / reference.size_bytes, 0)}{SPACE}% of FP32's" if compared else ""
        )
    )
    return entries


def _accuracy_tiles(report: CalibrationReport, file: FileResult, *, is_reference: bool) -> list[Tile]:
    unit = words(report)
    entries = []
    if is_finite(file.accuracy.against_truth):
        side = "below" if file.drop >= 0 else "above"
        note = "" if is_reference or not is_finite(file.drop) else f"{number(abs(file.drop))} points {side} FP32"
        entries.append(Tile(unit.metric, f"{percent(file.accuracy.against_truth)}{SPACE}%", note))
    if not is_reference:
        name = f"{unit.answers.capitalize()} as FP32's"
        entries.append(Tile(name, f"{percent(file.accuracy.agreement)}{SPACE}%", f"{report.frames.held_out} frames"))
    return entries
