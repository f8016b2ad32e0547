"""What was written live is not overwritten: a program that a crash has ended is mostly started again at once."""

from __future__ import annotations

from pathlib import Path

from sfpp.runtime.errors import SfppError
from sfpp.runtime.files import free_path, open_number, ordinary_place
from sfpp.runtime.video.events import Event, EventHandler


def keep_older(path: Path, on_event: EventHandler) -> None:
    """Give an existing file of this name another one, ``out.mp4`` -> ``out-1.mp4``, and tell of it; the first free.

    Raises:
        SfppError: it cannot be renamed.
    """
    if not path.is_file() or open_number(path) is not None:
        return
    path = ordinary_place(path)  # the file that a link leads to, and not the link
    kept = free_path(path, first=1)
    try:
        path.rename(kept)
    except OSError as error:
        raise SfppError(
            f"cannot rename the older file {path} to {kept.name} ({error.strerror}); move it away"
        ) from error
    on_event(Event("note", path.name, f"the older file of this name is {kept.name} now"))
