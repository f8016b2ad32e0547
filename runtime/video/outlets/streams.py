"""Bytes to standard output, files and pipes, as they come."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from sfpp.runtime.files import open_special

STANDARD_OUTPUT = "-"


@contextlib.contextmanager
def open_stream(target: str) -> Iterator[io.FileIO]:
    """Open standard output (``-``) or a path for bytes, unbuffered: what is written is written.

    A file is emptied; what is none is opened by :func:`sfpp.runtime.files.open_special`.

    Raises:
        SfppError: it is a disk or a socket.
        OSError: it cannot be opened, or nobody reads the pipe.
    """
    if target != STANDARD_OUTPUT:
        path = Path(target)
        with open_special(path) or path.open("wb", buffering=0) as file:
            yield file
        return
    sys.stdout.flush()  # what was printed before comes first
    # A handle of its own: when the reader goes away, Python's own standard output has nothing left to complain of.
    with os.fdopen(os.dup(1), "wb", buffering=0) as file:
        yield file
