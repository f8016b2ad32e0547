"""The token that opens the page: made, or given by an argument, a file or the environment."""

from __future__ import annotations

import logging
import os
import re
import secrets
import stat
from pathlib import Path

from sfpp.runtime.errors import UsageError

VARIABLE = "SFPP_TOKEN"
# What needs no quoting, in an address or in a cookie.
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,256}")
_MOST_BYTES = 1024
_LOGGER = logging.getLogger("sfpp")


def new_token() -> str:
    """Return a token that cannot be guessed."""
    return secrets.token_urlsafe(32)


def token_given(token: str | None, token_file: str | os.PathLike[str] | None) -> str | None:
    """Return the token itself, else the one in the file, else that of the variable ``SFPP_TOKEN``, else None.

    A file that other users may read is used all the same, since that is how containers are handed their secrets, and a
    warning is logged.

    Raises:
        UsageError: both are given, the file cannot be read, or the token is not fit; the message does not show it.
    """
    if token is not None and token_file is not None:
        raise UsageError("a token and a file with one are given; leave one of them out")
    if token is not None:
        return _checked(token, "the token")
    if token_file is not None:
        return _checked(_read(Path(token_file)), f"the token in {token_file}")
    named = os.environ.get(VARIABLE)
    return None if named is None else _checked(named.strip(), f"the token in {VARIABLE}")


def _checked(token: str, what: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            f"{what} has {len(token)} characters; expected 16 to 256 letters, digits or . _ ~ -: "
            "leave it out, and a good one is made"
        )
    return token


def _read(path: Path) -> str:
    """Return what a file, or a pipe, holds: a line."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_MOST_BYTES)
    except OSError as error:
        raise UsageError(f"the token's file {path} cannot be read ({error.strerror}); give one that can") from error
    # Windows tells by other means who may read a file.
    if os.name == "posix" and stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        _LOGGER.warning("warning: other users of this machine may read the token in %s; chmod 600 keeps it", path)
    return data.decode("utf-8-sig", "replace").strip()
