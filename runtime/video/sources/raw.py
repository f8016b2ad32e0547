"""Frames without any container, from standard input, a FIFO or a file: what another program's pipe delivers."""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.events import Event, EventHandler
from sfpp.runtime.files import check_name
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.video.frame import Decoded, Source
from sfpp.runtime.video.sources.address import Address, Options, name_from

EXAMPLE = "raw://-?width=1280&height=720&format=bgr24&fps=30"
FORMATS = ("bgr24", "rgb24", "nv12", "yuyv")
_OPTIONS = ("width", "height", "format", "fps", "live")
_STDIN = "-"
_FALLBACK_RATE = Fraction(25)
# How soon closing the source is heard while nothing comes.
_HEARING_MS = 50


@dataclass(frozen=True)
class RawFormat:
    """How a frame lies in memory: ``layout`` is one of :data:`FORMATS`; the YUV ones are BT.601, limited range."""

    layout: str
    width: int
    height: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The array that a frame is read into, uint8."""
        if self.layout == "nv12":
            return self.height * 3 // 2, self.width  # luma, then U and V side by side at half the size
        return self.height, self.width, 2 if self.layout == "yuyv" else 3

    def to_bgr(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (H, W, 3) uint8 BGR from an array of ``shape``."""
        if self.layout == "bgr24":
            return frame
        if self.layout == "rgb24":
            return np.ascontiguousarray(frame[..., ::-1])
        cv2 = import_cv2(purpose=f"converting {self.layout}")
        code = cv2.COLOR_YUV2BGR_NV12 if self.layout == "nv12" else cv2.COLOR_YUV2BGR_YUY2
        converted: NDArray[np.uint8] = cv2.cvtColor(frame, code)
        return converted


def open_raw(address: Address, *, on_event: EventHandler) -> Source:
    """Open ``raw://-`` for standard input, or ``raw:///path`` for a FIFO or a file.

    Width, height and format are required. A pipe waits for us, so no frame is lost, unless ``live=1`` says that what
    fills it does not. One that has ended stays so: there is nothing to reconnect to. Raises as :func:`.open_source`.
    """
    options = Options(address, known=_OPTIONS, example=EXAMPLE)
    layout = _format(address, options)
    rate = options.rate("fps")
    file, path = _opened(address)
    is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    live = options.flag("live", default=False)
    warnings: list[str] = []
    closing = threading.Event()
    name = "raw" if path is None else name_from(path.stem)
    if not live and rate is None:
        on_event(
            Event("note", name, f"taken as {_FALLBACK_RATE} frames a second; fps= in the address says another rate")
        )
    frames = _frames(file, layout, rate if live else rate or _FALLBACK_RATE, name, closing, warnings)
    return Source(
        frames,
        kind="stream" if live else "video",
        name=name,
        frames_per_second=None if live else rate or _FALLBACK_RATE,
        count=os.fstat(file.fileno()).st_size // int(np.prod(layout.shape)) if is_file else None,
        paths=() if path is None else (path,),
        warnings=warnings,
        live=live,
        interrupt=closing.set,
        release=file.close,
        on_event=on_event,
    )


def _format(address: Address, options: Options) -> RawFormat:
    width = options.required("width", options.integer("width"))
    height = options.required("height", options.integer("height"))
    layout = options.choice("format", FORMATS, options.required("format", options.text("format")))
    if (layout in ("nv12", "yuyv") and width % 2) or (layout == "nv12" and height % 2):
        raise UsageError(
            f"{address.shown}: {width}x{height} was given for {layout}, whose colors are shared by two pixels; "
            "expected even numbers"
        )
    return RawFormat(layout, width, height)


def _opened(address: Address) -> tuple[io.FileIO, Path | None]:
    """Open the place for reading without waiting for whoever writes; its path if it has one."""
    place = unquote(address.place)
    if place == _STDIN:
        try:
            number = sys.stdin.fileno()
        except (AttributeError, OSError, ValueError):  # none, or one that is no file
            number = -1
        if number < 0 or os.isatty(number):
            raise MediaError(
                f"raw://- reads frames from a pipe, and there is none; as in: camera | sfpp-run … {EXAMPLE}"
            )
        return io.FileIO(number, closefd=False), None
    if not place:
        raise UsageError(f"{address.shown} names nothing to read; expected raw://- or raw:///path, as in {EXAMPLE}")
    check_name(place)
    path = Path(place)
    try:
        # Opening a FIFO would else wait until somebody writes, and could not be stopped.
        return io.FileIO(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))), path
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}; expected a FIFO or a file of raw frames") from error


def _frames(
    file: io.FileIO,
    layout: RawFormat,
    rate: Fraction | None,
    name: str,
    closing: threading.Event,
    warnings: list[str],
) -> Generator[Decoded, None, None]:
    """Yield frame by frame; without a rate, times are those of arrival."""
    index = 0
    first_s = None
    while True:
        frame = np.empty(layout.shape, np.uint8)
        filled = _fill(file, frame.data.cast("B"), closing)
        if filled < frame.nbytes:
            break
        now_s = time.monotonic()
        first_s = now_s if first_s is None else first_s
        time_s = now_s - first_s if rate is None else float(index / rate)
        yield Decoded(layout.to_bgr(frame), time_s, taken_s=now_s)
        index += 1
    if filled and not closing.is_set():
        warnings.append(
            f"{name}: the last frame is cut off after {filled} of {frame.nbytes} bytes and left out; "
            f"check that frames are {layout.width}x{layout.height} in {layout.layout}"
        )


def _fill(file: io.FileIO, room: memoryview, closing: threading.Event) -> int:
    """Fill the room and return how many bytes came: fewer at the end, or when the source is closed."""
    wait = _waiting(file.fileno())
    filled = 0
    while filled < len(room) and not closing.is_set():
        if not wait():
            continue
        count = file.readinto(room[filled:])
        if count == 0:
            break
        filled += count or 0  # None: somebody else took it first
    return filled


def _waiting(number: int) -> Callable[[], bool]:
    """Return what waits for data or the end for a moment, and says whether there is something."""
    if not hasattr(select, "poll"):  # on Windows a pipe can only be read
        return lambda: True
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return lambda: bool(poll.poll(_HEARING_MS))
