"""How much of what comes from outside is taken before it is refused; an environment variable sets each limit anew."""

from __future__ import annotations

import os
from types import MappingProxyType

from sfpp.runtime.errors import UsageError

# What is above a limit is a mistake or an attack on every machine that we know of; who means it sets SFPP_MAX_NAME.
DEFAULTS = MappingProxyType(
    {
        "PIXELS": 2**28,  # of a picture: 16384x16384
        "ARRAY_BYTES": 2**30,  # of an .npz, unpacked: keypoints of some million people
        # Of the page in the browser: pages, connections of who may look, and of who has not shown that yet.
        "PAGES": 64,
        "CONNECTIONS": 192,
        "STRANGERS": 128,
        "STRANGERS_PER_ADDRESS": 64,
        "KEPT_BYTES": 2**25,  # of drawn views
    }
)
_PREFIX = "SFPP_MAX_"


def limit(name: str) -> int:
    """Return a limit by its name in :data:`DEFAULTS`: what ``SFPP_MAX_NAME`` says, else the default.

    Raises:
        UsageError: the variable holds no whole number above 0.
    """
    text = os.environ.get(_PREFIX + name, "").strip()
    if not text:
        return DEFAULTS[name]
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 and int(text)):
        raise UsageError(f"{_PREFIX}{name} is {text[:40]!r}; give a whole number above 0, or unset it")
    return int(text)


def advice(name: str) -> str:
    """Return the end of a message about what is above the limit: how that is set."""
    return f"set {_PREFIX}{name} to more if it is meant"
