"""The system's own OpenCV with GStreamer, in an environment that sees it, as on a Jetson."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.runtime.video.sources.rtsp import PYTHON

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
HAS_GSTREAMER = "import cv2, re, sys; sys.exit(not re.search('GStreamer: +YES', cv2.getBuildInformation()))"
SCRIPT = """
import itertools, json, sys, threading
from pathlib import Path
from sfpp.runtime import SfppError
from sfpp.runtime.video import open_source
from sfpp.runtime.video.sources import link
link._FIRST_PAUSE_S = 0.01
told, count = [], int(sys.argv[2])
try:
    with open_source(sys.argv[1], on_event=lambda event: told.append(event.kind)) as source:
        frames = list(itertools.islice(source, count))
    said = {"name": source.name, "live": source.live, "frames": len(frames), "shape": frames[-1].image_bgr.shape,
            "mean": frames[-1].image_bgr.mean(axis=(0, 1)).tolist(), "warnings": source.warnings, "told": told}
except SfppError as error:
    said = {"error": str(error)}
said["threads"] = [thread.name for thread in threading.enumerate()]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment with the system's packages, and a tree in which ``sfpp.runtime`` is this one."""
    if PYTHON is None or subprocess.run([PYTHON, "-c", HAS_GSTREAMER], capture_output=True).returncode:
        pytest.skip("the system's Python has no OpenCV with GStreamer (Debian: python3-opencv)")
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([PYTHON, "-m", "venv", "--system-site-packages", "--without-pip", str(folder)], check=True)
    (folder / "tree" / "sfpp").mkdir(parents=True)
    (folder / "tree" / "sfpp" / "runtime").symlink_to(ROOT / "runtime")
    return folder


def run(environment, uri, count):
    command = [str(environment / "bin" / "python"), "-c", SCRIPT, uri, str(count)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(environment / "tree")}, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "s3cr3t" not in done.stderr + done.stdout
    said = json.loads(done.stdout)
    assert said.pop("threads") == ["MainThread"]
    return said


def test_a_pipeline(environment):
    blue = "videotestsrc is-live=true pattern=blue ! video/x-raw,width=320,height=192,framerate=30/1"
    said = run(environment, f"gst://{blue}", 10)
    assert (said["live"], said["frames"], said["shape"], said["told"]) == (True, 10, [192, 320, 3], ["opened"])
    assert said["mean"] == pytest.approx([255, 0, 0], abs=8)


@pytest.mark.parametrize("form", ["NV12", "I420", "YUY2", "UYVY", "BGRx"])
@pytest.mark.parametrize("end", ["", " ! appsink"])
def test_a_pipeline_whose_caps_say_its_pixels(environment, form, end):
    caps = f"video/x-raw,format={form},width=320,height=192,framerate=30/1"
    said = run(environment, f"gst://videotestsrc is-live=true pattern=blue ! {caps}{end}", 3)
    assert said["shape"] == [192, 320, 3]
    assert said["mean"] == pytest.approx([255, 0, 0], abs=8)


def test_a_pipeline_that_ends_is_started_anew_and_one_that_counts_is_not(environment):
    said = run(environment, "gst://videotestsrc is-live=true ! identity eos-after=5", 10)
    assert said["frames"] == 10
    assert said["told"][:3] == ["opened", "lost", "back"]
    said = run(environment, "gst://videotestsrc%20num-buffers%3D5%20is-live%3Dtrue", 10)
    assert said["frames"] <= 5
    assert (said["told"], said["warnings"]) == (["opened"], [])


@pytest.mark.skipif(shutil.which("gst-inspect-1.0") is None, reason="GStreamer's tools are missing")
def test_what_this_machine_does_not_have(environment):
    said = run(environment, "csi://0?width=1280&height=720", 1)
    assert said["error"].startswith(
        "a CSI camera cannot be opened: GStreamer has no nvarguscamerasrc, nvvidconv; check"
    )
    assert "The pipeline is: nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1280" in said["error"]
    said = run(environment, "gst://nosuchelement user-pw=s3cr3t ! queue", 1)
    assert "GStreamer has no nosuchelement; check" in said["error"]


def test_a_server_that_does_not_answer_a_pipeline(environment):
    said = run(environment, "gst://rtspsrc location=rtsp://u:s3cr3t@127.0.0.1:1/x ! decodebin", 1)
    assert said["error"].startswith("a GStreamer pipeline cannot be opened: it does not start; check")
