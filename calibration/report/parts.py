"""The parts of the network: which of them INT8 harms, why, and what was done about it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sfpp.calibration.report.words import DASH, SPACE, file_labels, is_finite, number, small_percent, words
from sfpp.calibration.results import CalibrationReport, Kept, LayerHistogram, Sensitivity
from sfpp.tooling.page import (
    Bar,
    Cell,
    Column,
    Html,
    Page,
    Row,
    bars,
    code,
    folded,
    gallery,
    histogram,
    joined,
    paragraph,
    table,
)

# What is more than this is folded away: bars, rows, and names in one cell.
_BARS = 24
_ROWS = 16
_NAMES = 6


def add_sensitivity(page: Page, report: CalibrationReport) -> None:
    """Add a bar for each part that was quantized alone."""
    if not report.sensitivity:
        return
    section = page.section("What INT8 harms")
    answers = words(report).answers
    section.add(
        paragraph(
            f"Each part of the network was quantized alone, with all others in FP32. The bar is the share of {answers} "
            "that change; the error is that of the network's output, mean squared, relative to its mean square."
        )
    )
    # Of all parts: what is folded away is drawn to the same scale.
    harms = (*report.sensitivity, *report.suspects)
    largest = max((harm.disagreement for harm in harms if is_finite(harm.disagreement)), default=0.0)
    section.add(*_charts(report.sensitivity, "parts", answers, largest))
    if report.suspects:
        section.add(paragraph("The worst parts were looked into node by node, to keep no more of them than needed."))
        section.add(*_charts(report.suspects, "nodes", answers, largest))


def _charts(harms: Sequence[Sensitivity], kind: str, answers: str, largest: float) -> list[Html]:
    """Return a chart of the first, and what is left folded away."""
    entries = [_bar(harm) for harm in harms]
    charts = [_chart(entries[:_BARS], answers, largest, caption=f"{kind.capitalize()}, the most harmful first")]
    if rest := entries[_BARS:]:
        others = f"the other {len(rest)} {kind}"
        charts.append(folded(f"Show {others}", _chart(rest, answers, largest, caption=f"And {others}")))
    return charts


def _chart(entries: Sequence[Bar], answers: str, largest: float, *, caption: str) -> Html:
    value = f"{answers} changed"
    return bars(entries, caption=caption, label="part", value=value, more=("error", "nodes"), largest=largest)


def _bar(harm: Sensitivity) -> Bar:
    changed = f"{number(harm.disagreement)}{SPACE}%" if is_finite(harm.disagreement) else DASH
    tag = "kept out of INT8" if harm.kept else ""
    return Bar(code(harm.name), harm.disagreement, changed, more=(small_percent(harm.error), str(harm.nodes)), tag=tag)


def add_histograms(page: Page, report: CalibrationReport) -> None:
    """Add the values of the layers that lose most by rounding."""
    if not report.histograms:
        return
    section = page.section("Layers that lose most by rounding")
    section.add(
        paragraph(
            "How often each magnitude occurs in the layer's input on the calibration frames, on a logarithmic scale. "
            "The 255 steps of INT8 end at the threshold: what is larger is clipped to it, and the farther it lies from "
            "most values, the fewer steps are left for them."
        ),
        gallery(_histogram(each) for each in report.histograms),
    )


def _histogram(layer: LayerHistogram) -> Html:
    clipped = small_percent(clipped_share(layer))
    caption = f"{clipped} of the values clipped, rounding error {small_percent(layer.error)} of their mean square"
    alt = f"Magnitudes from 0 to {layer.largest:.3g}, threshold at {layer.threshold:.3g}, {clipped} above it"
    return histogram(
        layer.counts, largest=layer.largest, threshold=layer.threshold, title=code(layer.node), caption=caption, alt=alt
    )


def clipped_share(layer: LayerHistogram) -> float | None:
    """Return the share, 0..1, of values above the threshold, told by the middle of their bins; None without values."""
    total = int(layer.counts.sum())
    if not total:
        return None
    middles = (np.arange(len(layer.counts)) + 0.5) * layer.largest / len(layer.counts)
    return float(layer.counts[middles > layer.threshold].sum() / total)


def add_kept(page: Page, report: CalibrationReport) -> None:
    """Add what stays in more precision, and why."""
    groups = [
        (label, reason, names)
        for label, file in zip(file_labels(report), report.files, strict=True)
        for reason, names in _by_reason(file.kept).items()
    ]
    if not groups:
        return
    section = page.section("What stays in more precision")
    columns = [Column(title, numeric=title == "parts") for title in ("file", "why", "parts", "which")]
    rows = [Row([label, reason, str(len(names)), Cell(_names(names))]) for label, reason, names in groups]
    caption = "Parts that are computed in more precision than the file's name says"
    section.add(table(columns, rows[:_ROWS], caption=caption))
    if rest := rows[_ROWS:]:
        section.add(folded(f"Show the other {len(rest)}", table(columns, rest, caption=f"The other {len(rest)}")))


def _by_reason(kept: Sequence[Kept]) -> dict[str, list[str]]:
    # Hundreds of nodes may share a handful of reasons.
    groups: dict[str, list[str]] = {}
    for part in kept:
        groups.setdefault(part.reason, []).append(part.name)
    return groups


def _names(names: Sequence[str]) -> Html:
    shown = joined([code(name) for name in names[:_NAMES]], separator=", ")
    if len(names) <= _NAMES:
        return shown
    rest = joined([code(name) for name in names[_NAMES:]], separator=", ")
    return joined([shown, folded(f"and {len(names) - _NAMES} more", rest)])
