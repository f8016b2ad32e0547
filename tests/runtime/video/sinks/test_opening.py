import errno
import itertools
import os
import re
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from sfpp.runtime import MediaError, MissingDependencyError, SfppError, UsageError
from sfpp.runtime.video import Frame, folder_sink, open_sink, open_source, snapshot_sink
from sfpp.runtime.video.sinks import h264
from sfpp.runtime.video.sinks.h264 import video_sink
from sfpp.runtime.video.sinks.opening import output_from
from sfpp.runtime.video.sinks.push import PushSink
from sfpp.runtime.video.sinks.raw import RawSink
from sfpp.runtime.video.sinks.records import RecordLines
from tests.runtime.video.clips import frame, index_of, picture, read_clip

RATE = Fraction(30000, 1001)


def write_frames(sink, count, *, size_hw=(48, 64)):
    for index in range(count):
        sink.write(frame(index, size_hw=size_hw), picture(index, size_hw=size_hw))


def fail_after(opening, count, error):
    with opening as sink:
        write_frames(sink, count)
        raise error


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "ö und leer.mov", "rec:1.mp4"])
def test_a_video_is_h264_that_browsers_play(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with open_sink(name, frames_per_second=RATE) as sink:
        write_frames(sink, 20)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with av.open(str(tmp_path / name)) as container:
        (stream,) = container.streams
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.width, stream.height) == ("h264", "yuv420p", 64, 48)
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert float(stream.average_rate) == pytest.approx(float(RATE), rel=1e-3)
        times_s = [image.time for image in container.decode(stream)]
    assert times_s == pytest.approx([index / RATE for index in range(20)], abs=1e-3)
    assert [index_of(image) for image in read_clip(tmp_path / name)] == list(range(20))


def test_an_mp4_has_its_index_in_front(tmp_path):
    with open_sink(tmp_path / "out.mp4") as sink:
        write_frames(sink, 3)
    data = (tmp_path / "out.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("color_bgr", [(0, 0, 200), (200, 0, 0), (0, 200, 0), (128, 64, 128), (255, 255, 255)])
def test_colors_survive_the_video(tmp_path, color_bgr):
    image = np.empty((48, 64, 3), np.uint8)
    image[:] = color_bgr
    with open_sink(tmp_path / "out.mp4") as sink:
        sink.write(frame(0), image)
    with open_source(str(tmp_path / "out.mp4")) as source:
        (decoded,) = source
    # Taking BT.709 for BT.601 on one side would be some 20 levels off.
    assert np.abs(decoded.image_bgr.astype(int) - color_bgr).max() <= 6
    with av.open(str(tmp_path / "out.mp4")) as container:
        luma = next(container.decode(video=0)).to_ndarray()[:48]
    blue, green, red = color_bgr
    assert luma.mean() == pytest.approx(16 + 219 / 255 * (0.2126 * red + 0.7152 * green + 0.0722 * blue), abs=1.5)


@pytest.mark.parametrize("size_hw", [(47, 64), (48, 63), (47, 63)])
def test_odd_sizes_grow_by_a_repeated_row_or_column(tmp_path, monkeypatch, size_hw):
    monkeypatch.setattr(h264, "_CRF", 5)
    with video_sink(tmp_path / "out.mp4", frames_per_second=RATE) as sink:
        write_frames(sink, 2, size_hw=size_hw)
    decoded = read_clip(tmp_path / "out.mp4")[1].astype(int)
    assert decoded.shape == (48, 64, 3)
    original = picture(1, size_hw=size_hw).astype(int)
    assert np.abs(decoded[: size_hw[0], : size_hw[1]] - original).mean() < 5
    if size_hw[0] % 2:
        assert np.abs(decoded[-1, : size_hw[1]] - original[-1]).mean() < 8
    if size_hw[1] % 2:
        assert np.abs(decoded[: size_hw[0], -1] - original[:, -1]).mean() < 8


@pytest.mark.parametrize("start_s", [0.0, 2.0])
def test_live_frames_keep_their_own_times(tmp_path, start_s):
    times_s = [start_s + each for each in (0.0, 0.2, 0.2004, 0.9)]
    with open_sink(tmp_path / "out.mp4", frames_per_second=None) as sink:
        for index, time_s in enumerate(times_s):
            sink.write(frame(index, time_s=time_s), picture(index))
    with av.open(str(tmp_path / "out.mp4")) as container:
        expected = [start_s + each for each in (0, 0.2, 0.201, 0.9)]
        assert [image.time for image in container.decode(video=0)] == pytest.approx(expected, abs=1e-4)


def test_a_video_has_one_size(tmp_path):
    events = []
    with open_sink(tmp_path / "out.mp4", on_event=events.append) as sink:
        write_frames(sink, 1)
        sink.write(frame(1), picture(1, size_hw=(24, 32)))
    assert [image.shape for image in read_clip(tmp_path / "out.mp4")] == [(48, 64, 3)] * 2
    (event,) = events
    assert event.kind == "size-changed"
    assert "pictures are 32x24 (width x height) now, written at 64x48 as at the beginning" in event.detail


@pytest.mark.parametrize("count", [1, 30])
def test_ctrl_c_completes_the_video(tmp_path, count):
    with pytest.raises(KeyboardInterrupt):
        fail_after(open_sink(tmp_path / "out.mp4"), count, KeyboardInterrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert len(read_clip(tmp_path / "out.mp4")) == count


def test_an_error_keeps_what_was_encoded(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fail_after(open_sink(tmp_path / "out.mp4"), 5, ZeroDivisionError)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert len(read_clip(tmp_path / "out.mp4")) == 5


def test_where_writing_fails_the_old_video_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "out.mp4").write_bytes(b"old")

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    def written():
        with open_sink(tmp_path / "out.mp4") as sink:
            write_frames(sink, 1)
            monkeypatch.setattr(h264, "encode", full)
            write_frames(sink, 1)

    with pytest.raises(SfppError, match="the disk is full; nothing was left behind"):
        written()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"old"


def with_sound(path, *, codec="aac", rate=48000, frames=20):
    """A clip of 10 frames a second with as many seconds of a rising tone as it lasts, and two more."""
    with av.open(str(path), mode="w") as container:
        container.metadata["creation_time"] = "2021-05-06T07:08:09.000000Z"
        container.metadata["title"] = "Straße"
        video = container.add_stream("libx264", rate=10, options={"bf": "0"})
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        audio = container.add_stream(codec, rate=rate, layout="mono")
        for index in range(frames):
            image = av.VideoFrame.from_ndarray(picture(index), format="bgr24")
            image.pts, image.time_base = index, Fraction(1, 10)
            container.mux(video.encode(image))
        times_s = np.arange(round((frames / 10 + 2) * rate)) / rate
        tone = np.sin(2 * np.pi * (200 + 100 * times_s) * times_s)
        for place in range(0, len(tone), 1024):
            samples = np.rint(20000 * tone[place : place + 1024]).astype(np.int16)[np.newaxis]
            sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            sound.pts, sound.time_base, sound.sample_rate = place, Fraction(1, rate), rate
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def samples_of(path):
    """All sound of a file by its time: a sample, of about -1 to 1, for each 48000th of a second from 0 on."""
    with av.open(str(path)) as container:
        parts = [(frame.time, frame.to_ndarray().ravel()) for frame in container.decode(audio=0)]
    begin = round(parts[0][0] * 48000)
    places = begin + np.cumsum([0, *(len(values) for _, values in parts[:-1])])
    np.testing.assert_allclose([time_s for time_s, _ in parts], places / 48000, atol=2e-3)  # without gaps
    values = np.concatenate([values for _, values in parts])
    scale = 32768 if values.dtype == np.int16 else 1
    return np.concatenate([np.zeros(max(0, begin)), values[max(0, -begin) :] / scale])


def assert_same_sound(found, expected):
    """The same but for the millisecond to which Matroska rounds."""
    shifts = range(-48, 49)
    part = np.arange(9600, 72000)
    assert min(np.abs(found[part + shift] - expected[part]).max() for shift in shifts) < 0.02


def copied(source_path, path, *, frames=None):
    events = []
    with (
        open_source(source_path) as source,
        open_sink(path, frames_per_second=Fraction(10), origin=source.origin, on_event=events.append) as sink,
    ):
        for each in itertools.islice(source, frames):
            sink.write(each, each.image_bgr)
    return events


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_sound_and_what_the_file_says_of_itself_are_copied(tmp_path, name):
    source = with_sound(tmp_path / "in.mp4")
    assert copied(source, tmp_path / name) == []
    expected, found = samples_of(source), samples_of(tmp_path / name)
    assert len(found) == pytest.approx(len(expected), abs=2400)  # longer than the pictures
    assert_same_sound(found, expected)
    assert len(read_clip(tmp_path / name)) == 20
    with av.open(str(tmp_path / name)) as container:
        said = {key.lower(): text for key, text in container.metadata.items()}
        assert said["title"] == "Straße"
        if name != "out.mkv":
            assert said["creation_time"] == "2021-05-06T07:08:09.000000Z"


def test_sound_ends_with_the_pictures_where_a_part_is_run(tmp_path):
    source = with_sound(tmp_path / "in.mp4")
    copied(source, tmp_path / "out.mp4", frames=10)
    assert len(samples_of(tmp_path / "out.mp4")) / 48000 == pytest.approx(1.0, abs=0.05)


def test_sound_keeps_its_place_where_pictures_begin_later(tmp_path):
    source = with_sound(tmp_path / "in.mkv", codec="pcm_s16le")
    late = tmp_path / "late.mkv"
    with av.open(str(source)) as given, av.open(str(late), mode="w") as container:
        streams = {each.index: container.add_stream_from_template(each) for each in given.streams}
        for packet in given.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "video":
                packet.pts, packet.dts = packet.pts + 500, packet.dts + 500  # milliseconds
            packet.stream = streams[packet.stream.index]
            container.mux(packet)
    copied(late, tmp_path / "out.mkv")
    expected, found = samples_of(source), samples_of(tmp_path / "out.mkv")
    assert_same_sound(found, expected[24000:])


def test_sound_that_the_container_cannot_hold_is_told_of(tmp_path):
    source = with_sound(tmp_path / "in.mkv", codec="wavpack")
    (event,) = copied(source, tmp_path / "out.mov")
    assert event.line() == "out.mov: note: the sound is left out, since mov holds no wavpack; .mkv does"
    with av.open(str(tmp_path / "out.mov")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(1000), Fraction(7, 3)])
def test_frames_keep_their_times_whatever_the_rate_is_said_to_be(tmp_path, name, rate):
    times_s = [0.0, 0.033, 0.2, 0.201, 1.5, 1.5333, 7.0]
    with open_sink(tmp_path / name, frames_per_second=rate) as sink:
        for index, time_s in enumerate(times_s):
            sink.write(frame(index, time_s=time_s), picture(index))
    with av.open(str(tmp_path / name)) as container:
        assert [image.time for image in container.decode(video=0)] == pytest.approx(times_s, abs=1e-3)


def test_frames_without_times_are_as_far_apart_as_the_rate_says(tmp_path):
    with open_sink(tmp_path / "out.mp4", frames_per_second=Fraction(30000, 1001)) as sink:
        write_frames(sink, 5)
    with av.open(str(tmp_path / "out.mp4")) as container:
        times_s = [image.time for image in container.decode(video=0)]
    assert times_s == pytest.approx([index * 1001 / 30000 for index in range(5)], abs=1e-6)


def test_no_frame_means_no_video(tmp_path):
    with open_sink(tmp_path / "out.mp4"):
        pass
    with pytest.raises(KeyboardInterrupt), open_sink(tmp_path / "out.mp4"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_without_pyav_a_video_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=re.escape("pip install 'sfpp[video]'")):
        open_sink(tmp_path / "out.mp4").__enter__()
    assert list(tmp_path.iterdir()) == []


def test_the_name_chooses_the_sink(tmp_path):
    (tmp_path / "old.masks").mkdir()
    for name in ("folder", "with.dot/", "old.masks", "deep/er"):
        with open_sink(f"{tmp_path}/{name}") as sink:
            write_frames(sink, 2)
        written = sorted(path.name for path in (tmp_path / name).iterdir())
        assert written == ["frame-0.png", "frame-1.png"]
    with open_sink(tmp_path / "out.PNG", count=1) as sink:
        write_frames(sink, 1)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out.PNG")), picture(0))


@pytest.mark.parametrize(
    ("name", "count", "words"),
    [
        ("out.txt", 1, r"cannot tell what to write to .*out\.txt: expected a folder, or a name ending in \.mp4"),
        ("out.webm", 1, "cannot tell what to write"),
        ("out.png", 12, "holds one picture, but 12 frames will come; give a folder"),
        ("out.png", None, "holds one picture, but any number of frames will come"),
    ],
)
def test_names_that_do_not_fit_are_usage_errors(tmp_path, name, count, words):
    with pytest.raises(UsageError, match=words):
        open_sink(tmp_path / name, count=count)


@pytest.mark.skipif(sys.platform == "win32", reason="standard output has no path here")
def test_standard_output_by_its_path_says_nothing_of_what_to_write():
    with pytest.raises(UsageError, match="cannot tell what to write to /dev/stdout: expected a folder, or a name"):
        open_sink("/dev/stdout", count=1)


def test_live_videos_are_recordings_that_keep_their_own_times(tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"old")
    with open_sink(tmp_path / "out.mp4", frames_per_second=RATE, live=True) as sink:
        for index, time_s in enumerate((0.0, 0.5, 0.7)):
            sink.write(frame(index, time_s=time_s), picture(index))
            assert sorted(path.name for path in tmp_path.iterdir()) == ["out-1.mp4", "out.mp4"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [image.time for image in container.decode(video=0)] == pytest.approx([0, 0.5, 0.7], abs=1e-3)
    assert (tmp_path / "out-1.mp4").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("out.jsonl", RecordLines),
        ("OUT.JSONL", RecordLines),
        ("-", RecordLines),
        ("raw://-?format=gray8", RawSink),
        ("raw://out.raw", RawSink),
        ("rtsp://user:pw@127.0.0.1:1/x", PushSink),
        ("RTMP://127.0.0.1/app/key", PushSink),
        ("udp://127.0.0.1:9", PushSink),
    ],
)
def test_addresses_and_lines_choose_live_sinks(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    with open_sink(name, live=True) as sink:
        assert isinstance(sink, kind)


def test_a_window_is_opened_by_its_address(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MediaError, match=r"window:// needs .* browser viewer"), open_sink("window://"):
        pytest.fail("it opened")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("out/street.mp4", "out/street.mp4"),
        ("rec:1.mp4", "rec:1.mp4"),
        ("-", "-"),
        ("raw://-", "raw://-"),
        ("rtsp://user:pw@host/x", "rtsp://host/x"),
        ("rtmp://host/app/key", "rtmp://host/app"),
    ],
)
def test_names_for_messages_hold_no_secret(name, shown):
    assert output_from(name).name == shown


def test_what_is_given_to_a_live_sink_reaches_it(tmp_path):
    events = []
    with open_sink("raw://" + str(tmp_path / "out.raw"), frames_per_second=RATE, on_event=events.append) as sink:
        sink.write(frame(0), picture(0))
    assert "-framerate 30000/1001" in events[0].detail
    with open_sink(
        "raw://" + str(tmp_path / "live.raw"), frames_per_second=RATE, live=True, on_event=events.append
    ) as sink:
        sink.write(frame(0), picture(0))
    assert "-use_wallclock_as_timestamps 1" in events[1].detail


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "rtps://host/x",
            r"nothing can be written to rtps://, did you mean 'rtsps'\?; expected raw://, window://, rtsp",
        ),
        ("http://host/x.mp4", r"nothing can be written to http://"),
        ("rtsp://user:pw@host", r"this rtsp:// address is not complete; expected rtsp://HOST:8554/PATH"),
        ("raw://-?format=yuv", r"format is 'yuv'; expected bgr24 or rgb24 or nv12 or gray8"),
        ("window:", r"window: would be a folder; did you mean window://\?"),
        ("rtmp:/host/app/key", r"did you mean rtmp://host/app/key\?"),
        ("rtsp:/me:secret@host/x", r"^rtsp:/host/x would be a folder; did you mean rtsp://host/x\?"),
    ],
)
def test_addresses_that_do_not_fit_are_usage_errors(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        open_sink(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.mp4", "out.png", "out.jsonl", "out/"])
@pytest.mark.parametrize("live", [False, True])
def test_a_missing_folder_is_made_unless_nothing_comes_into_it(tmp_path, name, live):
    path = f"{tmp_path}/new/er/{name}"
    with pytest.raises(ZeroDivisionError), open_sink(path, count=1, live=live):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with open_sink(path, count=1, live=live) as sink:
        sink.write(frame(0), picture(0))
    assert Path(path).exists()


@pytest.mark.parametrize("name", ["out.mp4", "out.png"])
def test_what_is_no_folder_is_named_before_any_work(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(SfppError, match=r"file is no folder"), open_sink(tmp_path / "file" / name, count=1):
        pytest.fail("the sink opened")


def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(SfppError, match="cannot create the folder"), folder_sink(tmp_path / "taken"):
        pytest.fail("the sink opened")


def test_a_folder_that_received_nothing_goes_again(tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("old", "new"):
        with folder_sink(tmp_path / name):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_masks_keep_their_values(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with folder_sink(tmp_path / "masks") as sink:
        sink.write(Frame(0, picture(0), 0.0, "mask"), labels)
    stored = cv2.imread(str(tmp_path / "masks" / "mask.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, labels)


@pytest.mark.parametrize(
    ("count", "frames", "expected"),
    [(1, 1, 0), (10, 10, 5), (11, 11, 5), (10, 3, 2), (None, 1, 0), (None, 10, 8), (None, 17, 16), (None, 16, 8)],
)
def test_a_snapshot_is_from_the_middle(tmp_path, count, frames, expected):
    with snapshot_sink(tmp_path / "shot.png", count=count) as sink:
        write_frames(sink, frames)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "shot.png")), picture(expected))


def test_a_snapshot_survives_ctrl_c_but_no_error(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fail_after(snapshot_sink(tmp_path / "kept.png", count=10), 3, KeyboardInterrupt)
    with pytest.raises(ZeroDivisionError):
        fail_after(snapshot_sink(tmp_path / "lost.png", count=10), 3, ZeroDivisionError)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.png"]


def test_a_snapshot_is_a_picture():
    with pytest.raises(UsageError, match="is no name for a picture"), snapshot_sink(Path("shot.mp4")):
        pytest.fail("the sink opened")


def test_a_folder_of_pictures_waits_for_the_disk_once(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(os, "fsync", lambda number: waits.append("file"))
    monkeypatch.setattr(os, "sync", lambda: waits.append("all"))
    with folder_sink(tmp_path / "pictures") as sink:
        for number in range(3):
            image = picture(number)
            sink.write(Frame(number, image, 0.0, f"f{number}"), image)
    assert waits == ["all"]
    assert len(list((tmp_path / "pictures").iterdir())) == 3
