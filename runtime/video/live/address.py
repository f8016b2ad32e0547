"""The grammar of the URIs: scheme, place, and options that are parsed strictly where the scheme is ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

from sfpp.runtime.errors import UsageError, did_you_mean
from sfpp.runtime.video.live.credentials import name_from, without_credentials

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LARGEST_DENOMINATOR = 1001  # that of the NTSC rates: 30000/1001, 24000/1001
_HIGHEST_RATE = 1000
_LARGEST_SIDE = 16384


@dataclass(frozen=True)
class Address:
    """A URI taken apart.

    Attributes:
        scheme: in lower case.
        place: what lies between ``://`` and the query, as given.
        query: the parts of the query as given, in order.
        shown: the URI as it may be shown.
        name: a name made of it, for files and log lines.
    """

    scheme: str
    place: str = field(repr=False)
    query: tuple[str, ...] = field(repr=False)
    shown: str
    name: str


def is_uri(text: str) -> bool:
    """Whether the text begins like a URI."""
    return _SCHEME.match(text) is not None


def address_from(text: str) -> Address:
    """Take a URI apart; a gst:// pipeline may hold question marks, so all of it is the place.

    Raises:
        UsageError: it does not begin with a scheme.
    """
    found = _SCHEME.match(text)
    if found is None:
        raise UsageError(f"{without_credentials(text)} is no URI; expected something like rtsp://host/path")
    scheme, rest = found.group(1).lower(), text[found.end() :]
    place, query = (rest, "") if scheme == "gst" else rest.partition("?")[::2]
    parts = tuple(part for part in query.split("&") if part)
    return Address(scheme, place, parts, without_credentials(text), name_from(text))


class Options:
    """The options of a URI, read one by one.

    Args:
        address: the URI.
        known: the names that may occur.
        example: a URI that is right, for messages.
        strict: whether any other name is an error; without it, others are somebody else's.

    Raises:
        UsageError: an option that is unknown, or given twice.
    """

    def __init__(self, address: Address, *, known: Sequence[str], example: str, strict: bool = True) -> None:
        self._address = address
        self._example = example
        self._given: dict[str, str] = {}
        for part in address.query:
            name, _, value = part.partition("=")
            if name in self._given:
                raise UsageError(f"{address.shown}: {name} is given twice; leave one out")
            if name in known:
                self._given[name] = unquote(value)
            elif strict:
                takes = f"{address.scheme}:// takes {', '.join(known)}"
                raise UsageError(
                    f"{address.shown}: there is no option {name!r}{did_you_mean(name, known)}; {takes}, as in {example}"
                )

    def text(self, name: str, default: str | None = None) -> str | None:
        """Return the option as it was given."""
        return self._given.get(name, default)

    def integer(self, name: str, default: int | None, *, least: int = 1, most: int = _LARGEST_SIDE) -> int | None:
        """Return a whole number within bounds; UsageError otherwise."""
        text = self._given.get(name)
        if text is None:
            return default
        # isdecimal alone takes Arabic digits for digits, which int understands, and the reader of a message may not.
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise self._wrong(name, f"a whole number from {least} to {most}")
        return int(text)

    def side(self, name: str) -> int | None:
        """Return a width or height in pixels, None if it was not given; UsageError otherwise."""
        return self.integer(name, None)

    def rate(self, name: str, default: Fraction | None = None) -> Fraction | None:
        """Return frames a second, given as 30, 29.97 or 30000/1001; UsageError otherwise."""
        text = self._given.get(name)
        if text is None:
            return default
        try:
            rate = Fraction(text).limit_denominator(_LARGEST_DENOMINATOR)
        except (ValueError, ZeroDivisionError):
            rate = Fraction(0)
        if not 0 < rate <= _HIGHEST_RATE:
            raise self._wrong(name, f"frames a second above 0 and up to {_HIGHEST_RATE}, such as 30 or 30000/1001")
        return rate

    def seconds(self, name: str, default: float) -> float:
        """Return a time above 0 and of at most an hour; UsageError otherwise."""
        text = self._given.get(name)
        if text is None:
            return default
        if not re.fullmatch(r"\d{1,4}(\.\d+)?", text, re.ASCII) or not 0 < float(text) <= 3600:
            raise self._wrong(name, "seconds above 0, such as 5")
        return float(text)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return an option that is 1 or 0; UsageError otherwise."""
        return self.choice(name, ("0", "1"), str(int(default))) == "1"

    def choice(self, name: str, known: Sequence[str], default: str) -> str:
        """Return one of some words; UsageError otherwise."""
        text = self._given.get(name, default)
        if text not in known:
            raise self._wrong(name, " or ".join(known), did_you_mean(text, known))
        return text

    def required(self, name: str, value: Any) -> Any:
        """Return the value; UsageError if the option was not given."""
        if value is None:
            raise UsageError(f"{self._address.shown}: {name}= is missing; expected something like {self._example}")
        return value

    def _wrong(self, name: str, expected: str, hint: str = "") -> UsageError:
        given = self._given.get(name, "")
        return UsageError(
            f"{self._address.shown}: {name} is {given!r}{hint}; expected {expected}, as in {self._example}"
        )
