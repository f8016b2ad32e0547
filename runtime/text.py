"""Text for people: what is safe to show, and columns that stand under each other."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Control characters and halves of surrogate pairs (which a file's name may hold) are no text in UTF-8, and the marks
# that turn the direction of writing can make "exe.gpj" of "jpg.exe". A return without a line feed writes over the line.
_NO_TEXT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]|\r(?!\n)"
)
# What a value is called, in an address or a pipeline, that opens a camera or a server to whoever reads it.
SECRET = (
    r"user(?:name)?(?:-id|-pw)?|usr|login|pass(?:word|wd|phrase)?|pwd|pw|proxy-(?:id|pw)|token|secret|auth\w*|"
    r"signature|sig|session\w*|cookies?|extra-headers|(?:api|access|stream|private)?[-_]?key"
)
# An address within a message: pathlib leaves one slash of two, and a password may hold a space or a quote; what follows
# the colon is none where it is a port, or the colon an IPv6 address's.
_PORT = r"\d{1,5}(?:[/?#\s,;)\]]|[\"'>](?![^\s,;:.)\]}])|$)"
_ADDRESS = re.compile(
    r"(?<![\w+.-])([A-Za-z][A-Za-z0-9+.-]+:/{1,2})"
    rf"((?:(?!\[[\da-fA-F:.]+(?:%[\w.-]+)?\])[^\s/@:]+:(?!{_PORT}|[/\s])(?:(?!:/)[^@\n]){{1,100}}@)?[^\s\"'<>]+)"
)
_SECRET_VALUE = re.compile(rf"(?i)((?:{SECRET})=)[^/&;#]*")
# Also of the end of an address; and of a pipeline, whose values may be quoted.
_SECRET_IN_QUERY = re.compile(rf"(?i)([?&\s](?:{SECRET})=)(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s&;#\"']+)")


def clean_text(text: str) -> str:
    """Return the text with a replacement character for each character that cannot be shown as what it is."""
    return _NO_TEXT.sub("\ufffd", text)


def escaped_in_json(text: str) -> str:
    """Return JSON that says the same, and in which each character that cannot be shown is an escape."""
    return _NO_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def without_secrets(text: str, *, values: bool = True) -> str:
    """Return a message without the users and passwords of the addresses in it, and their values named like secrets.

    Args:
        text: any, with no address or with several.
        values: whether values, such as ``?token=...``, are hidden too.
    """

    def shown(found: re.Match[str]) -> str:
        rest = after_credentials(found[2])
        return found[1] + (_SECRET_VALUE.sub(r"\1***", rest) if values else rest)

    if ":/" in text:
        text = _ADDRESS.sub(shown, text)
    return _SECRET_IN_QUERY.sub(r"\1***", text) if values else text


def after_credentials(rest: str) -> str:
    """Cut off ``user:password@``, also where the password has a ``/``, ``?`` or ``@`` that should have been encoded."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest and ("@" in authority or ":" in authority):
        return rest.rpartition("@")[2]
    return rest


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
