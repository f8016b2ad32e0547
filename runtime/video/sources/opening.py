"""Open whatever a user names as input: pictures, a video, a camera, a stream, the shipped clip."""

from __future__ import annotations

import difflib
import importlib.util
import itertools
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from urllib.parse import quote

from sfpp.runtime.demo import demo_clip
from sfpp.runtime.errors import MediaError, MissingDependencyError, UsageError, did_you_mean
from sfpp.runtime.events import EventHandler, ignore
from sfpp.runtime.files import check_name, identity
from sfpp.runtime.pixels import pictures
from sfpp.runtime.video.frame import Decoded, Source
from sfpp.runtime.video.sources.address import address_from, is_uri, name_from, without_credentials
from sfpp.runtime.video.sources.camera import MOST_CAMERA_DIGITS, open_camera, open_webcam
from sfpp.runtime.video.sources.gstreamer import open_csi, open_gst
from sfpp.runtime.video.sources.opencv_file import open_video_with_opencv
from sfpp.runtime.video.sources.raw import open_raw
from sfpp.runtime.video.sources.stream import STREAM_SCHEMES, open_stream
from sfpp.runtime.video.sources.synthetic import open_synthetic
from sfpp.runtime.video.sources.video_file import open_video

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm", ".pnm", ".gif"),
    *(".jp2", ".j2k", ".avif", ".heic", ".heif", ".hif"),
)
# Of the files in a folder, those that are run where it holds no pictures.
MOVING_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".asf", ".flv"),
    *(".3gp", ".3g2", ".mxf", ".ogv", ".ogg", ".vob", ".h264", ".h265", ".hevc", ".mjpeg", ".mjpg", ".y4m"),
)
_HEAD = 64  # bytes that tell a picture's format
_DEMO = "demo"
_PICTURES_PER_SECOND = Fraction(25)  # when a video is made of single pictures
_WILDCARDS = re.compile(r"[*?\[]")


def names_input(text: str) -> bool:
    """Whether a text that is no URI names something to read: it exists, or is a camera, a pattern or the word demo."""
    return reads_files(text) or (not is_uri(text) and (_exists(text) or _is_camera(text)))


def reads_files(text: str) -> bool:
    """Whether a text names files, which can be opened again and again, and no camera, pipe or URI."""
    if is_uri(text):
        return False
    return _is_file_or_folder(text) or text == _DEMO or (not _exists(text) and _WILDCARDS.search(text) is not None)


def each_source(text: str) -> list[str]:
    """Return the sources that a text names: itself, or the videos of a folder or pattern in which no picture is.

    Raises:
        MediaError: it is no pattern.
        UsageError: no file can have such a name.
    """
    if is_uri(text):
        return [text]
    check_name(text)
    path = Path(text)
    if (_exists(text) and not path.is_dir()) or (not _exists(text) and not _WILDCARDS.search(text)):
        return [text]
    there = list(path.iterdir()) if path.is_dir() else _matching(path)
    if _pictures_among(there):
        return [text]
    # A pattern was meant for whatever it matches.
    videos = (each for each in there if not path.is_dir() or each.suffix.lower() in MOVING_SUFFIXES)
    return [str(each) for each in _in_order(each for each in videos if each.is_file())] or [text]


def check_given_once(texts: Sequence[str], sources: Sequence[Source]) -> None:
    """Refuse texts that name one source twice, whatever links and spellings lead to it.

    Raises:
        UsageError: two do.
    """
    seen: set[object] = set()
    for text, source in zip(texts, sources, strict=True):
        what = tuple(map(identity, source.paths)) or text
        if what in seen:
            shown = without_credentials(text)
            raise UsageError(f"{shown} is given twice; give each source once, and say -o for an output")
        seen.add(what)


def apart(names: Sequence[str]) -> list[str]:
    """Put a number behind each name that an earlier one has too, as a_b/1.png and a/b/1.png do.

    Names that differ in upper and lower case alone count as one, since they do so for some file systems.
    """
    taken = {name.casefold() for name in names}
    seen: set[str] = set()
    unique = []
    for name in names:
        if name.casefold() in seen:
            numbered = (f"{name}-{number}" for number in itertools.count(2))
            name = next(each for each in numbered if each.casefold() not in taken)
            taken.add(name.casefold())
        seen.add(name.casefold())
        unique.append(name)
    return unique


def names_apart(sources: Sequence[Source]) -> list[str]:
    """Return a name for each source that no other one has: where files share theirs, with their folders' before it."""
    names = [source.name for source in sources]
    counts = Counter(map(str.casefold, names))
    return apart(
        [
            f"{source.paths[0].resolve().parent.name}_{name}" if counts[name.casefold()] > 1 and source.paths else name
            for name, source in zip(names, sources, strict=True)
        ]
    )


def open_source(name: str | os.PathLike[str], *, on_event: EventHandler = ignore) -> Source:
    """Open what ``name`` means: a path, a pattern for pictures, a camera's number, a URI, or the word ``demo``.

    A path names an image, a folder of images or a video file, a pattern such as ``images/*.png`` the images that match.
    URIs are ``camera://``, ``csi://``, ``gst://``, ``raw://``, ``test://``, and FFmpeg's ``rtsp://``, ``http://`` and
    others; see the pages on cameras. An existing file or folder wins over the other meanings of its name.

    Args:
        name: what to open; it may hold credentials, which appear nowhere else.
        on_event: told when a live source is lost and comes back, and when a size changes in mid-stream, by the thread
            that iterates the source.

    Raises:
        MediaError: nothing has that name, or nothing in it can be read as a picture, or a stream cannot be opened.
        UsageError: an unknown scheme, or an option in a URI that cannot be meant.
        MissingDependencyError: reading it needs a library that is not installed.
    """
    text = os.fspath(name)
    if is_uri(text):
        return _open_uri(text, on_event=on_event)
    source = _open_path(text, on_event=on_event)
    source.on_event = on_event
    return source


def missing_source(text: str) -> Source:
    """Return what stands for a camera that could not be opened, where others go on: it fails at its first frame."""

    def frames() -> Generator[Decoded, None, None]:
        raise MediaError("it could not be opened")
        yield  # which makes it a generator

    source = Source(frames(), kind="stream", name=name_from(text), frames_per_second=None, live=True)
    source.missing = True
    return source


def _open_path(text: str, *, on_event: EventHandler) -> Source:
    check_name(text)
    path = Path(text)
    if path.is_dir():
        return open_folder(path)
    if path.exists():
        return _open_file(path, on_event=on_event)
    if text == _DEMO:
        return _open_file(demo_clip(), on_event=on_event)
    if _is_camera(text):
        return open_webcam(int(text), on_event=on_event)
    if _WILDCARDS.search(text):
        return _open_pattern(path)
    raise MediaError(_missing(path))


def _open_file(path: Path, *, on_event: EventHandler) -> Source:
    """Open a picture, a video, a pipe, or a camera by its device: what it is tells the file, not its name."""
    mode = path.stat().st_mode
    if stat.S_ISCHR(mode):
        device = path.resolve()
        if not device.name.startswith("video"):
            raise MediaError(f"{path} is a device and no camera; expected one such as /dev/video0, or a file")
        return open_camera(address_from(f"camera://{quote(str(device))}"), on_event=on_event)
    has_av = importlib.util.find_spec("av") is not None
    open_moving = open_video if has_av else open_video_with_opencv
    if not stat.S_ISREG(mode):
        return open_moving(path)
    with path.open("rb") as file:
        kind = pictures.picture_format(file.read(_HEAD))
    # Pictures that follow one another in a GIF have their times.
    is_picture = kind is not None or path.suffix.lower() in IMAGE_SUFFIXES
    return _open_image(path) if is_picture and not (kind == "GIF" and has_av) else open_moving(path)


def _is_file_or_folder(text: str) -> bool:
    return os.path.isfile(text) or os.path.isdir(text)  # noqa: PTH112, PTH113 - Path's raise where a name is too long


def _exists(text: str) -> bool:
    return os.path.exists(text)  # noqa: PTH110 - Path's raises where a name is too long


def _is_camera(text: str) -> bool:
    return text.isdecimal() and len(text) <= MOST_CAMERA_DIGITS


def _open_image(path: Path) -> Source:
    """A source of one picture."""
    return Source(
        _picture(path), kind="picture", name=path.stem, frames_per_second=_PICTURES_PER_SECOND, count=1, paths=(path,)
    )


def open_folder(path: Path) -> Source:
    """The pictures of a folder, sorted as people count: ``frame9`` before ``frame10``.

    They are those that lie directly in it, or where none does, those in the folders below, as data sets keep them.
    Pictures may differ in size. One that cannot be read is skipped and named in ``warnings``.
    """
    there = list(path.iterdir())
    files = _pictures_among(there)
    below = () if files else _pictures_among(_below(path))
    files = files or below
    if not files:
        known = ", ".join((*IMAGE_SUFFIXES, *MOVING_SUFFIXES))
        raise MediaError(f"the folder {path} holds no pictures and no videos; expected files ending in {known}")
    others = Counter(
        each.suffix.lower() or "without suffix"
        for each in set(there).difference(files)
        if each.is_file() and not each.name.startswith(".")
    )
    left_out = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    # The folder may be given as "." or "..", which has no name of its own.
    source = _pictures_source(files, name=path.resolve().name or "images")
    source.warnings.extend([f"{path} holds other files, which are left out: {left_out}"] if others else [])
    if below:
        folders = len({file.parent for file in below})
        source.warnings.append(f"{path} holds no pictures itself: those of {folders} folders below it are read")
    return source


def _below(path: Path) -> Iterator[Path]:
    """The files in the folders below a folder, hidden ones left out."""
    return (each for each in path.rglob("*") if not any(part.startswith(".") for part in each.relative_to(path).parts))


def _open_pattern(pattern: Path) -> Source:
    """The pictures that match a pattern such as ``images/*.png`` or ``images/**/*.png``, in a folder's order."""
    matching = _matching(pattern)
    files = _pictures_among(matching)
    if not files:
        others = f"only {matching[0]} and the like" if matching else "nothing"
        raise MediaError(
            f"the pattern {pattern} matches {others}; expected pictures, ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    return _pictures_source(files, name=_fixed_folder(pattern).resolve().name or "images")


def _fixed_folder(pattern: Path) -> Path:
    return Path(*itertools.takewhile(lambda part: not _WILDCARDS.search(part), pattern.parts))


def _matching(pattern: Path) -> list[Path]:
    fixed = _fixed_folder(pattern)
    try:
        return list(fixed.glob(str(pattern.relative_to(fixed)))) if fixed.is_dir() else []
    except ValueError as error:  # such as a**b, before Python 3.13
        raise MediaError(f"{pattern} is no pattern ({error}); expected something like images/**/*.png") from error


def _pictures_among(paths: Iterable[Path]) -> tuple[Path, ...]:
    return _in_order(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _in_order(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(sorted(paths, key=lambda path: [_natural_key(part) for part in path.parts]))


def _pictures_source(files: tuple[Path, ...], *, name: str) -> Source:
    warnings: list[str] = []
    names = _names(files)
    return Source(
        _pictures(files, names, warnings),
        kind="folder",
        name=name,
        frames_per_second=_PICTURES_PER_SECOND,
        count=len(files),
        paths=files,
        frame_names=names,
        warnings=warnings,
    )


def _picture(path: Path) -> Generator[Decoded, None, None]:
    image_bgr, note = pictures.read_picture(path)
    yield Decoded(image_bgr, 0.0, note=note)


def _pictures(files: Sequence[Path], names: Sequence[str], warnings: list[str]) -> Generator[Decoded, None, None]:
    index = 0
    for file, name in zip(files, names, strict=True):
        try:
            image_bgr, note = pictures.read_picture(file)
        except (MediaError, MissingDependencyError) as error:
            warnings.append(f"skipped: {error}")
            continue
        yield Decoded(image_bgr, float(index / _PICTURES_PER_SECOND), name, note=note and f"{file.name}: {note}")
        index += 1


def _names(files: Sequence[Path]) -> list[str]:
    """Name each file so that no two become the same mask: a.jpg and a.png in one folder, or a.png in two folders."""
    names = [file.stem for file in files]
    for longer in (lambda file: file.name.replace(".", "_"), _whole_name):
        counts = Counter(names)
        names = [name if counts[name] == 1 else longer(file) for file, name in zip(files, names, strict=True)]
    return apart(names)


def _whole_name(file: Path) -> str:
    # Without the root: a name that begins with it would leave the folder that is written to.
    return "_".join(file.relative_to(file.anchor).parts).replace(".", "_")


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key in which runs of digits count as numbers."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _missing(path: Path) -> str:
    """Say that ``path`` does not exist, with the nearest name beside it."""
    expected = (
        "expected an image, a folder of images, a video file, a webcam number such as 0, a URI such as "
        "rtsp://host/path, or the word demo"
    )
    shown = without_credentials(str(path))  # it may be a URI that lacks a slash
    if path.is_symlink():
        return f"{path} is a link to what does not exist; {expected}"
    folder = path.parent
    if shown != str(path) or not folder.is_dir():
        return f"{shown} does not exist, nor does its folder; {expected}"
    near = difflib.get_close_matches(path.name, [file.name for file in folder.iterdir()], n=1)
    hint = f"did you mean {folder / near[0]}?" if near else expected
    return f"{path} does not exist; {hint}"


_OPENERS: dict[str, Callable[..., Source]] = {
    "camera": open_camera,
    "csi": open_csi,
    "gst": open_gst,
    "raw": open_raw,
    "test": open_synthetic,
    **dict.fromkeys(STREAM_SCHEMES, open_stream),
}


SCHEMES = tuple(_OPENERS)


def _open_uri(text: str, *, on_event: EventHandler) -> Source:
    """Open a camera, a stream, a pipeline, raw frames or the synthetic scene by its URI."""
    address = address_from(text)
    opener = _OPENERS.get(address.scheme)
    if opener is None:
        hint = did_you_mean(address.scheme, SCHEMES)
        expected = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise UsageError(f"{address.shown}: nothing opens {address.scheme}://{hint}; expected {expected}, or a path")
    return opener(address, on_event=on_event)
