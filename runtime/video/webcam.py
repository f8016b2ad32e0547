"""Frames from a camera that the operating system numbers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import Any

from sfpp.runtime.errors import MediaError
from sfpp.runtime.opencv import import_cv2
from sfpp.runtime.video.frames import Decoded, Source


def open_webcam(number: int) -> Source:
    """Open the webcam ``number``; the first is 0. It has no end: stop it, or take a number of frames.

    Raises:
        MediaError: there is no such camera, or it delivers nothing.
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = import_cv2(purpose="reading a webcam")
    with _silenced(cv2):
        capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        capture.release()
        raise MediaError(
            f"webcam {number} cannot be opened; the first camera is 0. Check that it is plugged in, that no other "
            "program uses it, and that this user may read it (on Linux: the group video)"
        )
    # A model slower than the camera would otherwise work through a queue of old frames. Not every driver obeys.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    warnings: list[str] = []
    name = f"webcam{number}"
    frames = _frames(capture, name, warnings)
    return Source(frames, kind="camera", name=name, frames_per_second=None, warnings=warnings, live=True)


@contextlib.contextmanager
def _silenced(cv2: Any) -> Iterator[None]:
    """Keep OpenCV from printing what each of its camera drivers thinks; our one line says it."""
    logging = getattr(cv2.utils, "logging", None)  # older builds lack it
    if logging is None:
        yield
        return
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)


def _frames(capture: Any, name: str, warnings: list[str]) -> Generator[Decoded, None, None]:
    """Yield until the camera stops. Times are those of arrival: drivers' own stamps are unreliable."""
    start_s = None
    index = 0
    try:
        while True:
            arrived, image_bgr = capture.read()
            if not arrived:
                warnings.append(f"{name} delivers no more frames after {index}; was it unplugged?")
                return
            now_s = time.monotonic()
            start_s = now_s if start_s is None else start_s
            yield Decoded(image_bgr, now_s - start_s, f"{name}-{index:06d}")
            index += 1
    finally:
        capture.release()
