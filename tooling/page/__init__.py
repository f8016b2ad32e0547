"""Reports as one HTML page that needs nothing but itself: it opens from a disk, in a mail and on a phone, and prints.

Everything is a block, made by a function of this package, and a page is blocks under headings:

    page = Page("Calibration of model.onnx", subtitle="SegFormer B0")
    page.add(headline("Use INT8 here", "It is twice as fast and loses 0.3 points."))
    page.section("Files").add(table([Column("file"), Column("size", "MB")], [["a.onnx", "14.9"]], caption="Files"))
    page.write("report.html")

A plain string is always text and never markup, wherever it is given: names of files and classes may be hostile.
"""

from __future__ import annotations

from sfpp.tooling.page.bar_charts import Bar, bars
from sfpp.tooling.page.blocks import Tile, bullets, chip, code, facts, folded, headline, notice, paragraph, tiles
from sfpp.tooling.page.document import Page, Section
from sfpp.tooling.page.histograms import histogram
from sfpp.tooling.page.markup import Html, element, joined
from sfpp.tooling.page.pictures import gallery, picture
from sfpp.tooling.page.tables import Cell, Column, Row, table
from sfpp.tooling.page.tones import Tone

__all__ = [
    "Bar",
    "Cell",
    "Column",
    "Html",
    "Page",
    "Row",
    "Section",
    "Tile",
    "Tone",
    "bars",
    "bullets",
    "chip",
    "code",
    "element",
    "facts",
    "folded",
    "gallery",
    "headline",
    "histogram",
    "joined",
    "notice",
    "paragraph",
    "picture",
    "table",
    "tiles",
]
