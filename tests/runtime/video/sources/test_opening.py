import contextlib
import gc
import importlib.util
import os
import threading
import time
import wave
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from sfpp.runtime import MediaError, UsageError
from sfpp.runtime.demo import demo_clip
from sfpp.runtime.video import Source, open_source
from sfpp.runtime.video.frame import Decoded
from sfpp.runtime.video.readers import policy_for
from sfpp.runtime.video.sources.opening import each_source, open_folder
from tests.runtime.video.clips import index_of, picture, read_clip, write_clip


def read_all(path):
    with open_source(str(path)) as source:
        return list(source), source.warnings


def test_an_image_is_one_frame(tmp_path):
    path = tmp_path / "häuser am see.png"
    path.write_bytes(cv2.imencode(".png", picture(3))[1].tobytes())
    with open_source(str(path)) as source:
        assert (source.kind, source.name, source.count, source.size_hw) == ("picture", "häuser am see", 1, (48, 64))
        (frame,) = source
    np.testing.assert_array_equal(frame.image_bgr, picture(3))
    assert (frame.index, frame.name, frame.time_s) == (0, "häuser am see", 0.0)


def test_a_gray_image_becomes_bgr(tmp_path):
    cv2.imwrite(str(tmp_path / "gray.png"), picture(0)[..., 0])
    ((frame,), _) = read_all(tmp_path / "gray.png")
    np.testing.assert_array_equal(frame.image_bgr, np.repeat(picture(0)[..., :1], 3, axis=2))


def test_a_source_is_read_once(tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), picture(0))
    with open_source(str(tmp_path / "photo.png")) as source:
        assert len(list(source)) == 1
        with pytest.raises(MediaError, match="photo was read to its end already, and is read once; open it again"):
            list(source)


def test_a_folder_is_sorted_as_people_count(tmp_path):
    for index in (10, 9, 1, 100):
        cv2.imwrite(str(tmp_path / f"Frame{index}.png"), picture(index, size_hw=(index + 1, 5)))
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    frames, warnings = read_all(tmp_path)
    assert [frame.name for frame in frames] == ["Frame1", "Frame9", "Frame10", "Frame100"]
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert [frame.image_bgr.shape[0] for frame in frames] == [2, 10, 11, 101]
    assert warnings == [f"{tmp_path} holds other files, which are left out: 1 .txt"]


def test_a_folder_of_folders_is_the_pictures_below(tmp_path):
    for place in ("b/1.png", "a/10.png", "a/9.png", ".git/x.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / place), picture(0))
    frames, warnings = read_all(tmp_path)
    assert [frame.name for frame in frames] == ["9", "10", "1"]
    assert warnings == [f"{tmp_path} holds no pictures itself: those of 2 folders below it are read"]
    assert each_source(str(tmp_path)) == [str(tmp_path)]
    cv2.imwrite(str(tmp_path / "own.png"), picture(0))
    assert [frame.name for frame in read_all(tmp_path)[0]] == ["own"]


def test_an_unreadable_picture_is_skipped_and_named(tmp_path):
    for name in ("a.png", "c.png"):
        cv2.imwrite(str(tmp_path / name), picture(0))
    (tmp_path / "b.png").write_text("no picture")
    frames, warnings = read_all(tmp_path)
    assert [frame.name for frame in frames] == ["a", "c"]
    assert len(warnings) == 1
    assert "b.png" in warnings[0]


def test_pictures_of_one_stem_keep_different_names(tmp_path):
    for name in ("a.png", "a.jpg", "b.png"):
        cv2.imwrite(str(tmp_path / name), picture(0))
    frames, _ = read_all(tmp_path)
    assert [frame.name for frame in frames] == ["a_jpg", "a_png", "b"]


def test_a_folder_without_any_readable_picture_is_an_error(tmp_path):
    with pytest.raises(MediaError, match="holds no pictures and no videos; expected files ending in"):
        open_source(str(tmp_path))
    (tmp_path / "b.png").write_text("no picture")
    with open_source(str(tmp_path)) as source, pytest.raises(MediaError, match=r"no frame .*b\.png"):
        next(iter(source))


def test_the_current_folder_has_a_name(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    monkeypatch.chdir(tmp_path)
    assert open_folder(tmp_path).name == open_source(".").name == tmp_path.name


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "mit leerzeichen ü.mov", "rec:1.avi"])
def test_a_video_yields_its_frames_in_order(tmp_path, monkeypatch, name):
    rate = Fraction(30000, 1001)
    write_clip(tmp_path / name, frames=20, rate=rate)
    monkeypatch.chdir(tmp_path)
    with open_source(name) as source:
        assert (source.kind, source.count, source.size_hw) == ("video", 20, (48, 64))
        assert float(source.frames_per_second) == pytest.approx(float(rate), rel=1e-3)
        frames = list(source)
        assert source.warnings == []
    assert [frame.index for frame in frames] == list(range(20))
    assert [frame.time_s for frame in frames] == pytest.approx([index / rate for index in range(20)], abs=2e-3)
    assert frames[7].name == f"{Path(name).stem}-000007"
    assert [index_of(frame.image_bgr) for frame in frames] == list(range(20))
    assert frames[7].image_bgr.mean() == pytest.approx(picture(7).mean(), abs=3)


def test_the_first_frame_is_not_lost_by_asking_for_the_size(tmp_path):
    write_clip(tmp_path / "clip.mp4", frames=3)
    with open_source(str(tmp_path / "clip.mp4")) as source:
        assert source.size_hw == source.size_hw == (48, 64)
        assert [frame.index for frame in source] == [0, 1, 2]


# The matrix of a track header: what turns the picture, column by column, as phones write it.
MATRICES = {
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


@pytest.mark.parametrize("clockwise", sorted(MATRICES))
def test_a_rotated_video_is_turned_upright(tmp_path, clockwise):
    path = write_clip(tmp_path / "clip.mp4", frames=2)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    for place, value in zip((0, 4, 12, 16), MATRICES[clockwise], strict=True):
        data[matrix + place : matrix + place + 4] = (value * 0x10000).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    frames, _ = read_all(path)
    capture = cv2.VideoCapture(str(path))
    upright = capture.read()[1]
    capture.release()
    assert frames[0].image_bgr.shape == upright.shape
    assert np.abs(frames[0].image_bgr.astype(int) - upright).mean() < 3
    turned = np.rot90(picture(0), -clockwise // 90)
    assert np.abs(frames[0].image_bgr.astype(int) - turned).mean() < 12


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_cut_video_keeps_what_was_decoded_and_says_so(tmp_path, name):
    path = write_clip(tmp_path / name, movflags="+faststart") if name.endswith("mp4") else write_clip(tmp_path / name)
    whole = read_clip(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames, warnings = read_all(path)
    assert 20 < len(frames) < 40
    # The cut may run through the last picture that is shown.
    for frame, expected in zip(frames[:-1], whole, strict=False):
        np.testing.assert_array_equal(frame.image_bgr, expected)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{name}: the video breaks off after {len(frames)} of 60 frames (")
    assert warnings[0].endswith("; kept what was decoded")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_video_that_ends_in_rubbish_keeps_what_was_decoded_and_says_so(tmp_path, name):
    path = write_clip(tmp_path / name, movflags="+faststart") if name.endswith("mp4") else write_clip(tmp_path / name)
    data = path.read_bytes()
    half = len(data) // 2
    path.write_bytes(data[:half] + np.random.default_rng(0).bytes(len(data) - half))
    frames, warnings = read_all(path)
    assert 20 < len(frames) < 40
    assert len(warnings) == 1
    assert f"breaks off after {len(frames)} of 60 frames" in warnings[0]


def packet_places(path):
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def test_a_lost_packet_costs_one_frame_and_is_reported(tmp_path):
    path = write_clip(tmp_path / "clip.mp4")
    place, size = packet_places(path)[29]  # the last before a key frame, so that no other needs it
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    frames, warnings = read_all(path)
    assert [index_of(frame.image_bgr) for frame in frames] == [index for index in range(60) if index != 29]
    assert warnings == [
        "clip.mp4: 1 frame is damaged (Invalid data found when processing input): left out, or shown as far as decoded"
    ]


def test_a_damaged_packet_is_shown_as_far_as_decoded_and_reported(tmp_path):
    path = write_clip(tmp_path / "clip.mp4")
    place, size = packet_places(path)[29]
    data = bytearray(path.read_bytes())
    data[place + size // 2 : place + size] = np.random.default_rng(0).bytes(size - size // 2)
    path.write_bytes(data)
    frames, warnings = read_all(path)
    assert len(frames) == 60
    assert warnings == ["clip.mp4: 1 frame is damaged: left out, or shown as far as decoded"]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_rubbish_behind_a_whole_video_does_no_harm(tmp_path, name):
    path = write_clip(tmp_path / name, frames=20)
    with path.open("ab") as file:
        file.write(np.random.default_rng(0).bytes(100_000))
    frames, warnings = read_all(path)
    assert len(frames) == 20
    assert warnings == []


def test_a_video_left_early_is_not_called_broken(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=10)
    with open_source(str(path)) as source:
        assert next(iter(source)).index == 0
    assert source.warnings == []


def test_files_that_are_no_video_are_refused_in_one_line(tmp_path):
    (tmp_path / "text.mp4").write_text("hello, this is no video\n" * 100)
    (tmp_path / "text.txt").write_text("hello, this is no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    whole = write_clip(tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # the index was at the end
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    for name, words in {
        "text.mp4": r"cannot be opened as a video \(Invalid data",
        "text.txt": "holds no pictures, only text",
        "empty.mp4": r"is empty \(0 bytes\)",
        "cut.mp4": "lacks its index",
        "sound.wav": "holds no pictures, only audio",
    }.items():
        with pytest.raises(MediaError, match=words) as caught:
            open_source(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_a_video_without_frames_is_refused(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=4, movflags="+faststart")
    data = path.read_bytes()
    content = data.index(b"mdat") + 4
    path.write_bytes(data[:content] + bytes(len(data) - content))
    with open_source(str(path)) as source, pytest.raises(MediaError, match="holds no frame that can be decoded"):
        next(iter(source))


def test_a_missing_path_names_the_nearest(tmp_path):
    (tmp_path / "highway.mp4").touch()
    with pytest.raises(MediaError, match=r"hihgway\.mp4 does not exist; did you mean .*highway\.mp4\?"):
        open_source(str(tmp_path / "hihgway.mp4"))
    with pytest.raises(MediaError, match="expected an image, a folder of images, a video"):
        open_source(str(tmp_path / "quite-another"))
    with pytest.raises(MediaError, match="nor does its folder"):
        open_source(str(tmp_path / "nowhere" / "highway.mp4"))


def test_demo_is_the_shipped_clip_unless_a_file_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_source("demo") as source:
        assert (source.name, source.count, source.size_hw, source.frames_per_second) == ("highway", 125, (540, 960), 25)
    assert demo_clip().stat().st_size < 2_200_000
    write_clip(tmp_path / "clip.mkv", frames=2).rename(tmp_path / "demo")
    frames, _ = read_all("demo")
    assert len(frames) == 2


def test_without_pyav_opencv_reads_the_same(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", frames=12, rate=Fraction(30000, 1001))
    with open_source(str(path)) as source:
        through_pyav = list(source)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "av" else found(name))
    with open_source(str(path)) as source:
        assert (source.count, source.frames_per_second) == (12, Fraction(30000, 1001))
        through_opencv = list(source)
    assert [frame.name for frame in through_opencv] == [frame.name for frame in through_pyav]
    for one, other in zip(through_opencv, through_pyav, strict=True):
        assert one.time_s == pytest.approx(other.time_s, abs=1e-3)
        assert np.abs(one.image_bgr.astype(int) - other.image_bgr).mean() < 3


def test_a_pattern_is_the_pictures_that_match(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for index, name in enumerate(("a10.png", "a9.png", "b1.jpg", "a[1].png")):
        cv2.imwrite(str(tmp_path / "images" / name), picture(index))
    (tmp_path / "images" / "a1.txt").write_text("no picture")
    with open_source("images/a*") as source:
        assert (source.kind, source.name, source.count, source.live) == ("folder", "images", 3, False)
        assert [path.name for path in source.paths] == ["a9.png", "a10.png", "a[1].png"]
        assert [frame.name for frame in source] == ["a9", "a10", "a[1]"]
    with open_source(str(tmp_path / "images" / "?1.jpg")) as source:
        assert [frame.name for frame in source] == ["b1"]
    with open_source("images/a[1].png") as source:  # a file that is there is no pattern
        assert (source.kind, source.name) == ("picture", "a[1]")
    with open_source("*/*.jpg") as source:
        assert source.name == tmp_path.name


def test_pictures_of_several_folders_keep_different_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x/a.png", "x/a.jpg", "y/a.png", "y/b.png", "y/2/c.png", "y/10/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), picture(0))
    with open_source("**/*") as source:
        assert [frame.name for frame in source] == ["a_jpg", "x_a_png", "y_a_png", "b", "y_2_c_png", "y_10_c_png"]


def test_names_of_an_absolute_pattern_stay_within_the_folder_that_is_written_to(tmp_path):
    for name in ("a.png", "x/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), picture(0))
    with open_source(str(tmp_path / "**" / "*.png")) as source:
        names = [frame.name for frame in source]
    assert len(set(names)) == 2
    assert not any("/" in name for name in names)


def test_folders_that_are_joined_alike_keep_different_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate(("x/a/b/1.png", "x/a_b/1.png", "x/a_b_1_png-2.png", "x/x_a_b_1_png-2.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), picture(index))
    with open_source("x/**/*.png") as source:
        names = [frame.name for frame in source]
    assert sorted(names) == ["a_b_1_png-2", "x_a_b_1_png", "x_a_b_1_png-2", "x_a_b_1_png-3"]


def test_names_that_mean_nothing_are_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.mp4").symlink_to("nowhere.mp4")
    with pytest.raises(MediaError, match=r"^link\.mp4 is a link to what does not exist; expected an image"):
        open_source("link.mp4")
    with pytest.raises(MediaError, match=r"^99999999999999999999 does not exist; expected"):
        open_source("99999999999999999999")
    # Python 3.13 takes the first pattern, and nothing matches it.
    with pytest.raises(MediaError, match=r"is no pattern .*expected something like|matches nothing"):
        open_source("a**b/*.png")


def test_a_pattern_that_matches_no_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").touch()
    for pattern, words in {
        "*.png": r"the pattern \*\.png matches nothing; expected pictures, ending in \.png, ",
        "nowhere/*.png": "matches nothing",
        "*.mp4": r"the pattern \*\.mp4 matches only clip\.mp4 and the like; expected pictures",
    }.items():
        with pytest.raises(MediaError, match=words):
            open_source(pattern)


def test_a_uri_is_no_path():
    with open_source("test://?frames=2&width=64&height=48&pace=0") as source:
        assert [frame.image_bgr.shape for frame in source] == [(48, 64, 3)] * 2
    with pytest.raises(UsageError, match=r"nothing opens tset://, did you mean 'test'\?"):
        open_source("tset://" + "long" * 200)  # longer than a file's name may be


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are told by Linux")
@pytest.mark.parametrize("reader", ["av", "opencv"])
def test_a_video_that_is_only_looked_at_is_closed(tmp_path, monkeypatch, reader):
    path = write_clip(tmp_path / "clip.mp4", frames=3)
    if reader == "opencv":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    gc.disable()  # a garbage collection would close it, some time
    try:
        for _ in range(2):
            open_source(str(path)).close()
            opened = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
            assert str(path) not in opened
    finally:
        gc.enable()


def test_closing_a_source_lets_its_decoder_go_first():
    done = []

    def decoded():
        try:
            yield Decoded(picture(0), 0.0, "first", taken_s=123.0)
            yield Decoded(picture(1), 0.1, "second")
        finally:
            done.append("decoder")

    source = Source(decoded(), kind="stream", name="x", frames_per_second=None, interrupt=lambda: done.append("let go"))
    frames = iter(source)
    before = time.monotonic()
    assert next(frames).taken_s == 123.0
    assert next(frames).taken_s >= before
    source.close()
    assert done == ["let go", "decoder"]


def test_a_pipe_waits_for_us_so_that_no_frame_is_lost(tmp_path):
    clip, fifo = write_clip(tmp_path / "clip.mkv", frames=20), tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(clip.read_bytes()))
    writer.start()
    with open_source(fifo) as source:
        assert policy_for(source, None) == "every-frame"
        assert [index_of(frame.image_bgr) for frame in source] == list(range(20))
    writer.join()


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_read_from_is_let_go_at_the_end_and_where_it_fails(fails):
    def decoded():
        yield Decoded(np.zeros((2, 2, 3), np.uint8), 0.0)
        if fails:
            raise MediaError("broken")

    done = []
    source = Source(decoded(), kind="video", name="x", frames_per_second=None, release=lambda: done.append("let go"))
    with pytest.raises(MediaError, match="broken") if fails else contextlib.nullcontext():
        for _ in source:
            assert done == []
    assert done == ["let go"]
