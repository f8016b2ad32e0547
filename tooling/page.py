"""Reports as one HTML page that needs nothing but itself: what its templates are filled with.

A page is a template that extends ``base.html`` and is made of the blocks in ``macros.html``:

    {% extends "base.html" %}
    {% import "macros.html" as ui with context %}
    {% block head %}{{ ui.headline("Use INT8 here", "It is twice as fast and loses 0.3 points.") }}{% endblock %}
    {% block sections %}
    {% call ui.section("Files") %}{{ ui.table(columns, rows, "Files") }}{% endcall %}
    {% endblock %}

Templates make columns, cells, rows and bars themselves, and write figures as ``figures`` does. Text is escaped wherever
it is written: names of files and classes may be hostile.
"""

from __future__ import annotations

import base64
import functools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np
from jinja2.ext import Extension
from markupsafe import Markup
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError
from sfpp.runtime.images import Image, bgr_from_frame
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.text import clean_text
from sfpp.tooling import figures

_TEMPLATES = Path(__file__).parent / "templates"
Tone = Literal["", "good", "warn", "bad", "muted"]
_SIGNS = {
    "good": {"sign": "\u2713", "words": "good"},
    "warn": {"sign": "!", "words": "caution"},
    "bad": {"sign": "\u2717", "words": "bad"},
}
# Marks of single pixels survive this quality; of a photograph it makes a tenth of a PNG's size.
_JPEG_QUALITY = 88
_LONGEST_SIDE = 1920  # in pixels: a page of images in 4K is too large to be mailed
_PURPOSE = "writing pictures into a page"
# Of ``figures``, what templates write figures with.
_FIGURES = ("common_digits", "error", "is_finite", "number", "percent", "seconds_text", "share", "small_percent")


@dataclass(frozen=True)
class Column:
    """A column: its title, the unit below it, and what it means, in words below the table.

    Attributes:
        title: what is in the column.
        unit: of its figures.
        meaning: a sentence for the reader who meets it for the first time.
        numeric: figures stand at the right, under each other.
        group: columns of the same group beside each other have it as a title above theirs.
        best: which of the figures is marked as the best one; none if empty.
    """

    title: str
    unit: str = ""
    meaning: str = ""
    numeric: bool = True
    group: str = ""
    best: Literal["", "highest", "lowest"] = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what is in it.
        value: the figure behind it, if it competes for the best of its column.
        tone: what it means to the reader.
        note: small lines below.
        chip: a small label beside the text.
        names: nodes or files, shown as they are spelled; of many, most are folded away.
    """

    text: str
    value: float | None = None
    tone: Tone = ""
    note: Sequence[str] = ()
    chip: str = ""
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Row:
    """A row of cells; ``strong`` sets it off from the others, ``follows`` ties it to the one above."""

    cells: Sequence[Cell | str]
    strong: bool = False
    follows: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar of a chart.

    Attributes:
        label: what it is of.
        value: its length; without a finite one above 0 it has none.
        text: the figure with its unit.
        more: other figures, one for each further column.
        tag: a word that sets it off from the others, together with a second color.
        is_code: the label is a name as it stands in a file.
    """

    label: str
    value: float | None
    text: str
    more: Sequence[str] = ()
    tag: str = ""
    is_code: bool = False


class Outline:
    """The sections of a page, counted while it is written."""

    def __init__(self) -> None:
        self.sections: list[tuple[str, str]] = []
        self._below = 0

    def enter(self, heading: str) -> str:
        """Begin a section, and return its anchor."""
        self._below = 0
        self.sections.append((f"section-{len(self.sections) + 1}", heading))
        return self.sections[-1][0]

    def enter_below(self) -> str:
        """Begin a section within the latest one, and return its anchor."""
        self._below += 1
        return f"section-{len(self.sections)}-{self._below}"


def render(template: Path, *, title: str, subtitle: str = "", footer: str = "", **values: Any) -> str:
    """Return a page; the same text for the same values.

    Args:
        template: a file that extends ``base.html``.
        title: of the page, as its first heading too.
        subtitle: a line below it.
        footer: a line at the end.
        values: what else the template asks for.
    """
    page = _environment(template.parent).get_template(template.name)
    return page.render(title=title, subtitle=subtitle, footer=footer, outline=Outline(), **values)


class _Lines(Extension):
    """Lines of a template are for its reader: an end of line beside a tag gives nothing, any other a space."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        source = re.sub(
            r"\s*\n\s*(?=<(?:/?html|/?head|meta|title|style|/?body|/?main|section|nav|footer)\b)", "\0", source
        )
        source = re.sub(r"(?<=[>}])\s*\n\s*|\s*\n\s*(?=<|\{[%#])", "", source)
        return re.sub(r"\s*\n\s*", " ", source).replace("\0", "\n")


@functools.cache
def _environment(folder: Path = _TEMPLATES) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        extensions=["jinja2.ext.do", _Lines],
    )
    helpers = (classes, column_groups, table_rows, bar_lengths, histogram_shape, inline_image, name_parts)
    written = (Bar, Cell, Column, Row, *(getattr(figures, name) for name in _FIGURES))
    environment.globals.update({each.__name__: each for each in (*helpers, *written)}, signs=_SIGNS)
    return environment


def _shown(value: Any) -> Any:
    """Return what stands for a value in the page, before it is escaped."""
    if isinstance(value, float):
        # Two decimals are a hundredth of a pixel, and the same on every machine.
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return clean_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def classes(**names: Any) -> Markup:
    """Return the attribute ``class`` with the names that apply, and a space before it; nothing if none does."""
    applying = " ".join(name for name, applies in names.items() if applies)
    return Markup(' class="{}"').format(applying) if applying else Markup("")


def name_parts(text: str) -> list[str]:
    """Return a name in pieces between which it may be broken."""
    return re.split(r"(?<=\w[/_:])(?=\w)", text)


def column_groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Return the titles above those of the columns, and how many columns each of them spans."""
    return [(name, len(list(members))) for name, members in groupby(columns, key=lambda column: column.group)]


def table_rows(columns: Sequence[Column], rows: Sequence[Row | Sequence[Cell | str]]) -> list[dict[str, Any]]:
    """Return rows with each cell beside what its column says of it."""
    whole = [row if isinstance(row, Row) else Row(row) for row in rows]
    lines = [[each if isinstance(each, Cell) else Cell(each) for each in row.cells] for row in whole]
    assert all(len(line) == len(columns) for line in lines), f"rows must have {len(columns)} cells"
    best = [_best_text(column, cells) for column, cells in zip(columns, zip(*lines, strict=True), strict=False)]
    return [
        {
            "strong": row.strong,
            "follows": row.follows,
            "cells": [
                {
                    "cell": cell,
                    "numeric": column.numeric,
                    "is_best": cell.value is not None and cell.text == text,
                }
                for cell, column, text in zip(line, columns, best or [None] * len(columns), strict=True)
            ],
        }
        for row, line in zip(whole, lines, strict=True)
    ]


def _best_text(column: Column, cells: Sequence[Cell]) -> str | None:
    """Return the text of the best figure, so that figures that look equal are starred alike; None where all do."""
    competing = [(cell.value, cell.text) for cell in cells if cell.value is not None and math.isfinite(cell.value)]
    if not column.best or len({text for _, text in competing}) < 2:
        return None
    choose = max if column.best == "highest" else min
    return choose(competing, key=lambda pair: pair[0])[1]


def bar_lengths(entries: Iterable[Bar], largest: float | None = None) -> list[tuple[Bar, float]]:
    """Return each bar with its length in per cent of the chart."""
    bars = list(entries)
    limit = _length(largest) or max((_length(each.value) for each in bars), default=0.0) or 1.0
    return [(each, 100 * min(1.0, _length(each.value) / limit)) for each in bars]


def _length(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) and value > 0 else 0.0


def inline_image(image_bgr: NDArray[Any]) -> dict[str, Any]:
    """Return an image as the source of an ``img``, with its width and height; a large one is shrunk.

    Args:
        image_bgr: (H, W, 3) uint8 BGR, or grey or BGRA.

    Raises:
        MediaError: not an image, or OpenCV fails to encode it.
    """
    image = _shrunk(bgr_from_frame(image_bgr))
    cv2 = import_cv2(purpose=_PURPOSE)
    written, data = cv2.imencode(".jpeg", image, _jpeg_options(cv2))
    height, width = image.shape[:2]
    if not written:
        raise MediaError(f"OpenCV failed to encode an image of {width}x{height} pixels")
    source = f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
    return {"source": source, "width": width, "height": height}


def _shrunk(image: Image) -> Image:
    height, width = image.shape[:2]
    if max(height, width) <= _LONGEST_SIDE:
        return image
    cv2 = import_cv2(purpose=_PURPOSE)
    scale = _LONGEST_SIDE / max(height, width)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    shrunk: Image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)  # averages, so thin marks stay visible
    return shrunk


def _jpeg_options(cv2: Any) -> list[int]:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    if hasattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR_444"):
        # By default color has half the resolution, which washes out marks of single pixels; OpenCV knows it since 4.6.
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return options


# Sizes of a histogram in pixels: at this width one fits a phone, and three stand side by side on a desk.
_WIDTH, _HEIGHT = 320, 150
_LEFT, _RIGHT, _TOP, _GROUND = 34, _WIDTH - 8, 18, _HEIGHT - 20
_MOST_STEPS = 138  # a step of two pixels is the smallest that can be seen
_MOST_TICKS = 4
# The count that has no height: half of the smallest, so that a single value is still seen on the logarithmic scale.
_LEAST = 0.5


def histogram_shape(counts: NDArray[np.integer], largest: float, threshold: float) -> dict[str, Any] | None:
    """Return where the parts of a histogram lie in its drawing; None where there is nothing to draw.

    Args:
        counts: (bins,) values by magnitude, in bins of equal width from 0 to ``largest``.
        largest: the end of the last bin.
        threshold: where a line stands; what lies above it has a path of its own.
    """
    if not (math.isfinite(largest) and largest > 0 and counts.size and counts.max() > 0):
        return None
    bins_of_step = math.ceil(len(counts) / _MOST_STEPS)
    first_bins = np.arange(0, len(counts), bins_of_step)
    borders = np.append(first_bins, len(counts)) / len(counts)
    steps = np.add.reduceat(counts.astype(np.int64), first_bins)
    most = int(steps.max())
    paths = {"kept": "", "clipped": ""}
    for count, left, right in zip(steps, borders, borders[1:], strict=False):
        if count:
            name = "clipped" if (left + right) / 2 > threshold / largest else "kept"
            paths[name] += f"M{_x(left)} {_y(0, 1)}V{_y(count, most)}H{_x(right)}V{_y(0, 1)}Z"
    return {
        **{"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _RIGHT, "ground": _GROUND},
        "paths": paths,
        "ticks": _ticks(most),
        "threshold_x": _x(threshold / largest) if 0 < threshold <= largest else None,
    }


def _x(share: float) -> float:
    return round(_LEFT + float(share) * (_RIGHT - _LEFT), 2)


def _y(count: float, most: int) -> float:
    height = math.log(count / _LEAST) / math.log(most / _LEAST) if count else 0.0
    return round(_GROUND - height * (_GROUND - _TOP), 2)


def _ticks(most: int) -> list[tuple[float, str]]:
    """Return where powers of ten lie, and what they are called in few letters: 1, 10, 100, 1k, ... 1M."""
    decades = math.floor(math.log10(most))
    powers = range(0, decades + 1, math.ceil((decades + 1) / _MOST_TICKS))
    thousands = [(power, min(power // 3, 4)) for power in powers]
    return [
        (_y(10**power, most), f"{10 ** (power - 3 * group)}{('', 'k', 'M', 'G', 'T')[group]}")
        for power, group in thousands
    ]
