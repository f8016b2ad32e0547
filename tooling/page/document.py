"""The page itself: a title, blocks, and sections with headings of their own."""

from __future__ import annotations

import os

from sfpp.runtime.files import whole_file
from sfpp.tooling.page.markup import Html, element, joined
from sfpp.tooling.page.style import STYLE

# Nothing is ever fetched or run, whatever somebody manages to write into a page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# With fewer sections, a list of them is longer than the way to them.
_SECTIONS_WORTH_A_LIST = 4
_LINE = Html("\n")


class Section:
    """Blocks under a heading."""

    def __init__(self, heading: str, *, level: int, anchor: str) -> None:
        self.heading = heading
        self.anchor = anchor
        self._level = level
        self._blocks: list[Html | Section] = []

    def add(self, *blocks: Html) -> None:
        """Append blocks, in their order."""
        self._blocks += blocks

    def section(self, heading: str) -> Section:
        """Append a section one level below, and return it to be filled."""
        count = sum(isinstance(block, Section) for block in self._blocks)
        section = Section(heading, level=self._level + 1, anchor=f"{self.anchor}-{count + 1}")
        self._blocks.append(section)
        return section

    def html(self) -> Html:
        """Return the section as markup."""
        blocks = [block.html() if isinstance(block, Section) else block for block in self._blocks]
        heading = element(f"h{self._level}", self.heading)
        return element("section", joined([heading, *blocks], separator=_LINE), id=self.anchor)


class Page:
    """A page to be filled with blocks and sections.

    Args:
        title: of the page, as its first heading too.
        subtitle: a line below it.
        footer: a line at the end.
        language: of the text, as a code such as ``en``.
    """

    def __init__(self, title: str, *, subtitle: str = "", footer: str = "", language: str = "en") -> None:
        self._title = title
        self._subtitle = subtitle
        self._footer = footer
        self._language = language
        self._blocks: list[Html] = []
        self._sections: list[Section] = []

    def add(self, *blocks: Html) -> None:
        """Append blocks before the first section."""
        self._blocks += blocks

    def section(self, heading: str) -> Section:
        """Append a section, and return it to be filled."""
        section = Section(heading, level=2, anchor=f"section-{len(self._sections) + 1}")
        self._sections.append(section)
        return section

    def html(self) -> str:
        """Return the whole page; the same text for the same blocks."""
        parts = [self._header(), *self._blocks, self._contents(), *(each.html() for each in self._sections)]
        body = [element("main", joined(parts, separator=_LINE))]
        if self._footer:
            body.append(element("footer", element("p", self._footer)))
        page = element("html", self._head(), element("body", joined(body, separator=_LINE)), lang=self._language)
        return f"<!doctype html>\n{page.text}\n"

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all.

        Raises:
            SfppError: the folder does not exist, or the disk is full.
        """
        # Encoded here: in text mode Windows would write other line ends, and with them another file.
        encoded = self.html().encode("utf-8")
        with whole_file(path) as temporary:
            temporary.write_bytes(encoded)

    def _head(self) -> Html:
        parts = [
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", self._title),
            element("style", Html(STYLE)),
        ]
        return element("head", joined(parts, separator=_LINE))

    def _header(self) -> Html:
        subtitle = [element("p", self._subtitle, class_="subtitle")] if self._subtitle else []
        return element("header", element("h1", self._title), *subtitle)

    def _contents(self) -> Html:
        if len(self._sections) < _SECTIONS_WORTH_A_LIST:
            return Html("")
        links = [element("a", each.heading, href=f"#{each.anchor}") for each in self._sections]
        return element("nav", joined(links, separator=" "), aria_label="Sections")
