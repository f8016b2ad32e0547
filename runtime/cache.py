"""Where compiled models, and what else need not be made twice, are kept from one run to the next."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfpp.runtime.files import sha256_of

_LOGGER = logging.getLogger("sfpp")
_HAS_OWNERS = hasattr(os, "geteuid")
_KEPT = 16  # models a library; a compiled model is as large as its weights, up to 350 MB


def compiled_models_folder(path: Path, *, library: str, options: Mapping[str, Any]) -> Path | None:
    """Return a folder of its own for what ``library`` makes of the file with these options; None where none can be.

    The folder belongs to the file's content and the options, so that nothing stale is ever used. The libraries' own
    keys are coarser: OpenVINO 2026.4 gives a model compiled for float32 to whoever asks for bfloat16 (and the answer is
    then wrong by far more than bfloat16 is), and TensorRT's provider goes by node names. The 16 used last are kept.
    """
    root = cache_folder(library)
    if root is None:
        return None
    try:
        folder = root / sha256_of([path], prefix=repr(sorted(options.items())).encode())[:32]
        if not _is_own_folder(folder) or not all(map(is_own, folder.rglob("*"))):
            return None
        os.utime(folder)  # marks it as used last, and fails where the folder belongs to somebody else
        forget_oldest(root, kept=_KEPT)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def cache_folder(kind: str) -> Path | None:
    """Return one of the folders in the user's cache; None where none can be, or where others could put something there.

    What lies there is believed: a compiled model is run in place of the file that was given.
    """
    try:
        folder = user_cache() / kind
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        return folder if _is_own_folder(folder.parent) and _is_own_folder(folder) else None
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None


def _is_own_folder(folder: Path) -> bool:
    """Make a folder that is missing; return whether only this user, and root, could have put something into it.

    As ssh is of its keys, we are strict about groups: who else is in one, no program can tell.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    mode = folder.stat().st_mode
    # Where the sticky bit is set, as on /tmp, others may add what is theirs, which is then seen; and remove nothing.
    is_open = _HAS_OWNERS and mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX
    if is_open:
        _say_unused(folder, "others may write to it")
    return not is_open and is_own(folder, through_links=True)


def is_own(path: Path, *, through_links: bool = False) -> bool:
    """Whether a file or folder is this user's or root's; of one that is not, a warning is logged, once.

    Args:
        path: of a file or folder that is there.
        through_links: ask of what a link leads to; else of the link, since who placed it decides what is read.

    Raises:
        OSError: it is gone.
    """
    if not _HAS_OWNERS or path.stat(follow_symlinks=through_links).st_uid in (0, os.geteuid()):
        return True
    _say_unused(path, "it belongs to another user")
    return False


@functools.cache
def _say_unused(path: Path, reason: str) -> None:
    _LOGGER.warning(
        f"warning: nothing is kept in {path} or read from it: {reason}; remove it, or set SFPP_CACHE to a folder that "
        "nobody else can write to",
        extra={"printed": True},
    )


def user_cache() -> Path:
    """Return ``SFPP_CACHE``, else sfpp's place in the folder that the system has for such files."""
    if own := os.environ.get("SFPP_CACHE"):
        return Path(own)
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "sfpp" / "cache"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules say to ignore a relative path.
    return (Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache") / "sfpp"


def forget_oldest(root: Path, *, kept: int) -> None:
    """Remove all files and folders in a folder but those that were changed last.

    Raises:
        OSError: another process has removed one meanwhile.
    """
    for each in sorted(root.iterdir(), key=lambda each: each.stat().st_mtime_ns)[:-kept]:
        if each.is_dir():
            # Another process may use it: where that forbids removal, it goes next time.
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)
