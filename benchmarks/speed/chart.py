"""How the time of one run grows with the pixels: a panel a backend, a line a contestant, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.speed.results import LOCAL, TRANSFORMERS, SpeedRow
from benchmarks.speed.table import backend_name
from sfpp.runtime.bench.chart import COLORS, GREY, STYLE, check_chart, save_figure
from sfpp.runtime.errors import SfppError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME_HEIGHT = 0.026  # of a line's name, as a part of the axis at this figure's size


def draw_growth(rows: Sequence[SpeedRow], path: Path, *, network: str, backends: Sequence[str]) -> None:
    """Draw the rows of one network.

    Args:
        rows: what was measured, of any network and backend.
        path: .svg or .png.
        network: whose rows are drawn.
        backends: one panel each; those without a time are left out.

    Raises:
        UsageError: another suffix.
        MissingDependencyError: matplotlib is not installed.
        SfppError: there is nothing to draw, the folder does not exist, or the disk is full.
    """
    check_chart(path)
    timed = {row.backend for row in rows if row.network == network and row.time is not None}
    shown = [backend for backend in backends if backend in timed]
    drawn = [row for row in rows if row.network == network and row.backend in shown]
    if not shown:
        raise SfppError(f"no row of {network} on {' or '.join(backends)} has a time, so nothing is drawn in {path}")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6 * len(shown), 5.2), dpi=130)
        figure.set_layout_engine("constrained")
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        of_panel = [[row for row in drawn if row.backend == backend] for backend in shown]
        for axes, backend, panel_rows in zip(panels, shown, of_panel, strict=True):
            _draw_panel(axes, panel_rows, styles(drawn))
            axes.set_title(f"{network.upper()}, {backend_name(backend)}", fontsize=11)
        # Once all lines are drawn: the panels share an axis, and how far names must stand apart depends on its length.
        for axes, panel_rows in zip(panels, of_panel, strict=True):
            _name_lines(axes, panel_rows, styles(drawn))
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
    for name in dict.fromkeys(row.name for row in rows if row.time):
        x, y = zip(*_points(rows, name), strict=True)
        color, dash = look[name]
        axes.plot(x, y, dash, color=color, marker="o", markersize=4, linewidth=1.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _scale_axes(axes, rows)


def _points(rows: Sequence[SpeedRow], name: str) -> list[tuple[float, float]]:
    """Return a line's points, megapixels and seconds, from the smallest size to the largest."""
    return sorted((row.pixels / 1e6, row.time.p50_ms / 1e3) for row in rows if row.name == name and row.time)


def _scale_axes(axes: Axes, rows: Sequence[SpeedRow]) -> None:
    from matplotlib.ticker import LogLocator

    sizes = {row.pixels / 1e6: row.size for row in sorted(rows, key=lambda row: row.pixels)}
    # In two lines, as 2048x2048 and 3840x2160 are close together.
    axes.set_xticks(list(sizes), [size.replace("x", "\nx ") for size in sizes.values()], fontsize=8.5)
    axes.minorticks_off()
    smallest, largest = min(sizes), max(sizes)
    # Room on the right for the lines' names.
    axes.set_xlim(smallest / 1.25, largest * 1.6 * (largest / smallest) ** 0.25)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda seconds, _: f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1e3:g} ms")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _name_lines(axes: Axes, rows: Sequence[SpeedRow], look: dict[str, tuple[str, str]]) -> None:
    """Write each line's name at its end, moved up where two would overlap: no legend that has to be matched by eye."""
    ends = {name: _points(rows, name)[-1] for name in look if _points(rows, name)}
    right = max(x for x, _ in ends.values())
    bottom, top = axes.get_ylim()
    places = spread_out({name: y for name, (x, y) in ends.items() if x == right}, gap=(top / bottom) ** _NAME_HEIGHT)
    for name, place in places.items():
        _write(axes, name, (right, place), color=look[name][0], left=False)
    for name, end in ends.items():
        if name not in places:
            # It ends early, among other lines: its name stands on the left, with what kept it from going on.
            reasons = [row.missing_briefly for row in rows if row.name == name and row.missing]
            _write(axes, "\nbeyond: ".join([name, *reasons[:1]]), end, color=look[name][0], left=True)


def _write(axes: Axes, text: str, place: tuple[float, float], *, color: str, left: bool) -> None:
    axes.annotate(
        text.replace(TRANSFORMERS, "Transformers, torch.onnx"),
        place,
        xytext=(-8 if left else 8, 0),
        textcoords="offset points",
        horizontalalignment="right" if left else "left",
        verticalalignment="center",
        fontsize=8.5,
        color=color,
    )


def spread_out(values: dict[str, float], *, gap: float) -> dict[str, float]:
    """Return the values, raised where one is not ``gap`` times the one below it; the lowest stays."""
    placed: dict[str, float] = {}
    below = 0.0
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        below = placed[name] = max(value, below * gap)
    return placed
