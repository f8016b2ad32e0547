"""What OpenCV captures, from a camera's driver or a GStreamer pipeline."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError
from sfpp.runtime.video.live.handover import Opened, Picture


class CaptureConnection:
    """An opened ``cv2.VideoCapture``. How long a call may block is the driver's affair; V4L2's is ten seconds.

    Args:
        capture: opened.
        gone: the reason when no more pictures come.
        finite: its end is an end, and no loss.
    """

    def __init__(self, capture: Any, *, detail: str, gone: str, finite: bool = False) -> None:
        self._capture = capture
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
            yield Picture(as_bgr(image))
            del image  # or it would stay in memory while the next one is awaited
        if not self.opened.finite:
            raise MediaError(self._gone)

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


def as_bgr(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (H, W, 3) BGR from that, from (H, W) gray, or from (H, W, 4) BGRx: pipelines deliver any of them."""
    if image.ndim == 2:
        return np.repeat(image[..., np.newaxis], 3, axis=2)
    return image if image.shape[2] == 3 else np.ascontiguousarray(image[..., :3])


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
