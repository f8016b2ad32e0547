"""Histograms of magnitudes, as vectors inside the page."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sfpp.tooling.page.markup import Html, element

# Sizes in pixels of the drawing: at this width one fits a phone, and three stand side by side on a desk.
_WIDTH, _HEIGHT = 320, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 18, 20
_MOST_STEPS = 138  # a step of two pixels is the smallest that can be seen
_MOST_TICKS = 4
# The count that has no height: half of the smallest, so that a single value is still seen on the logarithmic scale.
_GROUND = 0.5


def histogram(
    counts: NDArray[np.integer], *, largest: float, threshold: float, title: Html | str, caption: Html | str, alt: str
) -> Html:
    """Return a histogram with counts on a logarithmic scale and a line at the threshold.

    Args:
        counts: (bins,) values by magnitude, in bins of equal width from 0 to ``largest``.
        largest: the end of the last bin.
        threshold: where the line stands; what lies above it is filled in another color.
        title: above the chart.
        caption: below it.
        alt: what is to be seen, for those who do not see it.
    """
    drawn: Html = element("p", "no values to draw", class_="muted")
    if math.isfinite(largest) and largest > 0 and counts.size and counts.max() > 0:
        drawn = _drawing(counts, largest=largest, threshold=threshold, alt=alt)
    return element("figure", element("p", title, class_="chart-title"), drawn, element("figcaption", caption))


def _drawing(counts: NDArray[np.integer], *, largest: float, threshold: float, alt: str) -> Html:
    steps, ends = _merged(counts)
    most = int(steps.max())
    # No namespace: inside HTML an svg needs none, and a page shall hold no address of another.
    return element(
        "svg",
        *_fillings(steps, ends, share=threshold / largest),
        *_count_axis(most),
        *_value_axis(largest),
        *_threshold_line(threshold, largest),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=alt,
        class_="histogram",
    )


def _merged(counts: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the counts of at most ``_MOST_STEPS`` steps, (steps,), and their borders 0..1, (steps + 1,)."""
    bins_of_step = math.ceil(len(counts) / _MOST_STEPS)
    first_bins = np.arange(0, len(counts), bins_of_step)
    borders = np.append(first_bins, len(counts)) / len(counts)
    return np.add.reduceat(counts.astype(np.int64), first_bins), borders


def _fillings(steps: NDArray[np.int64], borders: NDArray[np.float64], *, share: float) -> list[Html]:
    """Return the steps below and above the threshold, which lies at ``share`` of the axis, as one path each."""
    paths: dict[str, list[str]] = {"kept": [], "clipped": []}
    for count, left, right in zip(steps, borders, borders[1:], strict=False):
        if count:
            path = paths["clipped" if (left + right) / 2 > share else "kept"]
            path.append(f"M{_x(left)} {_y(0, 1)}V{_y(count, int(steps.max()))}H{_x(right)}V{_y(0, 1)}Z")
    return [element("path", d="".join(path), class_=name) for name, path in paths.items() if path]


def _x(share: float) -> float:
    return round(_LEFT + float(share) * (_WIDTH - _LEFT - _RIGHT), 2)


def _y(count: float, most: int) -> float:
    height = math.log(count / _GROUND) / math.log(most / _GROUND) if count else 0.0
    return round(_HEIGHT - _BOTTOM - height * (_HEIGHT - _TOP - _BOTTOM), 2)


def _count_axis(most: int) -> list[Html]:
    """Return lines and labels at powers of ten."""
    decades = math.floor(math.log10(most))
    every = math.ceil((decades + 1) / _MOST_TICKS)
    parts = []
    for power in range(0, decades + 1, every):
        y = _y(10**power, most)
        parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", _count_text(power), x=_LEFT - 5, y=y + 3.5, text_anchor="end"))
    return parts


def _count_text(power: int) -> str:
    """Return a power of ten in few letters: 1, 10, 100, 1k, ... 1M."""
    suffix = ("", "k", "M", "G", "T")[min(power // 3, 4)]
    return f"{10 ** (power - 3 * min(power // 3, 4))}{suffix}"


def _value_axis(largest: float) -> list[Html]:
    y = _HEIGHT - _BOTTOM
    ends = [(0.0, "0", "start"), (1.0, f"{largest:.3g}", "end")]
    labels = [element("text", text, x=_x(share), y=y + 14, text_anchor=anchor) for share, text, anchor in ends]
    return [element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="axis"), *labels]


def _threshold_line(threshold: float, largest: float) -> list[Html]:
    if not 0 < threshold <= largest:
        return []
    x = _x(threshold / largest)
    # The label stands where there is more room.
    after = threshold < largest / 2
    label = element(
        "text",
        f"threshold {threshold:.3g}",
        x=x + (4 if after else -4),
        y=_TOP - 6,
        text_anchor="start" if after else "end",
    )
    return [element("line", x1=x, x2=x, y1=_TOP - 14, y2=_HEIGHT - _BOTTOM, class_="threshold"), label]
