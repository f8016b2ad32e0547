"""A line of JSON for each frame, readable while it is written."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError
from sfpp.runtime.files import check_destinations, write_all
from sfpp.runtime.video.events import Event, EventHandler, ignore
from sfpp.runtime.video.frames import Frame
from sfpp.runtime.video.outlets.older_files import keep_older
from sfpp.runtime.video.outlets.records import FrameRecord, frame_record
from sfpp.runtime.video.outlets.streams import STANDARD_OUTPUT, open_stream

RECORD_SUFFIX = ".jsonl"


@contextlib.contextmanager
def record_lines(
    target: str | os.PathLike[str], *, live: bool = False, on_event: EventHandler = ignore
) -> Iterator[RecordLines]:
    """Write records into a file, or to standard output.

    A line can be read as soon as it is written (``tail -f``), and stays whatever ends the program; so the file is under
    its own name from the beginning on. A reader of standard output or of a pipe that goes away ends the lines, with an
    event, and not the program.

    Args:
        target: a file's name, or ``-`` for standard output.
        live: rename an older file of this name rather than empty it.
        on_event: told when the reader has gone, and of an older file's new name.

    Raises:
        SfppError: the folder does not exist, or the file cannot be written.
    """
    place = os.fspath(target)
    name = "standard output" if place == STANDARD_OUTPUT else Path(place).name
    if place != STANDARD_OUTPUT:
        check_destinations(place)
        if live:
            keep_older(Path(place), on_event)
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(open_stream(place))
        except OSError as error:
            raise MediaError(f"cannot write {place}: {error.strerror}; give another place") from error
        yield RecordLines(None if place == STANDARD_OUTPUT else Path(place), stream, name=name, on_event=on_event)


class RecordLines:
    """Writes one line a frame; use it through :func:`record_lines`.

    As a sink for pictures it writes which frames came and when; what was seen in them is in the records.
    """

    def __init__(self, path: Path | None, stream: io.FileIO, *, name: str, on_event: EventHandler) -> None:
        self.path = path
        self._stream = stream
        self._name = name
        self._on_event = on_event
        self._ended = False

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Write the record of a frame of which only the picture is known; the picture itself is not written.

        Raises:
            MediaError: the disk is full, or similar.
        """
        self.write_record(frame_record(frame))

    def write_record(self, record: FrameRecord) -> None:
        """Write a line.

        Raises:
            MediaError: the disk is full, or similar.
        """
        if self._ended:
            return
        # A source's name may hold bytes that are no text; JSON has the same escapes as Python for them.
        line = (record.to_json() + "\n").encode("utf-8", errors="backslashreplace")
        try:
            write_all(self._stream, line)
        except BrokenPipeError:
            self._ended = True
            self._on_event(Event("ended", self._name, "nobody reads the lines any more"))
        except OSError as error:
            raise MediaError(f"cannot write {self._name}: {error.strerror}; make room or give another place") from error
