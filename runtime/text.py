"""Text for people: what is safe to show, and columns that stand under each other."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Control characters and halves of surrogate pairs (which a file's name may hold) are no text in UTF-8, and the marks
# that turn the direction of writing can make "exe.gpj" of "jpg.exe".
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def clean_text(text: str) -> str:
    """Return the text with a replacement character for each character that cannot be shown as what it is."""
    return _NO_TEXT.sub("\ufffd", text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the error's type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def aligned(rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> list[str]:
    """Return the lines of a table: the first columns flush left, those behind them, which are numbers, flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [
            text.ljust(width) if index < text_columns else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines
