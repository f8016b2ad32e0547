"""Frames as bare bytes, for a program that reads them from a pipe."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.events import Event, EventHandler, ignore
from sfpp.runtime.files import check_destinations, made_folder, open_special, write_all
from sfpp.runtime.images import bgr_from_frame, with_even_sides
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.video.frame import Frame
from sfpp.runtime.video.sinks.fitting import FirstSize
from sfpp.runtime.video.sources.address import Options, address_from

_PURPOSE = "writing raw pictures"
_EXAMPLE = "raw://-?format=nv12"
_DEFAULT_FORMAT = "bgr24"
STANDARD_OUTPUT = "-"


@dataclass(frozen=True)
class RawTarget:
    """Where raw pictures go (a path, or ``-`` for standard output), and in which of the :data:`FORMATS`."""

    place: str
    format: str = _DEFAULT_FORMAT

    @classmethod
    def from_uri(cls, uri: str) -> RawTarget:
        """Read ``raw://-?format=rgb24`` or ``raw:///tmp/pipe``.

        Raises:
            UsageError: no place, another format than those that there are, or another option.
        """
        address = address_from(uri)
        options = Options(address, known=("format",), example=_EXAMPLE)
        pixel_format = options.choice("format", tuple(FORMATS), _DEFAULT_FORMAT)
        place = unquote(address.place)
        if not place:
            raise UsageError(
                f"{uri} names no place; expected raw://- for standard output or raw:///PATH, as {_EXAMPLE}"
            )
        return cls(place, pixel_format)


class RawSink(contextlib.AbstractContextManager["RawSink"]):
    """Writes the bytes of every picture one after the other: no header, no times, rows from the top, no padding.

    The formats are ``bgr24`` and ``rgb24`` (3 bytes a pixel), ``nv12`` (a plane of Y and one of U and V at half the
    size, 1.5 bytes a pixel, BT.601 limited range; odd sides grow by one), and ``gray8`` (1 byte a pixel: labels as they
    are, or brightness). The first picture's size holds for all; others are scaled to it, with bars.

    The reader has to know format and size, so an ``opened`` event has FFmpeg's words for it. For pictures of 640x480::

        sfpp-run model.onnx 0 raw://- |
            ffmpeg -f rawvideo -pixel_format bgr24 -video_size 640x480 -framerate 30 -i - out.mp4

    Live frames come when they come: ``-use_wallclock_as_timestamps 1`` in the place of ``-framerate 30`` takes the time
    of their arrival. sfpp reads them itself, as ``raw://-?width=640&height=480&format=bgr24``.

    A reader that goes away ends the pictures, with an event, and not the program. A named pipe (FIFO) waits at the
    first picture until somebody reads it.

    Raises:
        SfppError: it is a disk or a socket, or lies in what is no folder.
    """

    def __init__(
        self, target: RawTarget, *, frames_per_second: Fraction | None = None, on_event: EventHandler = ignore
    ) -> None:
        self._stream = ByteStream(target.place, "pictures", on_event)
        self._format = target.format
        self._rate = frames_per_second
        self._on_event = on_event
        self._fitting = FirstSize(self._stream.name, on_event)

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Write ``image``: (H, W, 3) uint8 BGR, or (H, W) uint8 labels; raises as :class:`ByteStream`."""
        if self._stream.ended:
            return
        data = np.ascontiguousarray(FORMATS[self._format].convert(self._fitting.fit(image)))
        if self._stream.open():
            self._on_event(Event("opened", self._stream.name, self._reading_words()))
        self._stream.write(data.data)

    def _reading_words(self) -> str:
        raw = FORMATS[self._format]
        height, width = (side + side % raw.multiple for side in self._fitting.size_hw)
        times = "-use_wallclock_as_timestamps 1" if self._rate is None else f"-framerate {self._rate}"
        place = self._stream.path or STANDARD_OUTPUT
        return (
            f"{width}x{height} {self._format}; FFmpeg reads it with: ffmpeg -f rawvideo "
            f"-pixel_format {raw.ffmpeg_name} -video_size {width}x{height} {times} -i {place}"
        )


@dataclass(frozen=True)
class RawFormat:
    """A format: FFmpeg's name for it, how to make it of (H, W, 3) BGR or (H, W) labels, what sides are multiples of."""

    ffmpeg_name: str
    convert: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    multiple: int = 1


def _converted(image: NDArray[np.uint8], conversion: str) -> NDArray[np.uint8]:
    cv2: Any = import_cv2(purpose=_PURPOSE)
    converted: NDArray[np.uint8] = cv2.cvtColor(bgr_from_frame(image), getattr(cv2, conversion))
    return converted


def _nv12(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (3/2 H, W): the rows of Y, then those of U and V in turns."""
    image_bgr = with_even_sides(bgr_from_frame(image))
    height, width = image_bgr.shape[:2]
    planes = _converted(image_bgr, "COLOR_BGR2YUV_I420")
    chroma = planes[height:].reshape(2, -1)
    planes[height:] = chroma.T.reshape(height // 2, width)
    return planes


FORMATS = {
    "bgr24": RawFormat("bgr24", bgr_from_frame),
    "rgb24": RawFormat("rgb24", lambda image: _converted(image, "COLOR_BGR2RGB")),
    "nv12": RawFormat("nv12", _nv12, multiple=2),
    "gray8": RawFormat("gray", lambda image: image if image.ndim == 2 else _converted(image, "COLOR_BGR2GRAY")),
}


class ByteStream:
    """Standard output (``-``) or a path that bytes go to, unbuffered: what is written is written.

    A reader that goes away ends the bytes, with an event, and not the program.

    Args:
        place: where to.
        contents: what the bytes are, for events.
        on_event: told when the reader has gone.
        append: write behind what a file holds, rather than over it.

    Attributes:
        path: None for standard output.
        name: what to call it in messages.
        ended: nobody reads it any more.

    Raises:
        SfppError: it is a disk or a socket, or lies in what is no folder.
    """

    def __init__(self, place: str, contents: str, on_event: EventHandler, *, append: bool = False) -> None:
        self.path = None if place == STANDARD_OUTPUT else Path(place)
        self.name = "standard output" if self.path is None else self.path.name
        self.ended = False
        self._contents = contents
        self._on_event = on_event
        self._mode = "a" if append else "w"
        self._file: io.FileIO | None = None
        self._folder = contextlib.ExitStack()
        self._is_new = self.path is not None and not os.path.lexists(self.path)
        if self.path is not None:
            check_destinations(self.path)

    def open(self) -> bool:
        """Open it, unless it is open; tell whether it was not.

        What is none is opened by :func:`sfpp.runtime.files.open_special`.

        Raises:
            MediaError: it cannot be opened, or nobody reads the pipe.
        """
        if self._file is not None:
            return False
        with self._errors_named():
            if self.path is not None:
                self._folder.enter_context(made_folder(self.path.parent))
                self._file = open_special(self.path) or io.FileIO(self.path, self._mode)
            else:
                with contextlib.suppress(BrokenPipeError):  # which the first write meets too
                    sys.stdout.flush()  # what was printed before comes first
                # A handle of its own: when the reader goes away, Python's own output has nothing left to complain of.
                self._file = os.fdopen(os.dup(1), "wb", buffering=0)
        return True

    def write(self, data: bytes | memoryview) -> None:
        """Write bytes to what is open.

        Raises:
            MediaError: the disk is full, or similar.
        """
        assert self._file is not None
        with self._errors_named():
            try:
                write_all(self._file, data)
            except BrokenPipeError:
                self.ended = True
                self._on_event(Event("ended", self.name, f"nobody reads the {self._contents} any more"))

    def close(self) -> None:
        """Close it; of a file of ours that nothing was written to, nothing is left."""
        if self._file is not None:
            self._file.close()
        if self.path is not None and self._is_new and self.path.is_file() and not self.path.stat().st_size:
            self.path.unlink()
        self._folder.close()

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MediaError(f"cannot write {self.name}: {error.strerror}; make room or give another place") from error
