"""URIs of sources: their grammar, their options, and what of them may be shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

from sfpp.runtime.errors import UsageError, did_you_mean
from sfpp.runtime.text import SECRET, after_credentials

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LARGEST_DENOMINATOR = 1001  # that of the NTSC rates: 30000/1001, 24000/1001
_HIGHEST_RATE = 1000
_LARGEST_SIDE = 16384
# Some cameras want the password within the path: /user=admin_password=..._channel=1. Where it ends is not told, so all
# that follows goes.
_SECRET_IN_PATH = re.compile(rf"(?i)({SECRET})=[^/]*")
_SECRET_PROPERTY = re.compile(rf"(?i)(?<![\w-])((?:[\w]+-)*(?:{SECRET}))(\s*=\s*)(\"[^\"]*\"|'[^']*'|\S+)")
_URI_WITHIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"']+")
# Everything else in a query may be a token by another name.
_HARMLESS_IN_QUERY = re.compile(r"(?:channel|subtype|stream|profile|camera|cam)=\d{1,3}")
_STREAM_KEY_SCHEMES = ("rtmp", "rtmps")
_LONGEST_NAME = 60


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

    def integer(
        self, name: str, default: int | None = None, *, least: int = 1, most: int = _LARGEST_SIDE
    ) -> int | None:
        """Return a whole number within bounds; UsageError otherwise."""
        text = self._given.get(name)
        if text is None:
            return default
        if not (re.fullmatch(r"[0-9]{1,18}", text) and least <= int(text) <= most):
            raise self._wrong(name, f"a whole number from {least} to {most}")
        return int(text)

    def rate(self, name: str, default: Fraction | None = None) -> Fraction | None:
        """Return frames a second, given as 30, 29.97 or 30000/1001; UsageError otherwise."""
        text = self._given.get(name)
        if text is None:
            return default
        # A Fraction takes 1e999999999 as well, and for ever.
        is_rate = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}|/0*[1-9][0-9]{0,8})?", text)
        rate = Fraction(text).limit_denominator(_LARGEST_DENOMINATOR) if is_rate else Fraction(0)
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


def without_credentials(uri: str) -> str:
    """Return the URI as it may be shown: without user, password, and all of its query that could be a token.

    What it cannot tell for sure it leaves out: a password with ``/`` or ``?`` in it may take the host along. Of rtmp://
    only the application is kept, since what follows is often the key. A gst:// pipeline keeps its elements, with the
    URIs in it treated alike. Text that is no URI loses what precedes an ``@``, if that has a colon.
    """
    readable = re.sub(r"[\x00-\x1f\x7f]", "", uri)
    scheme, separator, rest = readable.partition("://")
    if separator and scheme.lower() == "gst":
        return f"{scheme}://{pipeline_without_credentials(unquote(rest))}"
    if not separator:
        return after_credentials(readable)
    place, _, query = after_credentials(rest).partition("?")
    place = _SECRET_IN_PATH.sub(r"\1=***", place.partition("#")[0])
    if scheme.lower() in _STREAM_KEY_SCHEMES:
        place = "/".join(place.split("/")[:2])
    harmless = [part for part in query.split("&") if _HARMLESS_IN_QUERY.fullmatch(part)]
    return f"{scheme}://{place}{'?' * bool(harmless)}{'&'.join(harmless)}"


def pipeline_without_credentials(pipeline: str) -> str:
    """Return a GStreamer pipeline as it may be shown."""
    cleaned = _URI_WITHIN.sub(lambda found: without_credentials(found.group()), pipeline)
    return _SECRET_PROPERTY.sub(r"\1\2***", cleaned)


def name_from(uri: str) -> str:
    """Return a short name for files and log lines: ``rtsp://user:secret@10.0.0.5/street`` is ``rtsp-10-0-0-5-street``.

    Letters, digits, hyphens and underscores only, 60 at most; no dots, after which a suffix would be sought.
    """
    words = re.sub(r"[^\w]+", "-", without_credentials(uri)).strip("-_")
    return words[:_LONGEST_NAME].rstrip("-_") or "source"
