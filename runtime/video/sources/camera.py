"""Cameras that the operating system knows, and whatever else OpenCV captures."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.events import EventHandler
from sfpp.runtime.imports import cv2_text, import_cv2
from sfpp.runtime.video.frame import Picture, Source
from sfpp.runtime.video.sources.address import Address, Options, name_from
from sfpp.runtime.video.sources.captured import CapturedFormat
from sfpp.runtime.video.sources.link import RECONNECT_OPTIONS, Link, Opened, open_live

EXAMPLE = "camera://0?width=1280&height=720&fps=30&fourcc=MJPG"
_OPTIONS = ("width", "height", "fps", "fourcc", *RECONNECT_OPTIONS)
MOST_CAMERA_DIGITS = 9  # more than OpenCV's int takes
_GONE = "no more frames came; was it unplugged?"
_AS_ITS_SHAPE_SAYS = CapturedFormat()


def open_camera(address: Address, *, on_event: EventHandler) -> Source:
    """Open ``camera://0``, or ``camera:///dev/video2``; names in /dev/v4l/by-id stay the same when it is plugged again.

    Raises as :func:`.open_source`.
    """
    options = Options(address, known=_OPTIONS, example=EXAMPLE)
    device, fourcc, rate = _device(address), _fourcc(options), options.rate("fps")
    width, height = options.integer("width"), options.integer("height")
    cv2 = import_cv2(purpose="reading a camera")
    # The format comes first: many cameras have their large sizes only as MJPEG.
    asked = {
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter_fourcc(*fourcc) if fourcc else None,
        cv2.CAP_PROP_FRAME_WIDTH: width,
        cv2.CAP_PROP_FRAME_HEIGHT: height,
        cv2.CAP_PROP_FPS: float(rate) if rate else None,
    }
    # OpenCV's other ways to a camera know nothing of its formats.
    library = (cv2.CAP_V4L2,) if sys.platform.startswith("linux") else ()
    link = Link(
        name=f"camera{device}" if isinstance(device, int) else f"camera-{name_from(PurePosixPath(device).name)}",
        address=address.shown,
        connect=lambda: _connect(
            cv2, lambda: cv2.VideoCapture(device, *library), asked, name=address.shown, hint="; ?wait=1 waits for it"
        ),
        connects_in_caller=True,
    )
    return open_live(link, kind="camera", on_event=on_event, options=options)


def open_webcam(number: int, *, on_event: EventHandler) -> Source:
    """Open the webcam ``number`` as OpenCV likes best; the first is 0. When it vanishes, the source ends.

    Raises as :func:`.open_source`.
    """
    cv2 = import_cv2(purpose="reading a webcam")
    name = f"webcam {number}"
    link = Link(
        name=f"webcam{number}",
        address=name,
        connect=lambda: _connect(cv2, lambda: cv2.VideoCapture(number), {}, name=name),
        tries=0,
        connects_in_caller=True,
    )
    return open_live(link, kind="camera", on_event=on_event)


def _connect(
    cv2: Any, open_capture: Callable[[], Any], asked: Mapping[int, float | None], *, name: str, hint: str = ""
) -> CaptureConnection:
    """Open a camera and set what was asked for, by OpenCV's names; None leaves it to the driver."""
    with silenced(cv2):
        capture = open_capture()
    if not capture.isOpened():
        capture.release()
        raise MediaError(
            f"{name} cannot be opened; the first camera is 0. Check that it is plugged in, that no other "
            f"program uses it, and that this user may read it (on Linux: the group video){hint}"
        )
    for key, value in asked.items():
        if value is not None:
            capture.set(key, value)
    # A model slower than the camera would otherwise work through a queue of old frames. Not every driver obeys.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return CaptureConnection(capture, detail=_detail(cv2, capture, asked), gone=_GONE)


def _detail(cv2: Any, capture: Any, asked: Mapping[int, float | None]) -> str:
    """Say what the camera delivers, and what was asked for where that differs: drivers take the nearest they have."""
    keys = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
    width, height = found = [int(capture.get(key)) for key in keys]
    if width <= 0 or height <= 0:
        return "of a size that its driver does not tell"
    wanted = [asked.get(key) or side for key, side in zip(keys, found, strict=True)]
    differs = f" (asked for {wanted[0]}x{wanted[1]}, which it does not have)" if wanted != found else ""
    return f"{width}x{height}{differs}"


def _device(address: Address) -> int | str:
    place = unquote(address.place)
    if place.isascii() and place.isdecimal() and len(place) <= MOST_CAMERA_DIGITS:
        return int(place)
    if place.startswith("/"):
        return cv2_text(place)
    raise UsageError(
        f"{address.shown} names no camera; expected its number as in {EXAMPLE}, or its file as in camera:///dev/video2"
    )


def _fourcc(options: Options) -> str | None:
    text = options.text("fourcc")
    if text is not None and not (text.isascii() and text.isprintable() and len(text) == 4):
        raise UsageError(f"fourcc is {text!r}; expected the four letters of a format, such as MJPG or YUYV")
    return text


class CaptureConnection:
    """An opened ``cv2.VideoCapture``. How long a call may block is the driver's affair; V4L2's is ten seconds.

    Args:
        capture: opened.
        gone: the reason when no more pictures come.
        finite: its end is an end, and no loss.
        to_bgr: makes (H, W, 3) BGR of what is captured.
    """

    def __init__(
        self,
        capture: Any,
        *,
        detail: str,
        gone: str,
        finite: bool = False,
        to_bgr: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = _AS_ITS_SHAPE_SAYS.to_bgr,
    ) -> None:
        self._capture = capture
        self._to_bgr = to_bgr
        self._gone = gone
        self.opened = Opened(detail, finite)
        self.paced = False

    def pictures(self) -> Iterator[Picture | None]:
        """Yield until the camera stops.

        Raises:
            MediaError: it stopped, and should not have.
        """
        while True:
            arrived, image = self._capture.read()
            if not arrived:
                break
            yield Picture(self._to_bgr(image))
            del image  # or it would stay in memory while the next one is awaited
        if not self.opened.finite:
            raise MediaError(self._gone)

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


@contextlib.contextmanager
def silenced(cv2: Any) -> Iterator[None]:
    """Keep OpenCV from printing what each of its drivers thinks; our one line says it."""
    logging = getattr(cv2.utils, "logging", None)  # older builds lack it
    if logging is None:
        yield
        return
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)
