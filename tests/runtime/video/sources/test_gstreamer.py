import shutil
import subprocess
import threading
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

from sfpp.runtime import MediaError, UsageError
from sfpp.runtime.pixels.nv12 import bgr_from_nv12, nv12_from_bgr
from sfpp.runtime.video import open_source
from sfpp.runtime.video.sources import gstreamer, link
from sfpp.runtime.video.sources.gstreamer import csi_pipeline, files_in, missing_elements, pipeline_from
from tests.runtime.video.clips import picture
from tests.runtime.video.sources.fakes import live_threads

SINK = "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
CSI = (
    "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=30/1,format=NV12 ! "
    "nvvidconv flip-method=0 ! video/x-raw,format=NV12 ! appsink drop=true max-buffers=1 sync=false"
)


@pytest.mark.parametrize(
    ("place", "pipeline"),
    [
        ("videotestsrc", f"videotestsrc ! {SINK}"),
        ("videotestsrc%20pattern%3Dball%20!%20queue", f"videotestsrc pattern=ball ! queue ! {SINK}"),
        ("videotestsrc ! ", f"videotestsrc ! {SINK}"),
        ("v4l2src ! videoconvert ! appsink", "v4l2src ! videoconvert ! appsink"),
        ("v4l2src!appsink drop=1 name=x ", "v4l2src!appsink drop=1 name=x"),
        ("appsinkish ! queue name=appsink", f"appsinkish ! queue name=appsink ! {SINK}"),
        ("a ! appsink ! b", f"a ! appsink ! b ! {SINK}"),
        ("multifilesrc location=f%05d.png", f"multifilesrc location=f%05d.png ! {SINK}"),
        ("filesrc location=h%C3%A4user.mp4", f"filesrc location=häuser.mp4 ! {SINK}"),
        ("a ! video/x-raw,format=NV12", f"a ! video/x-raw,format=NV12 ! {SINK.rpartition(' ! ')[2]}"),
        ("a ! video/x-raw(memory:NVMM),format=NV12", f"a ! video/x-raw(memory:NVMM),format=NV12 ! {SINK}"),
        ("a ! video/x-raw,format=NV12 ! b", f"a ! video/x-raw,format=NV12 ! b ! {SINK}"),
    ],
)
def test_what_follows_gst_is_the_pipeline(place, pipeline):
    assert pipeline_from(place) == pipeline


def test_the_pipeline_of_a_csi_camera():
    assert csi_pipeline(0, width=1920, height=1080, frames_per_second=Fraction(30), flip=0) == CSI
    other = csi_pipeline(1, width=1280, height=720, frames_per_second=Fraction(30000, 1001), flip=2)
    assert "sensor-id=1 " in other
    assert "width=1280,height=720,framerate=30000/1001,format=NV12" in other
    assert "flip-method=2 " in other


class FakeCapture:
    opened: ClassVar = []
    captured: ClassVar = picture(0)

    def __init__(self, pipeline, library):
        assert library == cv2.CAP_GSTREAMER
        FakeCapture.opened.append(pipeline)
        self.left = 2
        self.works = "broken" not in pipeline

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return self.works

    def get(self, key):
        return {cv2.CAP_PROP_FRAME_WIDTH: 64.0, cv2.CAP_PROP_FRAME_HEIGHT: 48.0}[key]

    def read(self):
        self.left -= 1
        return self.left >= 0, FakeCapture.captured

    def release(self):
        pass


@pytest.fixture
def with_gstreamer(monkeypatch):
    monkeypatch.setattr(
        cv2, "getBuildInformation", lambda: "  Video I/O:\n    GStreamer:                   YES (1.22.0)\n"
    )
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "opened", [])
    monkeypatch.setattr(FakeCapture, "captured", picture(0))
    monkeypatch.setattr(shutil, "which", lambda name: None)  # whatever this machine has
    return FakeCapture.opened


def test_pipelines_that_are_opened(with_gstreamer, monkeypatch):
    planes = nv12_from_bgr(picture(0), "bt601")
    monkeypatch.setattr(FakeCapture, "captured", planes)
    with open_source("csi://0?reconnect=0") as source:
        assert (source.kind, source.name, source.live, source.frames_per_second) == ("camera", "csi0", True, None)
        frames = list(source)
        assert len(frames) == 2
        np.testing.assert_array_equal(frames[0].image_bgr, bgr_from_nv12(planes, "bt601"))
    with open_source("csi://1?width=640&height=480&fps=15&flip=6&matrix=bt709&reconnect=0") as source:
        assert source.name == "csi1"
        np.testing.assert_array_equal(next(iter(source)).image_bgr, bgr_from_nv12(planes, "bt709"))
    monkeypatch.setattr(FakeCapture, "captured", picture(0))
    with open_source("gst://videotestsrc num-buffers=2 ! queue") as source:
        assert (source.kind, source.name, source.live) == ("camera", "gst-videotestsrc-num-buffers-2", True)
        assert len(list(source)) == 2  # whoever counts buffers means the end
        assert source.warnings == []
    assert with_gstreamer == [
        CSI,
        csi_pipeline(1, width=640, height=480, frames_per_second=Fraction(15), flip=6),
        f"videotestsrc num-buffers=2 ! queue ! {SINK}",
    ]


def test_a_camera_s_pipeline_is_started_anew(with_gstreamer):
    events = []
    with open_source("gst://v4l2src device=/dev/video0", on_event=events.append) as source:
        assert source.name == "gst-v4l2src-device-dev-video0"
        frames = iter(source)
        assert [next(frames).index for _ in range(4)] == [0, 1, 2, 3]
    assert [event.kind for event in events] == ["opened", "lost", "back"]
    assert events[0].detail == f"gst://, 64x48 by v4l2src device=/dev/video0 ! {SINK}"
    assert len(with_gstreamer) == 2


def test_a_pipeline_that_does_not_start_is_shown(with_gstreamer):
    with pytest.raises(
        MediaError, match=r"a GStreamer pipeline cannot be opened: it does not start; check that gst-launch-1\.0"
    ) as caught:
        open_source("gst://rtspsrc location=rtsp://u:s3cr3t@h/x user-pw=s3cr3t ! broken")
    assert str(caught.value).endswith(f"The pipeline is: rtspsrc location=rtsp://h/x user-pw=*** ! broken ! {SINK}")
    assert "u:s3cr3t@h/x user-pw=s3cr3t" in with_gstreamer[0]


def test_a_machine_without_the_jetson_s_camera_library(with_gstreamer, monkeypatch):
    monkeypatch.setattr(FakeCapture, "isOpened", lambda capture: False)
    with pytest.raises(MediaError) as caught:
        open_source("csi://0")
    message = str(caught.value)
    assert message.startswith(
        "a CSI camera cannot be opened: it does not start; check that this is a Jetson with NVIDIA's plugins"
    )
    assert "gst-inspect-1.0 nvarguscamerasrc" in message
    assert "nvargus-daemon" in message
    assert message.endswith(f"The pipeline is: {CSI}")


@pytest.mark.parametrize("information", ["    GStreamer:                   NO\n", "nothing of the kind"])
@pytest.mark.parametrize(("uri", "pipeline"), [("csi://0", CSI), ("gst://a user-pw=s3cr3t", f"a user-pw=*** ! {SINK}")])
def test_an_opencv_without_gstreamer(monkeypatch, information, uri, pipeline):
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: information)
    with pytest.raises(MediaError) as caught:
        open_source(uri)
    message = str(caught.value)
    assert f"needs an OpenCV that was built with GStreamer, and this one ({cv2.__version__}) was not" in message
    assert "apt install python3-opencv" in message
    assert "--system-site-packages" in message
    assert "JetPack" in message
    assert message.endswith(f"The pipeline would be: {pipeline}")


@pytest.fixture
def inspected(monkeypatch):
    """A gst-inspect-1.0 that knows some elements; returns what it was asked for."""
    asked = []

    def run(command, **keywords):
        asked.append(command[-1])
        return subprocess.CompletedProcess(command, 0 if command[-1] in ("videotestsrc", "queue", "tee") else 1)

    monkeypatch.setattr(shutil, "which", lambda name: f"/tools/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_elements_that_are_missing(inspected):
    pipeline = (
        'videotestsrc pattern=ball ! video/x-raw(memory:NVMM),width=5 ! nvvidconv flip-method=0 ! nvvidconv!queue ! "b'
        " ! tee name=t t. ! queue ! t.src_0 ! bin.( queue ) ! name = x ! appsink"
    )
    assert missing_elements(pipeline) == ["nvvidconv", "appsink"]
    assert inspected == ["videotestsrc", "nvvidconv", "queue", "tee", "appsink"]


def test_without_gstreamer_s_tools_nothing_is_called_missing(inspected, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert missing_elements("nvvidconv ! appsink") == []
    assert inspected == []


def test_missing_elements_are_named_before_opencv_could_wait_for_them(with_gstreamer, inspected):
    with pytest.raises(
        MediaError, match="a CSI camera cannot be opened: GStreamer has no nvarguscamerasrc, nvvidconv, "
    ):
        open_source("csi://0")
    assert with_gstreamer == []


def test_a_pipeline_for_which_opencv_waits_for_ever(with_gstreamer, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(gstreamer, "_CONNECTING_S", 0.05)
    monkeypatch.setattr(link, "_CLOSING_S", 0.01)
    monkeypatch.setattr(FakeCapture, "isOpened", lambda capture: release.wait(20))
    with pytest.raises(MediaError, match=r"a GStreamer pipeline cannot be opened: nothing happens; check"):
        open_source("gst://videotestsrc user-pw=s3cr3t")
    release.set()
    for thread in live_threads():
        thread.join(20)


def test_files_that_a_pipeline_reads_are_known(tmp_path, monkeypatch):
    """So that no output replaces one."""
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "my clip.mp4", "ü.mp4"):
        Path(name).touch()
    for pipeline, names in (
        ("filesrc location=clip.mp4 ! decodebin", ["clip.mp4"]),
        ('filesrc location = "my clip.mp4"!decodebin', ["my clip.mp4"]),
        (r"filesrc location=my\ clip.mp4 ! decodebin", ["my clip.mp4"]),
        (f"uridecodebin uri=file://{tmp_path}/%C3%BC.mp4 ! videoconvert", [f"{tmp_path}/ü.mp4"]),
        ("rtspsrc location=rtsp://me:secret@host/x ! decodebin", []),
        ("multifilesrc location=%05d.png ! pngdec", []),
        ("v4l2src device=/dev/video0", []),
    ):
        assert files_in(pipeline) == tuple(map(Path, names))


def test_a_pipeline_s_file_is_a_file_of_the_source(with_gstreamer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").touch()
    with open_source("gst://filesrc location=clip.mp4 ! decodebin") as source:
        assert source.paths == (Path("clip.mp4"),)


def test_a_pipeline_s_planes_become_a_picture(with_gstreamer, monkeypatch):
    planes = nv12_from_bgr(picture(0), "bt601")
    monkeypatch.setattr(FakeCapture, "captured", planes)
    with open_source("gst://v4l2src ! video/x-raw,format=NV12,width=64 ! appsink") as source:
        np.testing.assert_array_equal(next(iter(source)).image_bgr, bgr_from_nv12(planes, "bt601"))
    with open_source("gst://v4l2src ! video/x-raw,format=NV12,colorimetry=bt709 ! queue ! appsink") as source:
        np.testing.assert_array_equal(next(iter(source)).image_bgr, bgr_from_nv12(planes, "bt709"))


def test_planes_that_nothing_names_are_refused(with_gstreamer, monkeypatch):
    monkeypatch.setattr(FakeCapture, "captured", nv12_from_bgr(picture(0), "bt601"))
    with (
        open_source("gst://v4l2src ! nvvidconv ! appsink") as source,
        pytest.raises(
            MediaError, match=r"gives uint8 of shape \(72, 64\), and its caps do not say what that is; write "
        ),
    ):
        next(iter(source))


def test_a_stream_decoded_by_a_jetson(with_gstreamer):
    events = []
    uri = "rtsp://u:s3cr3t@cam/street?channel=1&decoder=hardware&transport=udp&reconnect=0"
    with open_source(uri, on_event=events.append) as source:
        assert (source.kind, source.live) == ("stream", True)
        assert next(iter(source)).image_bgr.shape == (48, 64, 3)
    assert with_gstreamer == [
        'rtspsrc location="rtsp://u:s3cr3t@cam/street?channel=1" protocols=udp latency=100 ! '
        "application/x-rtp,media=video ! decodebin ! video/x-raw(memory:NVMM) ! nvvidconv ! "
        f"video/x-raw,format=BGRx ! {SINK}"
    ]
    assert "rtspsrc location=" in events[0].detail
    assert "s3cr3t" not in events[0].detail


def test_only_rtsp_is_decoded_by_hardware(with_gstreamer):
    with pytest.raises(UsageError, match="decoder=hardware is for rtsp:// only"):
        open_source("http://cam/x.mp4?decoder=hardware")
    with pytest.raises(UsageError, match="decoder is 'hard'"):
        open_source("rtsp://cam/x?decoder=hard")
