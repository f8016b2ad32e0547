"""What of a URI may be shown: names, events, warnings and errors end up in logs that many people read."""

from __future__ import annotations

import re
from urllib.parse import unquote

_SECRET = (
    r"user(?:name)?(?:-id|-pw)?|usr|login|pass(?:word|wd|phrase)?|pwd|pw|proxy-(?:id|pw)|token|secret|auth\w*|"
    r"signature|sig|session\w*|cookies?|extra-headers|(?:api|access|stream|private)?[-_]?key"
)
# Some cameras want the password within the path: /user=admin_password=..._channel=1. Where it ends is not told, so all
# that follows goes.
_SECRET_IN_PATH = re.compile(rf"(?i)({_SECRET})=[^/]*")
_SECRET_PROPERTY = re.compile(rf"(?i)(?<![\w-])((?:[\w]+-)*(?:{_SECRET}))(\s*=\s*)(\"[^\"]*\"|'[^']*'|\S+)")
_URI_WITHIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"']+")
# Everything else in a query may be a token by another name.
_HARMLESS_IN_QUERY = re.compile(r"(?:channel|subtype|stream|profile|camera|cam)=\d{1,3}")
_STREAM_KEY_SCHEMES = ("rtmp", "rtmps")
_LONGEST_NAME = 60


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
        return _after_credentials(readable)
    place, _, query = _after_credentials(rest).partition("?")
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


def _after_credentials(rest: str) -> str:
    """Cut off ``user:password@``, also where the password has a ``/``, ``?`` or ``@`` that should have been encoded."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest and ("@" in authority or ":" in authority):
        return rest.rpartition("@")[2]
    return rest
