import os
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sfpp.runtime import MediaError
from sfpp.runtime.video import open_source
from sfpp.runtime.video.readers import policy_for
from sfpp.runtime.video.sources.raw import RawFormat

ROOT = Path(__file__).parents[4]
OPTIONS = "width=6&height=4"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def bgr_from_yuv(luma, blue, red):
    """BT.601, limited range, one pixel at a time."""
    bgr = np.zeros((*luma.shape, 3))
    for place in np.ndindex(luma.shape):
        y, u, v = 1.164 * (float(luma[place]) - 16), float(blue[place]) - 128, float(red[place]) - 128
        bgr[place] = y + 2.018 * u, y - 0.391 * u - 0.813 * v, y + 1.596 * v
    return np.clip(bgr, 0, 255)


def test_colors_of_every_format():
    packed = noise(4, 6, 3)
    np.testing.assert_array_equal(RawFormat("bgr24", 6, 4).to_bgr(packed), packed)
    np.testing.assert_array_equal(RawFormat("rgb24", 6, 4).to_bgr(packed), packed[..., ::-1])
    planes = np.clip(noise(6, 6, seed=1), 16, 235)  # what lies outside cannot be
    chroma = planes[4:].reshape(2, 3, 2).repeat(2, 0).repeat(2, 1)
    expected = bgr_from_yuv(planes[:4], chroma[..., 0], chroma[..., 1])
    assert np.abs(RawFormat("nv12", 6, 4).to_bgr(planes) - expected).max() <= 2
    pairs = np.clip(noise(4, 6, 2, seed=2), 16, 235)
    expected = bgr_from_yuv(pairs[..., 0], pairs[:, 0::2, 1].repeat(2, 1), pairs[:, 1::2, 1].repeat(2, 1))
    assert np.abs(RawFormat("yuyv", 6, 4).to_bgr(pairs) - expected).max() <= 2


@pytest.mark.parametrize("layout", ["bgr24", "rgb24", "nv12", "yuyv"])
def test_a_file_of_frames(tmp_path, layout):
    raw_format = RawFormat(layout, 6, 4)
    raw = noise(3, *raw_format.shape)
    path = tmp_path / "a recording.raw"
    path.write_bytes(raw.tobytes())
    with open_source(f"raw://{str(path).replace(' ', '%20')}?{OPTIONS}&format={layout}&fps=10") as source:
        assert (source.kind, source.live, source.name, source.count) == ("video", False, "a-recording", 3)
        assert (source.paths, source.frames_per_second) == ((path,), 10)
        frames = list(source)
    assert source.warnings == []
    for frame, expected in zip(frames, raw, strict=True):
        np.testing.assert_array_equal(frame.image_bgr, raw_format.to_bgr(expected))
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2])
    assert frames[2].name == "a-recording-000002"


def test_a_cut_off_frame_is_left_out_and_told(tmp_path):
    path = tmp_path / "cut.raw"
    path.write_bytes(noise(2 * 72 + 5).tobytes())
    with open_source(f"raw://{path}?{OPTIONS}&format=bgr24") as source:
        assert len(list(source)) == 2
    (warning,) = source.warnings
    assert warning.startswith(
        "cut: the last frame is cut off after 5 of 72 bytes and left out; check that frames are 6x4"
    )
    path.write_bytes(b"")
    with open_source(f"raw://{path}?{OPTIONS}&format=bgr24") as source, pytest.raises(MediaError, match="no frame"):
        next(iter(source))


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_a_live_fifo_need_not_have_a_writer_yet(fifo):
    raw = noise(3, 4, 6, 3)
    with open_source(f"raw://{fifo}?{OPTIONS}&format=bgr24&live=1") as source:
        assert (source.kind, source.live, source.count, source.frames_per_second) == ("stream", True, None, None)

        def write():
            with fifo.open("wb", buffering=0) as file:
                data = raw.tobytes()
                for place in range(0, len(data), 50):  # which is no multiple of a frame
                    file.write(data[place : place + 50])

        thread = threading.Thread(target=write)
        thread.start()
        frames = list(source)
        thread.join()
    for frame, expected in zip(frames, raw, strict=True):
        np.testing.assert_array_equal(frame.image_bgr, expected)
    times = [frame.taken_s - frames[0].taken_s for frame in frames]
    assert [frame.time_s for frame in frames] == pytest.approx(times)


def test_every_frame_of_a_pipe_is_taken_unless_it_is_live(fifo):
    for options, policy in (("", "every-frame"), ("&live=0", "every-frame"), ("&live=1", "freshest")):
        with open_source(f"raw://{fifo}?{OPTIONS}&format=bgr24&fps=30000/1001{options}") as source:
            rate = None if policy == "freshest" else Fraction(30000, 1001)
            assert (policy_for(source, None), source.frames_per_second) == (policy, rate)
            assert policy_for(source, "freshest") == "freshest"


def test_a_rate_that_is_not_told_is_assumed_with_a_word(fifo):
    events = []
    with open_source(f"raw://{fifo}?{OPTIONS}&format=bgr24", on_event=events.append) as source:
        assert source.frames_per_second == 25
    assert [event.line() for event in events] == [
        "fifo: note: taken as 25 frames a second; fps= in the address says another rate"
    ]


def test_closing_ends_the_wait_for_a_writer(fifo):
    source = open_source(f"raw://{fifo}?{OPTIONS}&format=bgr24")
    handles = len(list(Path("/proc/self/fd").iterdir()))
    done = threading.Event()

    def take():
        with pytest.raises(MediaError, match="was closed before its first frame came"):
            next(iter(source))
        done.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not done.wait(0.1)
    source.close()
    assert done.wait(20)
    thread.join()
    assert len(list(Path("/proc/self/fd").iterdir())) == handles - 1


def test_standard_input():
    raw = noise(3, 4, 6, 3)
    script = (
        "import sys\nfrom sfpp.runtime.video import open_source\n"
        f"with open_source('raw://-?{OPTIONS}&format=bgr24') as source:\n"
        "    assert not source.live and source.name == 'raw', source.name\n"
        "    for frame in source:\n        sys.stdout.buffer.write(frame.image_bgr.tobytes())\n"
        "sys.exit(source.warnings[0])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, input=raw.tobytes() + b"rest", capture_output=True)
    assert done.stdout == raw.tobytes()
    assert b"raw: the last frame is cut off after 4 of 72 bytes" in done.stderr


def test_what_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(
        MediaError, match=r"raw://- reads frames from a pipe, and there is none; as in: camera \| sfpp-run"
    ):
        open_source(f"raw://-?{OPTIONS}&format=bgr24")
    with pytest.raises(MediaError, match=r"nothing\.raw cannot be read: No such file"):
        open_source(f"raw://{tmp_path}/nothing.raw?{OPTIONS}&format=bgr24")
    with pytest.raises(MediaError, match="expected a FIFO or a file"):
        open_source(f"raw://{tmp_path}?{OPTIONS}&format=bgr24")
