"""Bytes to standard output, files and pipes, as they come."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

STANDARD_OUTPUT = "-"
_PATIENCE_S = 10.0
_HEARING_S = 0.05


@contextlib.contextmanager
def open_stream(target: str) -> Iterator[io.FileIO]:
    """Open standard output (``-``) or a path for bytes, unbuffered: what is written is written.

    A file is emptied. A named pipe (FIFO) waits for somebody who reads it, though not for ever.

    Raises:
        OSError: it cannot be opened, or nobody reads the pipe.
    """
    if target != STANDARD_OUTPUT:
        path = Path(target)
        with _open_pipe(path) if path.is_fifo() else path.open("wb", buffering=0) as file:
            yield file
        return
    sys.stdout.flush()  # what was printed before comes first
    # A handle of its own: when the reader goes away, Python's own standard output has nothing left to complain of.
    with os.fdopen(os.dup(1), "wb", buffering=0) as file:
        yield file


def _open_pipe(path: Path) -> io.FileIO:
    # An ordinary opening waits within the system, where no wish to stop is heard.
    deadline_s = time.monotonic() + _PATIENCE_S
    while (pipe := _open_if_read(path)) is None:
        if time.monotonic() > deadline_s:
            raise OSError(errno.ENXIO, "nobody reads this pipe")
        time.sleep(_HEARING_S)
    return pipe


def _open_if_read(path: Path) -> io.FileIO | None:
    try:
        number = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
    os.set_blocking(number, True)
    return io.FileIO(number, "w")


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
