"""The report as a chart: latencies as bars, and the roofline where the bytes are known."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfpp.runtime.bench.row import Row, backend_label, row_labels
from sfpp.runtime.errors import MissingDependencyError, SfppError, UsageError
from sfpp.runtime.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")

# Okabe and Ito's colors, which people with color blindness can tell apart.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
GREY = "#555555"
STYLE: Any = {  # matplotlib types its keys one by one
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a file's name may hold dollar signs
    "svg.fonttype": "none",  # text stays text, which can be searched and read aloud
    "svg.hashsalt": "sfpp",  # the same figures give the same file
}


def check_chart(path: Path) -> None:
    """Refuse a chart that could not be written, before anything is measured for it.

    Raises:
        UsageError: the suffix is neither .svg nor .png.
        MissingDependencyError: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot draw a chart as {path.name!r}: give a name that ends in {' or '.join(SUFFIXES)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependencyError("matplotlib", extra="bench", purpose="drawing a chart")


def draw_chart(rows: Sequence[Row], path: Path, *, copy_bytes_per_s: float | None, machine: Mapping[str, Any]) -> None:
    """Draw rows that have figures; see :meth:`sfpp.runtime.bench.report.BenchReport.write_chart`."""
    check_chart(path)
    if not rows:
        raise SfppError(f"nothing was measured, so there is nothing to draw in {path}")
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot, which would look for a screen

    bandwidth = copy_bytes_per_s if any(_has_place(row) for row in rows) else None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=_size_inches(len(rows), panels=1 if bandwidth is None else 2), dpi=130)
        figure.set_layout_engine("constrained")
        panels = figure.subplots(1, 1 if bandwidth is None else 2, squeeze=False)[0]
        colors = _colors(rows)
        _draw_latencies(panels[0], rows, colors)
        if bandwidth is not None:
            _draw_roofline(panels[1], rows, colors, bandwidth)
        figure.suptitle(f"{machine.get('processor')}, {machine.get('usable_cores')} cores", fontsize=9, color=GREY)
        save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the suffix says; to be called under ``STYLE``, as it was drawn.

    Raises:
        SfppError: the folder does not exist, or the disk is full.
    """
    kind = path.suffix.lower()[1:]
    with whole_file(path) as temporary:
        # A date would make every file differ from the last.
        figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else None)


def _has_place(row: Row) -> bool:
    """Whether a row can be drawn in the roofline."""
    return None not in (row.multiply_adds_per_byte, row.multiply_adds_per_s, row.matmul_peak)


def _size_inches(rows: int, *, panels: int) -> tuple[float, float]:
    """Return width and height: a bar needs half an inch, and the roofline some height to be read."""
    return (9, max(2.2, 1.5 + 0.5 * rows)) if panels == 1 else (15, max(4.2, 1.5 + 0.5 * rows))


def _colors(rows: Sequence[Row]) -> dict[str, str]:
    """Return a color for each backend."""
    backends = dict.fromkeys(backend_label(row) for row in rows)
    return {backend: COLORS[index % len(COLORS)] for index, backend in enumerate(backends)}


def _draw_latencies(axes: Axes, rows: Sequence[Row], colors: Mapping[str, str]) -> None:
    """Draw p50 as bars with a line to p90 and a tick at p99; longest percentiles leave room for the text."""
    limit_ms = max(row.network.p99_ms for row in rows if row.network)
    for place, row in enumerate(rows):
        assert row.network is not None
        p50, p90, p99 = row.network.p50_ms, row.network.p90_ms, row.network.p99_ms
        axes.barh(place, p50, height=0.62, color=colors[backend_label(row)])
        axes.plot([p50, p90], [place, place], color="black", linewidth=2.2, solid_capstyle="butt")
        axes.plot([p90, p99], [place, place], color="black", linewidth=0.8)
        axes.plot([p99, p99], [place - 0.14, place + 0.14], color="black", linewidth=0.8)
        axes.text(p99 + 0.015 * limit_ms, place, _text(row), va="center")
    names = zip(rows, row_labels(rows), strict=True)
    labels = [f"{number}  {label}\n{backend_label(row)}" for number, (row, label) in enumerate(names, start=1)]
    axes.set_yticks(range(len(rows)), labels, fontsize=9)
    axes.invert_yaxis()  # the first row on top, as in the table
    axes.set_xlim(0, limit_ms * 1.3)
    axes.set_xlabel("network alone, ms: bar p50, thick line to p90, tick p99")


def _text(row: Row) -> str:
    assert row.network is not None
    p50 = row.network.p50_ms
    time = f"{p50:.0f} ms" if p50 >= 100 else f"{p50:.1f} ms"
    return f"{time}   {row.speedup.median:.2f}x" if row.speedup else time


def _draw_roofline(axes: Axes, rows: Sequence[Row], colors: Mapping[str, str], copy_bytes_per_s: float) -> None:
    """Draw each row, by its number, at its multiply-adds per byte and its rate, under what the machine cannot pass."""
    places = {
        number: (row.multiply_adds_per_byte, row.multiply_adds_per_s / 1e9, colors[backend_label(row)])
        for number, row in enumerate(rows, start=1)
        if _has_place(row) and row.multiply_adds_per_byte and row.multiply_adds_per_s
    }
    roofs = {backend_label(row): row.matmul_peak.multiply_adds_per_s / 1e9 for row in rows if row.matmul_peak}
    bandwidth = copy_bytes_per_s / 1e9
    knees = [roof / bandwidth for roof in roofs.values()]
    left = 0.5 * min(*(x for x, _, _ in places.values()), *knees)
    right = 4 * max(*(x for x, _, _ in places.values()), *knees)
    axes.plot([left, max(knees)], [left * bandwidth, max(roofs.values())], color=GREY, linewidth=1)
    for backend, roof in roofs.items():
        label = f"{backend}: at most {roof:.0f}"
        axes.plot([roof / bandwidth, right], [roof, roof], color=colors[backend], linewidth=1.5, label=label)
    for number, (x, y, color) in places.items():
        axes.plot(x, y, "o", color=color, markersize=6, markeredgecolor="black", markeredgewidth=0.5)
        axes.annotate(str(number), (x, y), xytext=(6, -3), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        # Plain numbers: matplotlib writes powers of ten as formulas, which STYLE turns off.
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    # Without fusion in the count, a point may stand left of its true place, and even above the slope.
    axes.set_xlabel("multiply-adds per byte, counted without fusion (at least this)")
    axes.set_ylabel("G multiply-adds per second")
