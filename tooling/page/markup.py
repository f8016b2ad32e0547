"""Markup that cannot be broken by what is written into it: every element of a page is made here."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sfpp.runtime.text import clean_text

_NAMES = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_WITHOUT_CONTENT = {"br", "img", "meta", "wbr"}


@dataclass(frozen=True)
class Html:
    """A piece of finished markup; a plain string, in contrast, is text that still has to be escaped."""

    text: str


def element(tag: str, *children: Html | str, **attributes: str | int | float | None) -> Html:
    """Return one element.

    Args:
        tag: its name.
        children: what is in it; strings are escaped.
        attributes: an underscore stands for a hyphen (``aria_label``), one at the end is dropped (``class_``), and None
            leaves the attribute out.
    """
    written = "".join(_attribute(name, value) for name, value in attributes.items() if value is not None)
    assert _NAMES.fullmatch(tag), tag
    if tag in _WITHOUT_CONTENT:
        assert not children, tag
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(children).text}</{tag}>")


def joined(parts: Iterable[Html | str], *, separator: Html | str = "") -> Html:
    """Return parts one after the other; strings are escaped."""
    return Html(_escaped(separator).join(map(_escaped, parts)))


def _escaped(part: Html | str) -> str:
    return part.text if isinstance(part, Html) else html.escape(clean_text(part))


def _attribute(name: str, value: str | float) -> str:
    written_name = name.rstrip("_").replace("_", "-")
    assert _NAMES.fullmatch(written_name), name
    # Two decimals are a hundredth of a pixel, and the same on every machine.
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {written_name}="{html.escape(clean_text(text))}"'
