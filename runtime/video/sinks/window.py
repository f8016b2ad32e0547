"""Pictures in windows of the desktop, through OpenCV."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError
from sfpp.runtime.files import python_code
from sfpp.runtime.imports import cv2_text, import_cv2
from sfpp.runtime.video.frame import Frame

_ESCAPE = 27
_STOP_KEYS = (ord("q"), ord("Q"), _ESCAPE)
_LARGEST_WH = (1280, 720)  # a 4K picture would not fit on most screens; the window can be enlarged by hand
_TITLE = "sfpp"  # of frames that name no source
_PROBE = "import cv2; cv2.namedWindow('sfpp', cv2.WINDOW_NORMAL); cv2.destroyAllWindows()"
_PROBE_TIMEOUT_S = 30
_INSTEAD = "look at the pictures with the browser viewer instead, or write them to a file"


class WindowSink:
    """Shows every picture in a window, one for each source; a context manager that closes them.

    ``q``, Esc and closing a window close them all and call ``on_stop``, once; what comes afterwards is not shown. A
    window opens with its first picture. All calls have to come from one thread, which on macOS has to be the main one.

    Args:
        on_stop: told that the user has seen enough.

    Raises:
        MediaError: when it is entered: OpenCV was built without windows, or there is no display.
        MissingDependencyError: OpenCV is not installed.
    """

    def __init__(self, on_stop: Callable[[], object] = lambda: None) -> None:
        self._cv2 = import_cv2(purpose="showing a window")
        self._on_stop = on_stop
        self._open: list[str] = []
        self._ended = False

    def __enter__(self) -> WindowSink:
        _check_windows(self._cv2)
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Show ``image``, (H, W, 3) uint8 BGR or (H, W), and hear the keyboard; MediaError if the display has gone."""
        if self._ended:
            return
        title = cv2_text(frame.source or _TITLE)
        try:
            if title not in self._open:
                self._open_for(image, title)
            self._cv2.imshow(title, image)
            key = self._cv2.waitKey(1) & 0xFF
            shown = self._cv2.getWindowProperty(title, self._cv2.WND_PROP_VISIBLE) >= 1
        except self._cv2.error as error:
            raise MediaError(f"cannot show the window {title!r} ({error}); {_INSTEAD}") from error
        if key in _STOP_KEYS or not shown:
            self.close()
            self._on_stop()

    def close(self) -> None:
        """Close the windows; nothing is shown any more."""
        self._ended = True
        while self._open:
            with contextlib.suppress(self._cv2.error):  # closed by hand, some builds have forgotten it
                self._cv2.destroyWindow(self._open.pop())
                self._cv2.waitKey(1)  # the desktop hears of it only now

    def _open_for(self, image: NDArray[np.uint8], title: str) -> None:
        height, width = image.shape[:2]
        scale = min(1.0, _LARGEST_WH[0] / width, _LARGEST_WH[1] / height)
        self._cv2.namedWindow(title, self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO)
        self._cv2.resizeWindow(title, max(1, round(width * scale)), max(1, round(height * scale)))
        self._open.append(title)


def _check_windows(cv2: Any) -> None:
    """Find out whether a window can be opened, before frames are spent on it; MediaError if it cannot."""
    framework = getattr(cv2, "currentUIFramework", None)  # OpenCV before 4.5.5 lacks it
    if framework is not None and not framework():
        raise MediaError(
            f"window:// needs an OpenCV with windows, and this one (opencv-python-headless) has none; {_INSTEAD}"
        )
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise MediaError(f"window:// needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set; {_INSTEAD}")
    # Where a display is named that cannot be reached, Qt ends the whole process; better another one than this one.
    with contextlib.suppress(subprocess.TimeoutExpired):
        probe = subprocess.run(**python_code(_PROBE), capture_output=True, check=False, timeout=_PROBE_TIMEOUT_S)
        if probe.returncode:
            raise MediaError(f"window:// cannot open a window on the display that is set; {_INSTEAD}")
