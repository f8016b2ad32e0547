"""What a figure means to the reader, as a color and, for those who do not see it, as a sign."""

from __future__ import annotations

from typing import Literal

from sfpp.tooling.page.markup import Html, element

Tone = Literal["", "good", "warn", "bad", "muted"]

_SIGNS: dict[Tone, str] = {"good": "\u2713", "warn": "!", "bad": "\u2717"}
_WORDS: dict[Tone, str] = {"good": "good", "warn": "caution", "bad": "bad"}


def sign(tone: Tone, meaning: str = "") -> Html:
    """Return the sign of a tone, read aloud as its meaning; nothing for a tone that only sets something back."""
    if tone not in _SIGNS:
        return Html("")
    words = meaning or _WORDS[tone]
    return element("span", _SIGNS[tone], class_=f"sign {tone}", role="img", aria_label=words, title=words)
