import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sfpp.runtime import MediaError
from sfpp.runtime.video.sinks import window
from sfpp.runtime.video.sinks.window import WindowSink
from tests.runtime.video.clips import frame, picture


class Desktop:
    """Stands in for OpenCV's windows: what is open, what is shown, which keys will be pressed."""

    error = type("error", (Exception,), {})
    WINDOW_NORMAL, WINDOW_KEEPRATIO, WND_PROP_VISIBLE = 0, 0, 4

    def __init__(self, keys=(), framework="QT5"):
        self.open, self.shown, self.sizes, self.keys = [], [], [], list(keys)
        self._framework = framework

    def currentUIFramework(self):  # noqa: N802 - OpenCV's name
        return self._framework

    def namedWindow(self, title, flags):  # noqa: N802
        self.open.append(title)

    def resizeWindow(self, title, width, height):  # noqa: N802
        self.sizes.append((width, height))

    def imshow(self, title, image):
        if title not in self.open:
            raise self.error("no such window")
        self.shown.append(image)

    def waitKey(self, milliseconds):  # noqa: N802
        return self.keys.pop(0) if self.keys else -1

    def getWindowProperty(self, title, which):  # noqa: N802
        return 1.0 if title in self.open else -1.0

    def destroyWindow(self, title):  # noqa: N802
        if title not in self.open:
            raise self.error("no such window")
        self.open.remove(title)


def opened(monkeypatch, desktop, **options):
    monkeypatch.setattr(window, "import_cv2", lambda purpose: desktop)
    monkeypatch.setattr(window, "_check_windows", lambda cv2: None)
    return WindowSink(**options)


def test_every_picture_is_shown_and_the_window_closed(monkeypatch):
    desktop, stops = Desktop(), []
    with opened(monkeypatch, desktop, on_stop=lambda: stops.append(1)) as sink:
        assert desktop.open == []
        for index in range(3):
            sink.write(frame(index), picture(index))
        assert desktop.open == ["sfpp"]
    assert desktop.open == []
    np.testing.assert_array_equal(desktop.shown, [picture(index) for index in range(3)])
    assert desktop.sizes == [(64, 48)]
    assert stops == []


def test_each_source_has_a_window_and_one_of_them_closed_closes_all(monkeypatch):
    desktop, stops = Desktop(), []
    with opened(monkeypatch, desktop, on_stop=lambda: stops.append(1)) as sink:
        for source in ("left", "right", "left"):
            sink.write(replace(frame(0), source=source), picture(0))
        assert desktop.open == ["left", "right"]
        desktop.keys = [27]
        sink.write(replace(frame(1), source="right"), picture(1))
        assert desktop.open == []
        sink.write(replace(frame(1), source="left"), picture(1))
    assert (len(desktop.shown), len(stops)) == (4, 1)


@pytest.mark.parametrize("key", [ord("q"), ord("Q"), 27, 27 + 0x100000])
def test_q_and_escape_ask_to_stop_once(monkeypatch, key):
    desktop, stops = Desktop(keys=[ord("x"), key]), []
    with opened(monkeypatch, desktop, on_stop=lambda: stops.append(1)) as sink:
        for index in range(5):
            sink.write(frame(index), picture(index))
    assert (len(desktop.shown), len(stops), desktop.open) == (2, 1, [])


def test_closing_the_window_asks_to_stop_too(monkeypatch):
    desktop, stops = Desktop(), []
    with opened(monkeypatch, desktop, on_stop=lambda: stops.append(1)) as sink:
        sink.write(frame(0), picture(0))
        desktop.waitKey = lambda milliseconds: desktop.open.clear() or -1
        sink.write(frame(1), picture(1))
        sink.write(frame(2), picture(2))
    assert (len(desktop.shown), len(stops)) == (2, 1)


@pytest.mark.parametrize(("size_hw", "shown_wh"), [((2160, 3840), (1280, 720)), ((3840, 2160), (405, 720))])
def test_large_pictures_get_a_window_that_fits(monkeypatch, size_hw, shown_wh):
    desktop = Desktop()
    with opened(monkeypatch, desktop) as sink:
        sink.write(frame(0), np.zeros((*size_hw, 3), np.uint8))
    assert desktop.sizes == [shown_wh]


def test_a_display_that_goes_is_an_error(monkeypatch):
    desktop = Desktop()

    def shown(sink):
        sink.write(frame(0), picture(0))
        desktop.open.clear()
        sink.write(frame(1), picture(1))

    with (
        pytest.raises(MediaError, match=r"cannot show the window 'sfpp' \(no such window\); look .* browser viewer"),
        opened(monkeypatch, desktop) as sink,
    ):
        shown(sink)


def without_windows(monkeypatch, desktop):
    monkeypatch.setattr(window, "import_cv2", lambda purpose: desktop)
    WindowSink().__enter__()


def test_an_opencv_without_windows_names_the_browser_viewer(monkeypatch):
    words = r"this one \(opencv-python-headless\) has none; look at the pictures with the browser viewer"
    with pytest.raises(MediaError, match=words):
        without_windows(monkeypatch, Desktop(framework=""))


def test_no_display_names_the_browser_viewer(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MediaError, match=r"neither DISPLAY nor WAYLAND_DISPLAY is set; look .* browser viewer"):
        without_windows(monkeypatch, Desktop())


def test_a_display_that_cannot_be_reached_ends_another_process_than_this_one(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setattr(window, "_PROBE", "import os; os.abort()")
    with pytest.raises(MediaError, match=r"cannot open a window on the display that is set; look .* browser viewer"):
        without_windows(monkeypatch, Desktop())
    monkeypatch.setattr(window, "_PROBE", "pass")
    without_windows(monkeypatch, Desktop())


def test_the_probe_is_a_program():
    """It is a text, so nothing else would notice a mistake in it."""
    fake = "import sys, types; sys.modules['cv2'] = cv2 = types.SimpleNamespace(WINDOW_NORMAL=0, asked=[])\n"
    fake += "cv2.namedWindow = lambda *given: cv2.asked.append('opened')\n"
    fake += "cv2.destroyAllWindows = lambda: cv2.asked.append('closed')\n"
    command = [sys.executable, "-c", f"{fake}{window._PROBE}\nprint(*cv2.asked)"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
    assert told.split() == ["opened", "closed"]


def test_a_source_whose_name_is_no_text_has_a_title(monkeypatch):
    desktop = Desktop()
    with opened(monkeypatch, desktop) as sink:
        sink.write(replace(frame(0), source="clip\udcff"), picture(0))  # as of a file whose name is not UTF-8
        assert desktop.open == ["clip?"]
