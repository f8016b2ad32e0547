"""Blocks of text and figures: what a page is made of besides tables, charts and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sfpp.tooling.page.markup import Html, element, joined
from sfpp.tooling.page.tones import Tone, sign


@dataclass(frozen=True)
class Tile:
    """A key figure: what it is, the figure with its unit, and a line about it."""

    name: str
    value: str
    note: str = ""


def paragraph(*parts: Html | str, tone: Tone = "") -> Html:
    """Return a paragraph of text and inline markup."""
    return element("p", *parts, class_=tone or None)


def headline(text: str, *reasons: Html | str) -> Html:
    """Return the page's main finding in large letters, and why."""
    paragraphs = [element("p", reason) for reason in reasons]
    return element("div", element("p", text, class_="finding"), *paragraphs, class_="headline")


def notice(text: str, *details: Html | str, tone: Tone) -> Html:
    """Return something that the reader must not miss: a sentence in bold, and more about it."""
    head = element("p", sign(tone), element("strong", text))
    return element("div", head, *(element("p", detail) for detail in details), class_=f"notice {tone}", role="note")


def tiles(entries: Iterable[Tile]) -> Html:
    """Return key figures side by side."""
    return element("dl", *(_tile(entry) for entry in entries), class_="tiles")


def _tile(entry: Tile) -> Html:
    note = [element("dd", entry.note, class_="muted")] if entry.note else []
    return element("div", element("dt", entry.name), element("dd", entry.value, class_="figure"), *note)


def facts(pairs: Iterable[tuple[str, Html | str]]) -> Html:
    """Return names and what they are, one a line."""
    lines = [element("div", element("dt", name), element("dd", value)) for name, value in pairs]
    return element("dl", *lines, class_="facts")


def bullets(items: Sequence[Html | str]) -> Html:
    """Return a list."""
    return element("ul", *(element("li", item) for item in items))


def folded(summary: str, *blocks: Html) -> Html:
    """Return blocks that show when the summary is clicked, and in print."""
    return element("details", element("summary", summary), joined(blocks))


def code(text: str) -> Html:
    """Return a name as it stands in a file, in a font of equal widths; it may be broken where its parts meet."""
    # Where nothing else is said, browsers break such names anywhere or not at all.
    parts = re.split(r"(?<=\w[/_:])(?=\w)", text)
    return element("code", joined(parts, separator=element("wbr")))


def chip(text: str, tone: Tone = "") -> Html:
    """Return a small label for a word beside a name."""
    return element("span", text, class_=f"chip {tone}".strip())
