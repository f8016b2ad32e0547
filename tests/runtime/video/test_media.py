"""Videos and pictures of every kind that people have, against FFmpeg's own frames and times.

Videos need FFmpeg's command: on PATH, or from the package imageio-ffmpeg. For every container and codec, the cases hold
every pair of two other properties. docs/media.md says what
was tried; `python -m tests.runtime.video.test_media` writes it.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from sfpp.runtime.video import open_sink, open_source
from tests.runtime.video.sources.test_video_file import hdr_coded

FRAMES, RATE = 12, 25
HEIGHT, WIDTH = 64, 96
EIGHT, TEN = "yuv420p", "yuv420p10le"


PAGE = Path(__file__).parents[3] / "docs/media.md"


@dataclass(frozen=True)
class Format:
    """What FFmpeg's options are for a container and a codec, and what it can hold."""

    suffix: str
    codec: str
    options: str
    audio: str | None = "aac"
    turns: bool = False
    oblong: bool = True
    deep: str | None = None  # the pixel format of high dynamic range
    own_times: bool = True


X264, X265 = "-c:v libx264 -crf 12", "-c:v libx265 -crf 10 -x265-params log-level=none"
AV1 = "-c:v libaom-av1 -cpu-used 8 -crf 12"
FORMATS = (
    Format("mp4", "H.264", X264, turns=True),
    Format("mp4", "HEVC", X265, turns=True, deep=TEN),
    Format("mp4", "AV1", AV1, audio="libopus", turns=True, deep=TEN),
    Format("mp4", "MPEG-4", "-c:v mpeg4 -q:v 2", audio="libmp3lame", turns=True),
    Format("mov", "H.264", X264, audio="pcm_s16le", turns=True),
    Format("mov", "HEVC", X265 + " -tag:v hvc1", turns=True, deep=TEN),
    Format("mov", "ProRes", "-c:v prores_ks", turns=True, deep="yuv422p10le"),
    Format("mov", "Motion JPEG", "-c:v mjpeg -q:v 2 -strict unofficial", audio="pcm_s16le", turns=True),
    Format("mkv", "H.264", X264, audio="ac3"),
    Format("mkv", "HEVC", X265, audio="flac", deep=TEN),
    Format("mkv", "VP9", "-c:v libvpx-vp9 -crf 10 -b:v 0", audio="libopus", deep=TEN),
    Format("mkv", "FFV1", "-c:v ffv1", audio="pcm_s16le", deep=TEN),
    Format("mkv", "MPEG-2", "-c:v mpeg2video -q:v 2", audio="mp2", own_times=False),
    Format("webm", "VP8", "-c:v libvpx -crf 5 -b:v 2M", audio="libvorbis"),
    Format("webm", "VP9", "-c:v libvpx-vp9 -crf 10 -b:v 0", audio="libopus", deep=TEN),
    Format("webm", "AV1", AV1, audio="libopus", deep=TEN),
    Format("avi", "MPEG-4", "-c:v mpeg4 -q:v 2", audio="libmp3lame", own_times=False),
    Format("avi", "Motion JPEG", "-c:v mjpeg -q:v 2 -strict unofficial", audio="pcm_s16le", own_times=False),
    Format("ts", "H.264", X264),
    Format("ts", "HEVC", X265, deep=TEN),
    Format("ts", "MPEG-2", "-c:v mpeg2video -q:v 2", audio="mp2", own_times=False),
    Format("flv", "H.264", X264, oblong=False),
    Format("wmv", "WMV 2", "-c:v wmv2 -q:v 2", audio="wmav2", oblong=False),
    Format("ogv", "Theora", "-c:v libtheora -q:v 9", audio="libvorbis", own_times=False),
    Format("mpg", "MPEG-2", "-c:v mpeg2video -q:v 2", audio="mp2", own_times=False),
    Format("3gp", "H.263", "-c:v h263 -q:v 2 -s 128x96", oblong=False, own_times=False),
    Format("mxf", "MPEG-2", "-c:v mpeg2video -q:v 2 -ar 48000", audio="pcm_s16le", own_times=False),
    Format("gif", "GIF", "-c:v gif", audio=None, oblong=False),
    Format("h264", "H.264", X264, audio=None, own_times=False),
)
# When each frame comes, in twenty-fifths of a second.
TIMINGS = {
    "even": "N",
    "30000/1001": "N*25*1001/30000",
    "uneven": "N+floor(N/3)*2",
    "a gap of 2 s": "N+50*gte(N\\,6)",
    "begins at 5 s": "N+125",
}
TURNS = {
    "upright": "",
    "90 degrees": "-display_rotation:v:0 90",
    "180 degrees": "-display_rotation:v:0 180",
    "270 degrees": "-display_rotation:v:0 270",
    "mirrored": "-display_rotation:v:0 0 -display_hflip:v:0",
    "upside down": "-display_rotation:v:0 0 -display_vflip:v:0",
    "90 degrees, mirrored": "-display_rotation:v:0 90 -display_hflip:v:0",
    "270 degrees, mirrored": "-display_rotation:v:0 270 -display_hflip:v:0",
}
PIXELS = {"square": "1", "16:11": "16/11", "3:4": "3/4"}
TRANSFERS = {"ordinary": 0, "PQ": 16, "HLG": 18}
SOUNDS = ("none", "sound")


@dataclass(frozen=True)
class Case:
    format: Format
    timing: str
    turn: str
    pixels: str
    transfer: str
    sound: str

    def __str__(self) -> str:
        others = self.timing, self.turn, self.pixels, self.transfer, self.sound
        return f"{self.format.suffix}-{self.format.codec}-{'-'.join(others)}"

    def __iter__(self) -> Iterator[str]:
        yield from (self.timing, self.turn, self.pixels, self.transfer, self.sound)


def possible(form: Format) -> list[Case]:
    """Every combination that the format can hold."""
    axes = (
        TIMINGS if form.own_times else ("even",),
        TURNS if form.turns else ("upright",),
        PIXELS if form.oblong else ("square",),
        TRANSFERS if form.deep else ("ordinary",),
        SOUNDS if form.audio else ("none",),
    )
    return [Case(form, *each) for each in itertools.product(*axes)]


@functools.cache
def cases() -> list[Case]:
    """As few as hold every pair of two properties for every format, chosen greedily and always alike."""
    chosen = []
    for form in FORMATS:
        rest = possible(form)
        random.Random(f"{form}").shuffle(rest)
        missing = {pair for case in rest for pair in itertools.combinations(enumerate(case), 2)}
        while missing:
            best = max(rest, key=lambda case: len(missing.intersection(itertools.combinations(enumerate(case), 2))))
            missing.difference_update(itertools.combinations(enumerate(best), 2))
            chosen.append(best)
    return chosen


def ffmpeg() -> str:
    found = shutil.which("ffmpeg")
    if found is None:
        imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs ffmpeg on PATH, or imageio-ffmpeg")
        found = imageio_ffmpeg.get_ffmpeg_exe()
    return str(found)


def called(*arguments: object, given: bytes = b"") -> tuple[bytes, str]:
    """What FFmpeg writes to standard output, and says."""
    command = [ffmpeg(), "-hide_banner", "-nostdin" if not given else "-y", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 0, said[-2000:]
    return done.stdout, said


def pictures() -> np.ndarray:
    """(N, H, W, 3) uint8 BGR: soft colors, another corner in each quarter, and a bar that moves."""
    down, across = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    base = np.stack([60 + 100 * across, 70 + 90 * down, 150 - 80 * across * down], axis=-1)
    base[:24, :24] = (40, 40, 200)
    base[:24, -24:] = (190, 180, 60)
    frames = np.repeat(base[np.newaxis], FRAMES, axis=0)
    for number, frame in enumerate(frames):
        frame[40:56, 6 * number : 6 * number + 12] = (210, 210, 210)
    return frames.astype(np.uint8)


def deep(frames: np.ndarray, transfer: int) -> bytes:
    """The frames as RGB of 16 bits in BT.2020."""
    colors, places = np.unique(frames.reshape(-1, 3), axis=0, return_inverse=True)
    coded = np.array([hdr_coded(color, transfer) for color in colors])
    return coded[places.ravel()].astype("<u2").tobytes()


def made(case: Case, folder: Path) -> Path:
    form, path = case.format, folder / f"clip.{case.format.suffix}"
    transfer = TRANSFERS[case.transfer]
    shape = f"-f rawvideo -s {WIDTH}x{HEIGHT} -r {RATE} -pix_fmt {'rgb48le' if transfer else 'bgr24'} -i -"
    tags = f"settb=1/30000,setpts=({TIMINGS[case.timing]})/{RATE}/TB,setsar={PIXELS[case.pixels]}"
    if transfer:
        name = {16: "smpte2084", 18: "arib-std-b67"}[transfer]
        matrix = "scale=out_color_matrix=bt2020nc:out_range=tv:flags=accurate_rnd+full_chroma_int"
        tags += f",{matrix},format={form.deep},setparams=color_primaries=bt2020:color_trc={name}:colorspace=bt2020nc"
    elif form.codec not in ("GIF", "Motion JPEG", "ProRes"):
        tags += f",format={EIGHT}"
    sound = "-f lavfi -i sine=frequency=440:sample_rate=48000:duration=6" if case.sound == "sound" else ""
    coded = f"-c:a {form.audio} -ac 1" if sound else ""
    times = "-fps_mode passthrough" if form.own_times else ""
    clock = "-enc_time_base 1/30000" if form.own_times and form.suffix not in ("gif", "3gp") else ""
    options = (
        f"{shape} {sound} -vf {tags} {times} {clock} {form.options} {coded} -map 0:v {'-map 1:a' if sound else ''}"
    )
    before = folder / f"before.{form.suffix}"
    frames = pictures()
    called(*options.split(), before, given=deep(frames, transfer) if transfer else frames.tobytes())
    if not TURNS[case.turn]:
        return before.rename(path)
    called(*TURNS[case.turn].split(), "-copyts", "-i", before, "-c", "copy", "-map", "0", path)
    return path


def seen_by_ffmpeg(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W, 3) BGR and (N,) seconds: upright, in square pixels."""
    square = "scale='round(iw*max(sar,1))':'round(ih/min(sar,1))',setsar=1,showinfo"
    data, said = called(
        *("-copyts", "-i", path, "-map", "0:v:0", "-vf", square),
        *("-fps_mode", "passthrough", "-pix_fmt", "bgr24", "-f", "rawvideo", "-"),
    )
    times = [float(each) for each in re.findall(r"\bn: *\d+ .*?pts_time:([-\d.e+]+)", said)]
    width, height = re.findall(r"\bs:(\d+)x(\d+)", said)[-1]
    frames = np.frombuffer(data, np.uint8).reshape(-1, int(height), int(width), 3)
    assert len(times) == len(frames) > 0
    return frames, np.array(times)


def upright(frames: np.ndarray, turn: str) -> np.ndarray:
    """What FFmpeg's options mean: turned counter-clockwise, and then mirrored."""
    degrees = re.match(r"\d+", turn)
    turned = np.rot90(frames, int(degrees.group()) // 90 if degrees else 0, axes=(1, 2))
    return turned[:, :, ::-1] if "mirrored" in turn else turned[:, ::-1] if turn == "upside down" else turned


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_video_is_seen_as_ffmpeg_sees_it(case, tmp_path):
    path = made(case, tmp_path)
    notes = []
    with open_source(path, on_event=lambda event: notes.append(event.detail)) as source:
        frames = list(source)
        warnings = source.warnings
    # In pieces of a stream one may be missing.
    gap = case.timing == "a gap of 2 s" and case.format.suffix == "ts"
    assert warnings == (["clip.ts: 2.0 s are missing after 0.2 s; kept what was decoded"] if gap else [])
    expected, times_s = seen_by_ffmpeg(path)
    assert {frame.image_bgr.shape for frame in frames} == {expected.shape[1:]}
    assert len(frames) == len(expected)
    np.testing.assert_allclose([frame.time_s for frame in frames], times_s - times_s[0], atol=2e-3)
    if case.transfer == "ordinary":
        assert np.abs(np.stack([each.image_bgr for each in frames]).astype(int) - expected).mean() < 2
    else:
        (note,) = [note for note in notes if "high dynamic range" in note]
        assert case.transfer in note
        assert difference(frames, upright(pictures(), case.turn)) < 10
    if case.format.own_times and case.format.suffix != "gif":
        steps = np.array([each * (1 / RATE) for each in wanted(case.timing)])
        np.testing.assert_allclose(times_s - times_s[0], steps - steps[0], atol=0.02)


def wanted(timing: str) -> list[float]:
    return [
        {"30000/1001": n * 25 * 1001 / 30000, "uneven": n + n // 3 * 2, "a gap of 2 s": n + 50 * (n >= 6)}.get(
            timing, n
        )
        for n in range(FRAMES)
    ]


def difference(frames, expected: np.ndarray) -> float:
    """The mean difference at a like size, in levels: what is oblong has been stretched."""
    total = 0.0
    for frame, other in zip(frames, expected, strict=True):
        small = cv2.resize(frame.image_bgr, other.shape[1::-1], interpolation=cv2.INTER_AREA)
        total += np.abs(small.astype(int) - other).mean()
    return total / len(expected)


# What is written


def outputs() -> list[tuple[Case, str]]:
    """Of each format the first case with sound and with times of its own, as .mp4 and as .mkv."""
    of: dict[Format, Case] = {}
    for case in cases():
        best = case.sound == "sound", case.timing != "even"
        if case.format not in of or best > (of[case.format].sound == "sound", of[case.format].timing != "even"):
            of[case.format] = case
    return [(case, suffix) for case in of.values() for suffix in ("mp4", "mkv")]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "suffix"), outputs(), ids=lambda each: str(each))
def test_an_output_keeps_times_and_sound(case, suffix, tmp_path):
    path, out, notes = made(case, tmp_path), tmp_path / f"out.{suffix}", []
    with (
        open_source(path) as source,
        open_sink(
            out,
            frames_per_second=source.frames_per_second,
            origin=source.origin,
            on_event=lambda event: notes.append(event.detail),
        ) as sink,
    ):
        for frame in source:
            sink.write(frame, frame.image_bgr)
    before, after = seen_by_ffmpeg(path)[1], seen_by_ffmpeg(out)[1]
    np.testing.assert_allclose(after - after[0], before - before[0], atol=2e-3)
    sound, kept = packets(path), packets(out)
    if any("sound is left out" in note for note in notes):
        assert kept == []
        assert suffix == "mp4" or case.format.suffix == "wmv"
        return
    # The sound stays beside the pictures; what came before the first of them is left out.
    expected = [time - before[0] for time in sound if time >= before[0]]
    assert bool(kept) == (case.sound == "sound")
    np.testing.assert_allclose(kept[:1], expected[:1], atol=1 / RATE)
    np.testing.assert_allclose(kept[-1:], expected[-1:], atol=1 / RATE)


def packets(path: Path) -> list[float]:
    """The times of the sound's packets."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        return [float(each.pts * each.time_base) for each in container.demux(audio=0) if each.pts is not None]


# Pictures

ORIENTATIONS = range(1, 9)  # Exif's
MODES = {"1 bit": "1", "grey": "L", "colors": "RGB", "palette": "P", "print colors": "CMYK", "alpha": "RGBA"}
DEEP = {"grey, 16 bits": 1, "colors, 16 bits": 3}


@dataclass(frozen=True)
class PictureFormat:
    """What Pillow can write of a kind of picture, and how near it stays."""

    suffix: str
    modes: tuple[str, ...]
    exact: bool = True
    turns: bool = True
    pages: bool = False
    options: tuple[tuple[str, object], ...] = ()


LOSSLESS = (("lossless", True),)
PICTURES = (
    PictureFormat("jpg", ("grey", "colors", "print colors"), exact=False, options=(("quality", 95),)),
    PictureFormat("jfif", ("colors",), exact=False, options=(("quality", 95),)),
    PictureFormat("png", ("1 bit", "grey", "colors", "palette", "alpha", *DEEP), pages=True),
    PictureFormat("tiff", ("1 bit", "grey", "colors", "palette", "alpha", *DEEP), pages=True),
    PictureFormat("webp", ("colors", "alpha"), pages=True, options=LOSSLESS),
    PictureFormat("bmp", ("1 bit", "grey", "colors", "palette"), turns=False),
    PictureFormat("gif", ("grey", "palette"), turns=False, pages=True),
    PictureFormat("avif", ("colors", "alpha"), exact=False, options=(("quality", 95),)),
    PictureFormat("heic", ("colors", "alpha"), exact=False, options=(("quality", 95),)),
    PictureFormat("jp2", ("grey", "colors"), turns=False),
    PictureFormat("ppm", ("grey", "colors"), turns=False),
)


def stored(turn: int, image: np.ndarray) -> np.ndarray:
    """What a picture looks like that is stored as ``image``, by Exif's orientation."""
    image = image.transpose(1, 0, 2) if turn >= 5 else image
    image = image[:, ::-1] if turn in (2, 3, 6, 7) else image
    return image[::-1] if turn in (3, 4, 7, 8) else image


def picture_cases():
    for form in PICTURES:
        turns = ORIENTATIONS if form.turns else (1,)
        for mode, turn, pages in itertools.product(form.modes, turns, (1, 3) if form.pages else (1,)):
            if mode not in DEEP or (turn == 1 and pages == 1):
                yield pytest.param(form, mode, turn, pages, id=f"{form.suffix}-{mode}-turned {turn}-{pages} pages")


@pytest.mark.slow
@pytest.mark.parametrize(("form", "mode", "turn", "pages"), list(picture_cases()))
def test_a_picture_is_seen_as_it_was_meant(form, mode, turn, pages, tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    if form.suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path, scene = tmp_path / f"picture.{form.suffix}", pictures()[3]
    if mode in DEEP:
        values = scene.astype(np.uint16) * 257
        cv2.imwrite(str(path), values[..., 1] if DEEP[mode] == 1 else values)
        expected = scene[..., [1, 1, 1]] if DEEP[mode] == 1 else scene
    else:
        image = pillow.fromarray(scene[..., ::-1]).convert(MODES[mode])
        exif = pillow.Exif()
        exif[0x0112] = turn
        more = {"save_all": True, "append_images": [image.rotate(180), image.rotate(20)]} if pages > 1 else {}
        image.save(path, **({"exif": exif.tobytes()} if turn > 1 else {}), **more, **dict(form.options))
        expected = stored(turn, np.asarray(image.convert("RGB"))[..., ::-1])
    notes = []
    with open_source(path, on_event=lambda event: notes.append(event.detail)) as source:
        frames = list(source)
    assert frames[0].image_bgr.shape == expected.shape
    assert np.abs(frames[0].image_bgr.astype(int) - expected).mean() < (0.6 if form.exact else 3)
    # A GIF's pictures follow one another as a video's do.
    assert len(frames) == (pages if form.suffix == "gif" else 1)
    told = any("several pictures" in note for note in notes)
    assert told == (pages > 1 and form.suffix != "gif")


# The page


def tables() -> dict[str, str]:
    """Return the page's tables by name: what each container and format was tried with."""
    videos = ["| container | codecs | cases |", "|---|---|---:|"]
    number = {form: sum(case.format == form for case in cases()) for form in FORMATS}
    for suffix in dict.fromkeys(form.suffix for form in FORMATS):
        of = [form for form in FORMATS if form.suffix == suffix]
        videos.append(f"| `.{suffix}` | {', '.join(form.codec for form in of)} | {sum(number[form] for form in of)} |")
    images = ["| format | as | turned | pages | cases |", "|---|---|---:|---:|---:|"]
    for form in PICTURES:
        of = [case for case in picture_cases() if case.values[0] == form]
        pages = "1, 3" if form.pages else "1"
        images.append(
            f"| `.{form.suffix}` | {', '.join(form.modes)} | {'8 ways' if form.turns else 'no'} | {pages} | {len(of)} |"
        )
    return {"videos": "\n".join(videos), "pictures": "\n".join(images)}


def with_tables(page: str) -> str:
    for name, table in tables().items():
        page = re.sub(rf"(<!-- media: {name} -->\n\n).*?(\n\n<!-- end -->)", rf"\g<1>{table}\2", page, flags=re.DOTALL)
    return page


def test_the_page_says_what_is_tried():
    page = PAGE.read_text("utf-8")
    assert all(f"<!-- media: {name} -->" in page for name in tables())
    assert with_tables(page) == page
    for axis in (TIMINGS, TURNS, PIXELS, TRANSFERS):
        assert all(value in page for value in axis)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
