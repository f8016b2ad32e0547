"""Video files as people have them: turned, oblong, interlaced, high in range, without a clock, in pieces."""

import itertools
import os
import struct
import threading
from fractions import Fraction

import av
import numpy as np
import pytest

from sfpp.runtime.errors import MediaError
from sfpp.runtime.video import open_source
from tests.runtime.video.clips import index_of, picture, write_clip

UNITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
# a, b, c, d of x' = a x + c y, y' = b x + d y, and what a picture looks like then.
ORIENTATIONS = {
    "as it is": ((1, 0, 0, 1), lambda image: image),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    "upside down and mirrored": ((1, 0, 0, -1), lambda image: image[::-1]),
    "clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "counter-clockwise": ((0, -1, 1, 0), np.rot90),
    "about the diagonal": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    "about the other diagonal": ((0, -1, -1, 0), lambda image: image.transpose(1, 0, 2)[::-1, ::-1]),
}


def read(path):
    """Return the frames, the notes, and the warnings of a source."""
    events = []
    with open_source(path, on_event=events.append) as source:
        frames = list(source)
    return frames, [event.detail for event in events if event.kind == "note"], source.warnings


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_orientation_of_a_phone(tmp_path, name):
    (a, b, c, d), turned = ORIENTATIONS[name]
    path = write_clip(tmp_path / "clip.mp4", frames=3)
    (before, *_), _, _ = read(path)
    data = path.read_bytes()
    place = data.index(UNITY, data.index(b"tkhd"))
    matrix = struct.pack(">9i", *(number << 16 for number in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
    path.write_bytes(data[:place] + matrix + data[place + len(matrix) :])
    (frame, *_), _, _ = read(path)
    np.testing.assert_array_equal(frame.image_bgr, turned(before.image_bgr))
    assert frame.image_bgr.flags.c_contiguous


def encoded(path, images, *, codec="ffv1", form="yuv444p", rate=10, stamps=None, reformat=(), **context):
    """Write (H, W, 3) images, by default without loss, with what ``context`` says in the codec's own words."""
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = form
        for key, value in context.items():
            setattr(stream.codec_context, key, value)
        for number, image in enumerate(images):
            deep = image.dtype == np.uint16
            frame = av.VideoFrame.from_ndarray(image, format="rgb48le" if deep else "bgr24")
            frame = frame.reformat(format=form, **dict(reformat))
            frame.pts, frame.time_base = (number if stamps is None else stamps[number]), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("aspect", "size_hw"),
    [(Fraction(16, 9), (48, 114)), (Fraction(9, 16), (85, 64)), (Fraction(1), (48, 64)), (Fraction(0), (48, 64))],
)
def test_pixels_become_square(tmp_path, aspect, size_hw):
    ring = np.zeros((48, 64, 3), np.uint8)
    ring[12:36, 16:48] = 255
    path = encoded(tmp_path / "clip.mp4", [ring], codec="libx264", form="yuv420p", sample_aspect_ratio=aspect)
    (frame,), notes, _ = read(path)
    assert frame.image_bgr.shape[:2] == size_hw
    assert (frame.image_bgr > 128).mean() == pytest.approx(0.25, abs=0.02)
    said = f"pixels are not square, so 64x48 becomes {size_hw[1]}x{size_hw[0]}"
    assert notes == ([] if size_hw == (48, 64) else [said])


def hdr_coded(bgr, transfer):
    """What a color of an ordinary screen, 0..255, is in BT.2020 with white at 203 cd/m2, as uint16 RGB."""
    light = (np.array(bgr[::-1]) / 255) ** 2.4
    to_2020 = np.linalg.inv([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
    light = to_2020 @ light * 203
    if transfer == 16:
        y = (light / 1e4) ** (2610 / 16384)
        code = ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    else:
        luma = light @ (0.2627, 0.6780, 0.0593) / 1000
        scene = light / 1000 * luma ** (1 / 1.2 - 1)
        code = np.where(
            scene <= 1 / 12,
            np.sqrt(3 * scene),
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
        )
    return np.rint(65535 * code).astype(np.uint16)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_shown_as_an_ordinary_screen_would(tmp_path, transfer, name):
    colors = [(40, 40, 40), (120, 120, 120), (200, 200, 200), (30, 90, 180), (180, 60, 60)]
    columns = [np.full((32, 16, 3), hdr_coded(color, transfer), np.uint16) for color in colors]
    path = encoded(
        tmp_path / "clip.mkv",
        [np.hstack(columns)],
        form="yuv444p10le",
        reformat={"dst_colorspace": 9},
        color_trc=transfer,
        color_primaries=9,
        colorspace=9,
    )
    (frame,), notes, _ = read(path)
    assert notes == [f"high dynamic range ({name}) is shown as an ordinary screen would"]
    for number, color in enumerate(colors):
        seen = frame.image_bgr[8:24, 16 * number + 4 : 16 * number + 12].mean(axis=(0, 1))
        np.testing.assert_allclose(seen, color, atol=5)


def test_highlights_stay_apart_and_below_white(tmp_path):
    brightness = [203, 400, 700, 1000, 4000]  # cd/m2
    y = (np.array(brightness) / 1e4) ** (2610 / 16384)
    code = ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    columns = [np.full((32, 16, 3), np.rint(65535 * each), np.uint16) for each in code]
    path = encoded(
        tmp_path / "clip.mkv",
        [np.hstack(columns)],
        form="yuv444p10le",
        reformat={"dst_colorspace": 9},
        color_trc=16,
        colorspace=9,
    )
    (frame,), _, _ = read(path)
    seen = [int(frame.image_bgr[16, 16 * number + 8, 1]) for number in range(len(brightness))]
    assert 225 < seen[0] < seen[1] < seen[2] < seen[3]
    assert seen[3] >= 253
    assert seen[4] == 255


def test_large_pictures_that_do_not_say_so_are_in_the_colors_of_hd(tmp_path):
    for size_hw, matrix in (((720, 1280), 1), ((480, 640), 5)):
        image = np.zeros((*size_hw, 3), np.uint8)
        image[:] = (30, 200, 60)
        path = encoded(tmp_path / "clip.mkv", [image], reformat={"dst_colorspace": matrix}, colorspace=2)
        (frame,), _, _ = read(path)
        np.testing.assert_allclose(frame.image_bgr[5, 5], (30, 200, 60), atol=4)


def test_interlaced_pictures_are_made_whole(tmp_path):
    """Each picture of what moves is woven of two moments: every second line is elsewhere."""
    images = []
    for number in range(8):
        image = np.full((64, 96, 3), 40, np.uint8)
        for line in range(64):
            left = 8 * number + 4 * (line % 2)
            image[line, left : left + 24] = 220
        images.append(image)
    options = {"options": {"x264-params": "interlaced=1:tff=1", "crf": "5"}}
    path = encoded(tmp_path / "clip.mkv", images, codec="libx264", form="yuv420p", **options)
    frames, notes, warnings = read(path)
    assert notes == ["interlaced pictures are made whole"]
    assert (len(frames), warnings) == (8, [])
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(8) / 10, atol=1e-3)
    combed = [np.abs(np.diff(frame.image_bgr[8:56].astype(int), axis=0)).mean() for frame in frames]
    assert max(combed) < 0.3 * np.abs(np.diff(images[3][8:56].astype(int), axis=0)).mean()


def test_the_track_that_a_player_shows(shared):
    frames, _, _ = read(shared / "field-reports/runtime/12-first-video-track/cover.mkv")
    assert len(frames) == 40  # and not the one of the cover


def test_bare_pictures_have_the_rate_of_their_own_headers(tmp_path):
    path = write_clip(tmp_path / "clip.h264", frames=20, rate=Fraction(10))
    with open_source(path) as source:
        assert source.frames_per_second == 10
        assert [frame.time_s for frame in source] == pytest.approx([number / 10 for number in range(20)])


def test_times_rise_where_pieces_were_joined(tmp_path):
    path = write_clip(tmp_path / "clip.ts", frames=20, rate=Fraction(10))
    path.write_bytes(path.read_bytes() * 3)
    frames, _, warnings = read(path)
    steps = np.diff([frame.time_s for frame in frames])
    assert len(frames) == 60
    np.testing.assert_allclose(steps, 0.1, atol=1e-3)
    assert warnings == []


def test_a_piece_that_is_missing_is_told_of(tmp_path):
    pieces = "".join(f"#EXTINF:1.0,\n{number}.ts\n" for number in range(4))
    (tmp_path / "all.m3u8").write_text(f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n{pieces}#EXT-X-ENDLIST\n")
    for number in (0, 1, 3):
        with av.open(str(tmp_path / f"{number}.ts"), mode="w", options={"mpegts_copyts": "1"}) as container:
            stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
            stream.height, stream.width = 48, 64
            for index in range(10):
                image = av.VideoFrame.from_ndarray(picture(index), format="bgr24")
                image.pts, image.time_base = 10 * number + index, Fraction(1, 10)
                container.mux(stream.encode(image))
            container.mux(stream.encode(None))
    frames, _, warnings = read(tmp_path / "all.m3u8")
    assert len(frames) == 30
    assert frames[-1].time_s == pytest.approx(3.9, abs=0.01)
    assert warnings == ["all.m3u8: 1.0 s are missing after 1.9 s; kept what was decoded"]


def test_what_cannot_be_decoded_at_the_beginning_is_told_as_that(tmp_path):
    path = write_clip(tmp_path / "clip.ts", frames=60, rate=Fraction(10))  # a key frame each second
    data = path.read_bytes()
    cut = (len(data) // 2 // 188 + 3) * 188
    path.write_bytes(data[: 188 * 3] + data[cut:])
    frames, _, warnings = read(path)
    assert index_of(frames[0].image_bgr) % 10 == 0
    assert not [warning for warning in warnings if "breaks off" in warning]


def test_frames_keep_the_times_of_the_file(tmp_path):
    stamps = [0, 1, 5, 6, 20, 21, 22, 40]
    path = encoded(tmp_path / "clip.mkv", [picture(number) for number in range(8)], stamps=stamps)
    frames, _, warnings = read(path)
    assert [frame.time_s for frame in frames] == pytest.approx([stamp / 10 for stamp in stamps], abs=1e-3)
    assert all(later.time_s > earlier.time_s for earlier, later in itertools.pairwise(frames))
    assert warnings == []


def test_frames_of_one_time_move_no_later_ones(tmp_path):
    stamps = [0, 1, 1, 2, 3, 3, 3, 4]
    path = tmp_path / "clip.mkv"
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width = 48, 64
        stream.pix_fmt = "yuv444p"
        packets = []
        for number in range(8):
            image = av.VideoFrame.from_ndarray(picture(number), format="bgr24").reformat(format="yuv444p")
            image.pts, image.time_base = number, Fraction(1, 10)
            packets += stream.encode(image)
        for packet, stamp in zip([*packets, *stream.encode(None)], stamps, strict=True):
            packet.pts = packet.dts = stamp * round(Fraction(1, 10) / packet.time_base)
            container.mux(packet)
    frames, _, warnings = read(path)
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.101, 0.2, 0.3, 0.301, 0.302, 0.4], abs=1e-3)
    assert warnings == []


# Without PyAV


@pytest.fixture
def by_opencv(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def note_of_opencv(notes):
    (note,) = notes
    return note.startswith("read by OpenCV, since PyAV is not installed: sound, interlacing and high dynamic range")


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_opencv_turns_them_alike(tmp_path, name, request):
    (a, b, c, d), _ = ORIENTATIONS[name]
    path = write_clip(tmp_path / "clip.mp4", frames=3)
    data = path.read_bytes()
    place = data.index(UNITY, data.index(b"tkhd"))
    matrix = struct.pack(">9i", *(number << 16 for number in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
    path.write_bytes(data[:place] + matrix + data[place + len(matrix) :])
    expected, _, _ = read(path)
    request.getfixturevalue("by_opencv")
    frames, notes, _ = read(path)
    assert note_of_opencv(notes)
    for ours, others in zip(frames, expected, strict=True):
        assert ours.image_bgr.shape == others.image_bgr.shape
        assert np.abs(ours.image_bgr.astype(int) - others.image_bgr).mean() < 3


def test_opencv_tells_the_files_times_and_the_shape_of_its_pixels(tmp_path, by_opencv):
    stamps = [0, 1, 5, 6, 20, 21, 22, 40]
    images = [picture(number) for number in range(8)]
    path = encoded(
        tmp_path / "clip.mp4", images, codec="libx264", form="yuv420p", stamps=stamps, sample_aspect_ratio=Fraction(2)
    )
    frames, notes, _ = read(path)
    assert note_of_opencv(notes)
    assert [frame.time_s for frame in frames] == pytest.approx([stamp / 10 for stamp in stamps], abs=2e-3)
    assert {frame.image_bgr.shape for frame in frames} == {(48, 128, 3)}


# Pipes and devices


def test_a_pipe_is_read_as_it_comes(tmp_path):
    pipe, clip = tmp_path / "pipe", write_clip(tmp_path / "clip.mkv", frames=20)
    os.mkfifo(pipe)
    sender = threading.Thread(target=lambda: pipe.write_bytes(clip.read_bytes()))
    sender.start()
    frames, _, warnings = read(pipe)
    sender.join()
    assert [index_of(frame.image_bgr) for frame in frames] == list(range(20))
    assert warnings == []


def test_a_device_that_is_no_camera_is_called_so():
    with pytest.raises(MediaError, match=r"/dev/null is a device and no camera; expected one such as /dev/video0"):
        open_source("/dev/null")
