import io
import os
import re
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from sfpp.runtime import MediaError, SfppError, UsageError, files
from sfpp.runtime.video.sinks.raw import RawSink, RawTarget
from sfpp.runtime.video.sinks.records import record_lines
from tests.runtime.video.clips import frame, picture

ROOT = Path(__file__).parents[4]


def written(tmp_path, pixel_format, images, *, on_event=lambda event: None):
    path = tmp_path / "out.raw"
    with RawSink(RawTarget(str(path), pixel_format), on_event=on_event) as sink:
        for index, image in enumerate(images):
            sink.write(frame(index), image)
    return np.frombuffer(path.read_bytes(), np.uint8)


def test_bytes_are_rows_from_the_top_in_the_colors_order(tmp_path):
    images = [picture(0), picture(1)]
    np.testing.assert_array_equal(written(tmp_path, "bgr24", images).reshape(2, 48, 64, 3), images)
    expected = [image[..., ::-1] for image in images]
    np.testing.assert_array_equal(written(tmp_path, "rgb24", images).reshape(2, 48, 64, 3), expected)


def test_labels_are_written_as_they_are_and_colors_as_brightness(tmp_path):
    labels = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)
    np.testing.assert_array_equal(written(tmp_path, "gray8", [labels]).reshape(48, 64), labels)
    np.testing.assert_array_equal(written(tmp_path, "bgr24", [labels]).reshape(48, 64, 3)[..., 1], labels)
    green = np.zeros((48, 64, 3), np.uint8)
    green[..., 1] = 100
    np.testing.assert_array_equal(written(tmp_path, "gray8", [green]), 59)  # 0.587 of it


@pytest.mark.parametrize("size_hw", [(48, 64), (47, 63)])
def test_nv12_is_what_ffmpeg_makes_of_it(tmp_path, size_hw):
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (2, 3, 3), dtype=np.uint8), size_hw[::-1])
    data = written(tmp_path, "nv12", [image])
    grown = np.pad(image, ((0, 48 - size_hw[0]), (0, 64 - size_hw[1]), (0, 0)), mode="edge")
    reference = av.VideoFrame.from_ndarray(grown, format="bgr24").reformat(format="nv12").to_ndarray()
    difference = np.abs(data.reshape(72, 64).astype(int) - reference)
    assert difference.max() <= 6  # FFmpeg and OpenCV average the colors of neighbours differently
    assert difference.mean() < 1
    back = cv2.cvtColor(data.reshape(72, 64), cv2.COLOR_YUV2BGR_NV12).astype(int)
    assert np.abs(back - grown).mean() < 4


def test_ffmpeg_reads_it_with_the_words_of_the_event(tmp_path):
    events = []
    written(tmp_path, "gray8", [np.full((48, 64), index, np.uint8) for index in range(5)], on_event=events.append)
    (event,) = events
    assert event.kind == "opened"
    words = re.fullmatch(
        r"64x48 gray8; FFmpeg reads it with: ffmpeg -f (\S+) -pixel_format (\S+) -video_size (\S+) "
        r"-use_wallclock_as_timestamps 1 -i (\S+)",
        event.detail,
    )
    assert words, event.detail
    options = {"pixel_format": words[2], "video_size": words[3]}
    with av.open(words[4], format=words[1], options=options) as container:
        levels = [image.to_ndarray().max() for image in container.decode(video=0)]
    assert levels == [0, 1, 2, 3, 4]


def test_a_known_rate_is_told(tmp_path):
    events = []
    target = RawTarget(str(tmp_path / "out.raw"))
    with RawSink(target, frames_per_second=Fraction(30000, 1001), on_event=events.append) as sink:
        sink.write(frame(0), picture(0))
    assert "-framerate 30000/1001 -i" in events[0].detail


def test_another_size_is_fitted(tmp_path):
    events = []
    data = written(tmp_path, "bgr24", [picture(0), picture(1, size_hw=(24, 32))], on_event=events.append)
    assert data.size == 2 * 48 * 64 * 3
    assert [event.kind for event in events] == ["opened", "size-changed"]


PIPED = """
import sys
from sfpp.runtime.video.sinks.raw import RawTarget, RawSink
from sfpp.runtime.video.sinks.records import record_lines
from tests.runtime.video.clips import frame, picture
if sys.argv[2:]:
    print(sys.argv[2])  # in Python's own buffer
    sys.stdin.read()  # until the reader has gone
with RawSink(RawTarget("-"), on_event=lambda event: print(event.line(), file=sys.stderr)) as sink:
    for index in range(int(sys.argv[1])):
        sink.write(frame(index), picture(index))
print("went on", file=sys.stderr)
"""


def piped(count, *words):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "PYTHONUNBUFFERED": ""}
    command = [sys.executable, "-c", PIPED, str(count), *words]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, **pipes, env=environment)


def test_standard_output_is_a_pipe_that_may_break():
    with piped(3) as process:
        told, _ = process.communicate()
    expected = [picture(index) for index in range(3)]
    np.testing.assert_array_equal(np.frombuffer(told, np.uint8).reshape(3, 48, 64, 3), expected)
    with piped(200) as process:
        assert len(process.stdout.read(100)) == 100
        process.stdout.close()
        lines = process.stderr.read().decode().splitlines()
    assert lines[1:] == ["standard output: ended: nobody reads the pictures any more", "went on"]
    assert process.returncode == 0


def test_a_reader_that_has_gone_before_the_first_picture_ends_the_pictures_too():
    with piped(3, "printed before") as process:
        process.stdout.close()
        process.stdin.close()
        lines = process.stderr.read().decode().splitlines()
    assert lines[1:3] == ["standard output: ended: nobody reads the pictures any more", "went on"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_that_nobody_reads_is_an_error_and_no_hang(tmp_path, monkeypatch):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(files, "_PIPE_PATIENCE_S", 0.1)
    with RawSink(RawTarget(str(pipe))) as sink, pytest.raises(MediaError, match="nobody reads this pipe"):
        sink.write(frame(0), picture(0))
    with pytest.raises(MediaError, match="nobody reads this pipe"):
        record_lines(pipe).__enter__()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_waits_for_its_reader_and_ends_with_it(tmp_path):
    pipe, events, got = tmp_path / "pipe", [], []
    os.mkfifo(pipe)

    def read():
        with pipe.open("rb") as stream:
            got.append(stream.read(48 * 64 * 3 * 2))

    reader = threading.Thread(target=read)
    with RawSink(RawTarget(str(pipe)), on_event=events.append) as sink:
        reader.start()
        for index in range(60):
            sink.write(frame(index), picture(index))
    reader.join()
    np.testing.assert_array_equal(np.frombuffer(got[0], np.uint8).reshape(2, 48, 64, 3), [picture(0), picture(1)])
    assert [event.kind for event in events] == ["opened", "ended"]


@pytest.mark.parametrize(
    ("uri", "place", "pixel_format"),
    [
        ("raw://-", "-", "bgr24"),
        ("raw://-?format=gray8", "-", "gray8"),
        ("raw:///tmp/a%20pipe?format=nv12", "/tmp/a pipe", "nv12"),
        ("raw://out/frames.raw", "out/frames.raw", "bgr24"),
    ],
)
def test_addresses(uri, place, pixel_format):
    assert RawTarget.from_uri(uri) == RawTarget(place, pixel_format)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("raw://", r"names no place; expected raw://- for standard output or raw:///PATH"),
        ("raw://-?format=gray", r"format is 'gray', did you mean 'gray8'\?; expected bgr24 or rgb24 or nv12 or gray8"),
        ("raw://-?width=3", "there is no option 'width'; raw:// takes format"),
    ],
)
def test_addresses_that_cannot_be_meant(uri, words):
    with pytest.raises(UsageError, match=words):
        RawTarget.from_uri(uri)


def test_a_missing_folder_is_made_when_there_is_something_to_write(tmp_path):
    with RawSink(RawTarget(str(tmp_path / "new" / "x"))) as sink:
        assert list(tmp_path.iterdir()) == []
        sink.write(frame(0), picture(0))
    assert (tmp_path / "new" / "x").read_bytes() == picture(0).tobytes()


def test_a_file_in_place_of_a_folder_and_a_full_disk_are_errors(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SfppError, match="is no folder"), RawSink(RawTarget(str(tmp_path / "file" / "x"))):
        pytest.fail("it opened")
    full = Path(os.devnull).with_name("full")
    if not full.exists():
        pytest.skip("needs the device of Linux that is full")
    with pytest.raises(MediaError, match="cannot write full: No space left"), RawSink(RawTarget(str(full))) as sink:
        sink.write(frame(0), picture(0))


def test_a_pipe_that_takes_less_at_a_time_gets_all():
    from sfpp.runtime.files import write_all

    class Slow(io.RawIOBase):
        def __init__(self):
            self.taken = []
            self.refused = False

        def write(self, data):
            self.refused = not self.refused
            if self.refused:
                return None
            self.taken.append(bytes(data[:3]))
            return len(self.taken[-1])

    slow = Slow()
    write_all(slow, np.arange(10, dtype=np.uint8).data)
    assert b"".join(slow.taken) == bytes(range(10))
