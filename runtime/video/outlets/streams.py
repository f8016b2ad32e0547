"""Bytes to standard output, files and pipes, as they come."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

STANDARD_OUTPUT = "-"


@contextlib.contextmanager
def open_stream(target: str) -> Iterator[io.FileIO]:
    """Open standard output (``-``) or a path for bytes, unbuffered: what is written is written.

    A file is emptied. A named pipe (FIFO) waits until somebody opens its other end.

    Raises:
        OSError: it cannot be opened.
    """
    if target != STANDARD_OUTPUT:
        with Path(target).open("wb", buffering=0) as file:
            yield file
        return
    sys.stdout.flush()  # what was printed before comes first
    # A handle of its own: when the reader goes away, Python's own standard output has nothing left to complain of.
    with os.fdopen(os.dup(1), "wb", buffering=0) as file:
        yield file


def write_all(stream: io.FileIO, data: bytes | memoryview) -> None:
    """Write all of it; a pipe may take less at a time.

    Raises:
        BrokenPipeError: the reader has gone.
        OSError: the disk is full, or similar.
    """
    rest = memoryview(data).cast("B")
    while rest:
        # None is "not now", from a pipe that its other end has made non-blocking.
        rest = rest[stream.write(rest) or 0 :]
