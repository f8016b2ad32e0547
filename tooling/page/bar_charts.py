"""Bars as vectors in a table: their text is the page's own, so it wraps, and can be searched, copied and read aloud."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sfpp.tooling.page.blocks import chip
from sfpp.tooling.page.markup import Html, element, joined


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: what it is of.
        value: its length.
        text: the figure with its unit.
        more: other figures, one for each further column.
        tag: a word that sets it off from the others, together with a second color.
    """

    label: Html | str
    value: float | None
    text: str
    more: Sequence[str] = ()
    tag: str = ""


def bars(
    entries: Sequence[Bar],
    *,
    caption: str,
    label: str,
    value: str,
    more: Sequence[str] = (),
    largest: float | None = None,
) -> Html:
    """Return horizontal bars from zero on, as a table of labels, bars and figures.

    Args:
        entries: the bars, from the top; one without a finite value above 0 has no length.
        caption: what the chart shows.
        label: what the labels are.
        value: what the figures are, with their unit.
        more: what the further figures are.
        largest: the value of a bar as long as the chart; by default the largest of the entries.
    """
    limit = _length(largest) or max((_length(entry.value) for entry in entries), default=0.0) or 1.0
    numbers = [element("th", title, scope="col", class_="number") for title in (value, *more)]
    titles = [element("th", label, scope="col"), element("td"), *numbers]
    rows = [_bar(entry, limit, columns=len(more)) for entry in entries]
    grid = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", element("tr", *titles)),
        element("tbody", joined(rows)),
        class_="bars",
        # On a phone each row becomes a grid, which has to know its columns.
        style=f"--numbers: {1 + len(more)}",
    )
    return element("div", grid, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _bar(entry: Bar, limit: float, *, columns: int) -> Html:
    assert len(entry.more) == columns, f"{len(entry.more)} further figures, expected {columns}"
    share = min(1.0, _length(entry.value) / limit)
    # A vector rather than a background: browsers leave backgrounds out when they print.
    drawn = element("rect", width=f"{100 * share:.2f}%", height="100%", class_="tagged" if entry.tag else None)
    tag = joined([" ", chip(entry.tag)]) if entry.tag else ""
    cells = [
        element("th", entry.label, tag, scope="row"),
        element("td", element("svg", drawn, aria_hidden="true"), class_="bar"),
        element("td", entry.text, class_="number"),
        *(element("td", figure, class_="number muted") for figure in entry.more),
    ]
    return element("tr", *cells)


def _length(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) and value > 0 else 0.0
