import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from sfpp.runtime import MediaError, MissingDependencyError, SfppError
from sfpp.runtime.video.sinks.h264 import recording_sink
from tests.runtime.video.clips import frame, index_of, picture, read_clip

ROOT = Path(__file__).parents[4]
WRITER = """
import sys, time
from sfpp.runtime.video.sinks.h264 import recording_sink
from tests.runtime.video.clips import frame, picture
path, count, step_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
from pathlib import Path
with recording_sink(Path(path)) as sink:
    for index in range(count):
        sink.write(frame(index, time_s=index * step_s), picture(index))
    print("written", flush=True)
    time.sleep(60)
"""


def write_frames(sink, times_s):
    for index, time_s in enumerate(times_s):
        sink.write(frame(index, time_s=time_s), picture(index))


def killed_while_writing(path, *, count, step_s):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", WRITER, str(path), str(count), str(step_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
@pytest.mark.parametrize(("count", "step_s"), [(57, 1 / 30), (26, 0.2)])
def test_what_sigkill_leaves_can_be_played_up_to_the_last_moment(tmp_path, name, count, step_s):
    path = tmp_path / name
    killed_while_writing(path, count=count, step_s=step_s)
    with av.open(str(path)) as container:
        times_s = [image.time for image in container.decode(video=0)]
    last_s = (count - 1) * step_s
    assert times_s == pytest.approx([index * step_s for index in range(len(times_s))], abs=2e-3)
    assert last_s - times_s[-1] <= 0.25 + step_s + 1e-3
    assert [index_of(image) for image in read_clip(path)] == list(range(len(times_s)))
    # What a killed program has left must open in the middle too.
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(round(1.5 / stream.time_base), stream=stream)
        assert next(container.decode(stream)).time == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "rec:1.mp4"])
def test_a_closed_recording_is_an_ordinary_video(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    times_s = [5 + time_s for time_s in (0, 0.2, 0.2004, 0.9, *(1 + index / 20 for index in range(70)))]
    with recording_sink(Path(name)) as sink:
        write_frames(sink, times_s)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with av.open(str(tmp_path / name)) as container:
        (stream,) = container.streams
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.width, stream.height) == ("h264", "yuv420p", 64, 48)
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert context.has_b_frames == 0
        assert container.duration / 1e6 == pytest.approx(4.5, abs=0.1)
        decoded = [(image.time, image.key_frame) for image in container.decode(stream)]
        stamps_s = [time_s - 5 for time_s in times_s]
        stamps_s[2] = 0.201  # they must differ
        assert [time_s for time_s, _ in decoded] == pytest.approx(stamps_s, abs=1e-3)
        assert [time_s for time_s, key in decoded if key] == pytest.approx([0, 1, 2, 3, 4], abs=1e-3)
        for target_s, expected_s in ((3.7, 3.0), (1.2, 1.0), (4.4, 4.0), (0.1, 0.0)):
            container.seek(round(target_s / stream.time_base), stream=stream)
            assert next(container.decode(stream)).time == pytest.approx(expected_s, abs=1e-3)


def test_a_closed_mp4_has_one_index_and_no_fragments(tmp_path):
    with recording_sink(tmp_path / "out.mp4") as sink:
        write_frames(sink, [index / 20 for index in range(50)])
    data, place, boxes = (tmp_path / "out.mp4").read_bytes(), 0, []
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        size = size if size != 1 else int.from_bytes(data[place + 8 : place + 16], "big")
        boxes.append(data[place + 4 : place + 8].decode())
        place += size
    if av.library_versions["libavformat"] >= (61, 7):
        assert boxes[0] == "ftyp"
        assert boxes.count("moov") == 1
        assert "moof" not in boxes
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert "creation_time" in container.metadata


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_whatever_ends_it_what_was_recorded_stays(tmp_path, error):
    def interrupted():
        with recording_sink(tmp_path / "out.mp4") as sink:
            write_frames(sink, [index / 20 for index in range(7)])
            raise error

    with pytest.raises(error):
        interrupted()
    assert [index_of(image) for image in read_clip(tmp_path / "out.mp4")] == list(range(7))


def test_pictures_of_another_size_are_fitted(tmp_path):
    events = []
    with recording_sink(tmp_path / "out.mp4", on_event=events.append) as sink:
        sink.write(frame(0), picture(0))
        sink.write(frame(1, time_s=0.1), np.full((48, 32, 3), 180, np.uint8))
        sink.write(frame(2, time_s=0.2), picture(2)[..., 0])
    first, second, third = read_clip(tmp_path / "out.mp4")
    assert first.shape == second.shape == third.shape == (48, 64, 3)
    assert second[:, 20:44].mean() == pytest.approx(180, abs=3)
    assert second[:, :14].mean() < 3
    assert [event.kind for event in events] == ["size-changed", "size-changed"]


def test_an_older_recording_is_not_overwritten(tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"old")
    (tmp_path / "out-1.mp4").write_bytes(b"older")
    events = []
    with recording_sink(tmp_path / "out.mp4", on_event=events.append) as sink:
        write_frames(sink, [0.0, 0.1])
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "out-1.mp4", "out-2.mp4"}
    assert (tmp_path / "out-2.mp4").read_bytes() == b"old"
    assert (tmp_path / "out-1.mp4").read_bytes() == b"older"
    assert len(read_clip(tmp_path / "out.mp4")) == 2
    assert events[0].line() == "out.mp4: note: the older file of this name is out-2.mp4 now"


def test_no_frame_means_no_file(tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"old")
    with recording_sink(tmp_path / "out.mp4"), recording_sink(tmp_path / "new.mp4"):
        pass
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out.mp4", b"old")]


FULL_DISK = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
from sfpp.runtime.errors import MediaError
from sfpp.runtime.video.sinks.h264 import recording_sink
from tests.runtime.video.clips import frame, picture
written = 0
try:
    with recording_sink(Path(sys.argv[1])) as sink:
        for index in range(500):
            sink.write(frame(index, time_s=index / 30), picture(index))
            written += 1
except MediaError as error:
    print(written, error)
"""


def test_a_full_disk_is_named_and_what_was_written_can_be_played(tmp_path):
    path = tmp_path / "out.mp4"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    found = re.fullmatch(
        r"(\d+) cannot record to .*out\.mp4 \(File too large\); what was written before can be played\. Make room.*\n",
        told,
    )
    assert found, told
    written = int(found[1])
    assert 5 < written < 500
    played = 0
    with av.open(str(path)) as container, contextlib.suppress(av.FFmpegError):  # the last fragment may be torn
        for _ in container.decode(video=0):
            played += 1
    assert written - played <= 10


def test_what_cannot_work_is_told_before_any_frame(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(SfppError, match="file is no folder"), recording_sink(tmp_path / "file" / "out.mp4"):
        pytest.fail("the sink opened")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"writing out\.mp4 needs PyAV"):
        recording_sink(tmp_path / "out.mp4").__enter__()


def test_a_folder_that_has_gone_is_an_error(tmp_path):
    def recorded():
        (tmp_path / "disk").mkdir()
        with recording_sink(tmp_path / "disk" / "out.mp4") as sink:
            (tmp_path / "disk").rmdir()
            write_frames(sink, [0.0])

    with pytest.raises(MediaError, match=r"cannot record to .*out\.mp4 \(No such file or directory\)\. Make room"):
        recorded()
