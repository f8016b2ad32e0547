"""How the time of one run grows with the pixels: a panel a backend, a line a contestant, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.speed_contestants import TRANSFORMERS
from benchmarks.speed_models import LOCAL
from benchmarks.speed_results import SpeedRow
from benchmarks.speed_table import backend_name
from sfpp.runtime.bench.chart import COLORS, GREY, STYLE, check_chart, save_figure
from sfpp.runtime.errors import SfppError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL_GAP = 1.13  # of two names beside the ends of their lines, on the logarithmic axis and at this figure's size


def draw_growth(rows: Sequence[SpeedRow], path: Path, *, network: str, backends: Sequence[str]) -> None:
    """Draw the rows of one network.

    Args:
        rows: what was measured, of any network and backend.
        path: .svg or .png.
        network: whose rows are drawn.
        backends: one panel each.

    Raises:
        UsageError: another suffix.
        MissingDependencyError: matplotlib is not installed.
        SfppError: there is nothing to draw, the folder does not exist, or the disk is full.
    """
    check_chart(path)
    drawn = [row for row in rows if row.network == network and row.backend in backends and row.time is not None]
    if not drawn:
        raise SfppError(f"no row of {network} on {' or '.join(backends)} has a time, so nothing is drawn in {path}")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6 * len(backends), 5.2), dpi=130)
        figure.set_layout_engine("constrained")
        panels = figure.subplots(1, len(backends), sharey=True, squeeze=False)[0]
        for axes, backend in zip(panels, backends, strict=True):
            _draw_panel(axes, [row for row in drawn if row.backend == backend], styles(drawn))
            axes.set_title(f"{network.upper()}, {backend_name(backend)}", fontsize=11)
        panels[0].set_ylabel("one run of the network")
        save_figure(figure, path)


def styles(rows: Sequence[SpeedRow]) -> dict[str, tuple[str, str]]:
    """Return color and line style by name: theirs grey, a variant of ours one color, dashed where it matches nearby."""
    variants = dict.fromkeys(row.name.removesuffix(LOCAL) for row in rows if row.name != TRANSFORMERS)
    colors = {name: COLORS[index % len(COLORS)] for index, name in enumerate(variants)}
    return {
        name: (GREY, "-") if name == TRANSFORMERS else (colors[name.removesuffix(LOCAL)], _dash(name))
        for name in dict.fromkeys(row.name for row in rows)
    }


def _dash(name: str) -> str:
    return "--" if name.endswith(LOCAL) else "-"


def _draw_panel(axes: Axes, rows: Sequence[SpeedRow], look: dict[str, tuple[str, str]]) -> None:
    ends: dict[str, tuple[float, float]] = {}
    for name in dict.fromkeys(row.name for row in rows):
        points = sorted((row.pixels / 1e6, row.time.p50_ms / 1e3) for row in rows if row.name == name and row.time)
        color, dash = look[name]
        axes.plot(*zip(*points, strict=True), dash, color=color, marker="o", markersize=4, linewidth=1.6)
        ends[name] = points[-1]
    axes.set_xscale("log")
    axes.set_yscale("log")
    _scale_axes(axes, rows)
    _name_lines(axes, ends, look)


def _scale_axes(axes: Axes, rows: Sequence[SpeedRow]) -> None:
    sizes = {row.pixels / 1e6: row.size for row in sorted(rows, key=lambda row: row.pixels)}
    axes.set_xticks(list(sizes), [size.replace("x", " x ") for size in sizes.values()], fontsize=8)
    axes.minorticks_off()
    smallest, largest = min(sizes), max(sizes)
    # Room on the right for the lines' names.
    axes.set_xlim(smallest / 1.25, largest * 1.25 * (largest / smallest) ** 0.35 * 1.3)
    axes.yaxis.set_major_formatter(lambda seconds, _: f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1e3:g} ms")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _name_lines(axes: Axes, ends: dict[str, tuple[float, float]], look: dict[str, tuple[str, str]]) -> None:
    """Write each line's name at its end, moved up where two would overlap; a legend would have to be matched by eye."""
    right = max(x for x, _ in ends.values())
    inner = {name: end for name, end in ends.items() if end[0] < right}
    outer = {name: end for name, end in ends.items() if end[0] == right}
    for group in (inner, outer):
        places = spread_out({name: y for name, (_, y) in group.items()}, gap=_LABEL_GAP)
        for name, place in places.items():
            text = "Transformers, torch.onnx" if name == TRANSFORMERS else name
            axes.annotate(
                text,
                (group[name][0], place),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=look[name][0],
            )


def spread_out(values: dict[str, float], *, gap: float) -> dict[str, float]:
    """Return the values, raised where one is not ``gap`` times the one below it; the lowest stays."""
    placed: dict[str, float] = {}
    below = 0.0
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        below = placed[name] = max(value, below * gap)
    return placed
