"""Where compiled models are kept from one run to the next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfpp.runtime.files import sha256_of

_KEPT = 16  # models a library; a compiled model is as large as its weights, up to 350 MB


def compiled_models_folder(path: Path, *, library: str, options: Mapping[str, Any]) -> Path | None:
    """Return a folder of its own for what ``library`` makes of the file with these options; None where none can be.

    The folder belongs to the file's content and the options, so that nothing stale is ever used. The libraries' own
    keys are coarser: OpenVINO 2026.4 gives a model compiled for float32 to whoever asks for bfloat16 (and the answer is
    then wrong by far more than bfloat16 is), and TensorRT's provider goes by node names. The 16 used last are kept.
    """
    try:
        root = user_cache() / library
        folder = root / sha256_of([path], prefix=repr(sorted(options.items())).encode())[:32]
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)  # marks it as used last, and fails where the folder belongs to somebody else
        forget_oldest(root, kept=_KEPT)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None
    return folder if os.access(folder, os.W_OK) else None


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
