import sys
import threading
import time
from typing import ClassVar

import cv2
import numpy as np
import pytest

from sfpp.runtime import MediaError, UsageError
from sfpp.runtime.video import open_source
from sfpp.runtime.video.sources import link
from tests.runtime.video.clips import picture
from tests.runtime.video.sources.fakes import LONG_S

V4L2 = (cv2.CAP_V4L2,) if sys.platform.startswith("linux") else ()


class FakeCamera:
    """Delivers ``left`` pictures, then nothing; obeys all but sizes that it does not have."""

    opened: ClassVar = []
    present: ClassVar = {1: 3, "/dev/v4l/by-id/usb-street": 2}

    def __init__(self, device, *library):
        self.device, self.library = device, library
        self.left = self.present.get(device, 0)
        self.values = {cv2.CAP_PROP_FRAME_WIDTH: 64.0, cv2.CAP_PROP_FRAME_HEIGHT: 48.0}
        self.asked = []
        self.released = 0
        self.thread = threading.current_thread()
        FakeCamera.opened.append(self)

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return self.device in self.present

    def set(self, key, value):
        self.asked.append((key, value))
        return False

    def get(self, key):
        return self.values.get(key, 0.0)

    def read(self):
        self.left -= 1
        return (True, picture(0)) if self.left >= 0 else (False, None)

    def release(self):
        self.released += 1


@pytest.fixture(autouse=True)
def _fake(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    monkeypatch.setattr(FakeCamera, "opened", [])
    monkeypatch.setattr(FakeCamera, "present", dict(FakeCamera.present))
    monkeypatch.setattr(link, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(link, "_LONGEST_PAUSE_S", 0.001)
    yield
    assert all(camera.released == 1 for camera in FakeCamera.opened)


def test_a_number_is_a_webcam_that_ends_when_it_vanishes():
    events = []
    with open_source("1", on_event=events.append) as source:
        assert (source.kind, source.name, source.frames_per_second, source.count) == ("camera", "webcam1", None, None)
        assert source.live
        frames = list(source)
    assert [frame.name for frame in frames] == ["webcam1-000000", "webcam1-000001", "webcam1-000002"]
    assert frames[0].time_s == 0 < frames[2].time_s
    assert source.warnings == ["webcam1 delivers no more frames after 3: no more frames came; was it unplugged?"]
    assert [event.kind for event in events] == ["opened", "lost", "gave-up"]
    (camera,) = FakeCamera.opened
    assert (camera.library, camera.asked) == ((), [(cv2.CAP_PROP_BUFFERSIZE, 1)])
    # macOS asks for leave to use the camera in the main thread only.
    assert camera.thread is threading.current_thread()
    with pytest.raises(MediaError, match="webcam 7 cannot be opened; the first camera is 0"):
        open_source("7")


def test_what_a_camera_is_asked_for_and_what_it_does():
    events = []
    uri = "camera://1?width=1280&height=720&fps=30000/1001&fourcc=MJPG&reconnect=0"
    with open_source(uri, on_event=events.append) as source:
        assert (source.name, source.kind, source.live) == ("camera1", "camera", True)
        assert len(list(source)) == 3
    (camera,) = FakeCamera.opened
    assert camera.library == V4L2
    assert camera.asked == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, pytest.approx(29.97, abs=1e-3)),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ]
    assert events[0].detail == "camera://1, 64x48 (asked for 1280x720, which it does not have)"


def test_a_camera_that_is_plugged_in_again_goes_on():
    events = []

    def plug_in_again():
        while len(FakeCamera.opened) <= 3:  # it was tried while it was away
            time.sleep(0.001)
        FakeCamera.present.update({"/dev/v4l/by-id/usb-street": 4})

    def notice(event):
        events.append(event.kind)
        if event.kind == "lost":
            FakeCamera.present.clear()
            threading.Thread(target=plug_in_again).start()

    with open_source("camera:///dev/v4l/by-id/usb-street", on_event=notice) as source:
        assert source.name == "camera-usb-street"
        frames = iter(source)
        assert [next(frames).index for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    assert events == ["opened", "lost", "back"]
    assert FakeCamera.opened[-1].device == "/dev/v4l/by-id/usb-street"
    assert {type(camera.device) for camera in FakeCamera.opened} == {str}


def test_a_camera_that_is_not_there_yet(monkeypatch):
    monkeypatch.setattr(FakeCamera, "present", {})
    with pytest.raises(MediaError, match="camera://1 cannot be opened; the first camera is 0"):
        open_source("camera://1")
    with pytest.raises(UsageError, match="camera://99999999999 names no camera; expected its number"):
        open_source("camera://99999999999")
    threading.Timer(0.05, FakeCamera.present.update, [{1: 1}]).start()
    with open_source("camera://1?wait=1") as source:
        assert next(iter(source)).index == 0


def test_a_camera_that_opens_and_delivers_nothing(monkeypatch):
    monkeypatch.setattr(FakeCamera, "present", {1: 0})
    with (
        open_source("camera://1") as source,
        pytest.raises(MediaError, match="camera://1 was opened, but no picture came"),
    ):
        next(iter(source))


@pytest.mark.parametrize("channels", [None, 4])
def test_pictures_of_other_layouts_become_bgr(monkeypatch, channels):
    made = picture(0)[..., 0] if channels is None else np.dstack([picture(0), picture(1)[..., 0]])
    monkeypatch.setattr(FakeCamera, "read", lambda camera: (True, made))
    with open_source("1") as source:
        image_bgr = next(iter(source)).image_bgr
    expected = np.dstack([picture(0)[..., 0]] * 3) if channels is None else picture(0)
    np.testing.assert_array_equal(image_bgr, expected)
    assert image_bgr.flags.c_contiguous


def test_a_camera_whose_driver_hangs_can_be_closed(monkeypatch):
    from sfpp.runtime.video.sources import link

    monkeypatch.setattr(link, "_CLOSING_S", 0.01)
    release = threading.Event()
    monkeypatch.setattr(FakeCamera, "read", lambda camera: (release.wait(LONG_S), picture(0)))
    source = open_source("camera://1?timeout=1000")
    done = threading.Event()

    def take():
        with pytest.raises(MediaError, match="closed before"):
            next(iter(source))
        done.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not done.wait(0.05)
    source.close()
    assert done.wait(LONG_S)
    thread.join()
    release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("sfpp-live"):
            thread.join(LONG_S)
