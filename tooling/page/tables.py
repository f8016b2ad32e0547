"""Tables that say what their columns mean and which figures are good or bad."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from sfpp.tooling.page.markup import Html, element, joined
from sfpp.tooling.page.tones import Tone, sign

_STAR = "\u2605"
# From so many columns on a table takes the whole width; a narrow one would have its figures far from its names.
_MANY = 8


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
    """A cell: its text, the figure behind it if it competes for the best of its column, and a small line below."""

    text: Html | str
    value: float | None = None
    tone: Tone = ""
    note: Html | str = ""


@dataclass(frozen=True)
class Row:
    """A row of cells; ``strong`` sets it off from the others, ``follows`` ties it to the one above."""

    cells: Sequence[Cell | str]
    strong: bool = False
    follows: bool = False


def table(
    columns: Sequence[Column],
    rows: Sequence[Row | Sequence[Cell | str]],
    *,
    caption: str,
    tones: Mapping[Tone, str] | None = None,
) -> Html:
    """Return a table whose first column names the rows; a wide one scrolls in its own box.

    Args:
        columns: at least one.
        rows: as many cells in each as there are columns.
        caption: what the table shows.
        tones: what the tones mean here, for the legend below the table; only those that occur are explained.
    """
    filled = [row if isinstance(row, Row) else Row(row) for row in rows]
    cells = [[Cell(cell) if isinstance(cell, str) else cell for cell in row.cells] for row in filled]
    assert all(len(line) == len(columns) for line in cells), f"{len(columns)} columns, rows of {set(map(len, cells))}"
    best = [_best_text(column, [line[index] for line in cells]) for index, column in enumerate(columns)]
    meanings = dict(tones or {})
    body = [_row(row, line, columns, best, meanings) for row, line in zip(filled, cells, strict=True)]
    parts = [element("caption", element("span", caption)), _header(columns), element("tbody", joined(body))]
    grid = element("table", *parts, class_=_classes(wide=len(columns) >= _MANY))
    used = {cell.tone for line in cells for cell in line}
    legend = _legend(columns, {tone: words for tone, words in meanings.items() if tone in used}, starred=any(best))
    # Focusable, as without a mouse only what has the focus can be scrolled.
    box = element("div", grid, class_="scroll", tabindex=0, role="region", aria_label=caption)
    return element("div", box, *legend, class_="table")


def _best_text(column: Column, cells: Sequence[Cell]) -> Html | str | None:
    """Return the text of the best figure, so that figures that look equal are starred alike; None where all do."""
    competing = [(cell.value, cell.text) for cell in cells if cell.value is not None and math.isfinite(cell.value)]
    if not column.best or len({text for _, text in competing}) < 2:
        return None
    choose = max if column.best == "highest" else min
    return choose(competing, key=lambda pair: pair[0])[1]


def _row(
    row: Row,
    cells: Sequence[Cell],
    columns: Sequence[Column],
    best: Sequence[Html | str | None],
    meanings: Mapping[Tone, str],
) -> Html:
    """Return a row, of which the first cell is the name."""
    parts = []
    for index, (cell, column) in enumerate(zip(cells, columns, strict=True)):
        starred = cell.value is not None and cell.text == best[index]
        content = _content(cell, meanings.get(cell.tone, ""), starred=starred)
        if index:
            classes = _classes(number=column.numeric, best=starred, **{cell.tone: bool(cell.tone)})
            parts.append(element("td", *content, class_=classes))
        else:
            parts.append(element("th", *content, scope="row"))
    return element("tr", *parts, class_=_classes(strong=row.strong, follows=row.follows))


def _classes(**names: bool) -> str | None:
    return " ".join(name for name, applies in names.items() if applies) or None


def _content(cell: Cell, meaning: str, *, starred: bool) -> list[Html | str]:
    star = element("span", _STAR, class_="sign best", role="img", aria_label="best", title="best") if starred else ""
    note = element("span", cell.note, class_="note") if cell.note else ""
    return [sign(cell.tone, meaning), star, cell.text, note]


def _header(columns: Sequence[Column]) -> Html:
    titles = element("tr", *(_title(column, is_name=not index) for index, column in enumerate(columns)))
    if not any(column.group for column in columns):
        return element("thead", titles)
    groups = [(name, len(list(members))) for name, members in groupby(columns, key=lambda column: column.group)]
    above = [
        element("th", name, colspan=count, scope="colgroup", class_="group") if name else element("td", colspan=count)
        for name, count in groups
    ]
    return element("thead", element("tr", *above), titles)


def _title(column: Column, *, is_name: bool) -> Html:
    unit = element("span", column.unit, class_="unit") if column.unit else ""
    return element("th", column.title, unit, scope="col", class_=_classes(number=column.numeric and not is_name))


def _legend(columns: Sequence[Column], tones: Mapping[Tone, str], *, starred: bool) -> list[Html]:
    """Return what signs mean and what columns mean, as a list each; nothing if there is nothing to say."""
    signs = [joined([sign(tone, words), words]) for tone, words in tones.items()]
    if starred:
        signs.append(joined([element("span", _STAR, class_="sign best"), "best of its column"]))
    # Columns of several groups may share a title, and then mean the same.
    meanings = {column.title: column.meaning for column in columns if column.meaning}
    named = [joined([element("b", title), ": ", meaning]) for title, meaning in meanings.items()]
    return [
        element("ul", *(element("li", line) for line in lines), class_="legend") for lines in (signs, named) if lines
    ]
