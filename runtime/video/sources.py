"""Open whatever a user names as input: a picture, a folder, a video, a webcam, the shipped clip."""

from __future__ import annotations

import collections
import difflib
import re
from collections.abc import Generator, Sequence
from fractions import Fraction
from pathlib import Path

from sfpp.runtime import images
from sfpp.runtime.demo import demo_clip
from sfpp.runtime.errors import MediaError
from sfpp.runtime.video.frames import Decoded, Source
from sfpp.runtime.video.video_file import open_video
from sfpp.runtime.video.webcam import open_webcam

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_DEMO = "demo"
_PICTURES_PER_SECOND = Fraction(25)  # when a video is made of single pictures


def open_source(text: str) -> Source:
    """Open ``text``: an image, a folder of images, a video file, a webcam's number, or the word ``demo``.

    An existing file or folder wins over the other meanings of its name.

    Raises:
        MediaError: nothing has that name, or nothing in it can be read as a picture.
        MissingDependencyError: reading it needs a library that is not installed.
    """
    path = Path(text)
    if path.is_dir():
        return open_folder(path)
    if path.exists():
        return open_image(path) if path.suffix.lower() in IMAGE_SUFFIXES else open_video(path)
    if text == _DEMO:
        return open_video(demo_clip())
    if text.isdecimal():
        return open_webcam(int(text))
    raise MediaError(_missing(path))


def open_image(path: Path) -> Source:
    """A source of one picture.

    Raises:
        MediaError: the file is not a picture that OpenCV reads.
    """
    return Source(
        _picture(path), kind="picture", name=path.stem, frames_per_second=_PICTURES_PER_SECOND, count=1, paths=(path,)
    )


def open_folder(path: Path) -> Source:
    """The pictures that lie directly in a folder, sorted as people count: ``frame9`` before ``frame10``.

    Pictures may differ in size. One that cannot be read is skipped and named in ``warnings``.

    Raises:
        MediaError: the folder holds no picture, or none that can be read.
    """
    found = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    files = tuple(sorted(found, key=lambda file: _natural_key(file.name)))
    if not files:
        raise MediaError(f"the folder {path} holds no pictures; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    warnings: list[str] = []
    # The folder may be given as "." or "..", which has no name of its own.
    name = path.resolve().name or "images"
    return Source(
        _pictures(files, warnings),
        kind="folder",
        name=name,
        frames_per_second=_PICTURES_PER_SECOND,
        count=len(files),
        paths=files,
        warnings=warnings,
    )


def _picture(path: Path) -> Generator[Decoded, None, None]:
    yield Decoded(images.read_image(path), 0.0, path.stem)


def _pictures(files: Sequence[Path], warnings: list[str]) -> Generator[Decoded, None, None]:
    index = 0
    stems = collections.Counter(file.stem for file in files)
    for file in files:
        try:
            image_bgr = images.read_image(file)
        except MediaError as error:
            warnings.append(f"skipped: {error}")
            continue
        # a.jpg and a.png in one folder must not become the same mask.
        name = file.stem if stems[file.stem] == 1 else file.name.replace(".", "_")
        yield Decoded(image_bgr, float(index / _PICTURES_PER_SECOND), name)
        index += 1


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key in which runs of digits count as numbers."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _missing(path: Path) -> str:
    """Say that ``path`` does not exist, with the nearest name beside it."""
    expected = "expected an image, a folder of images, a video file, a webcam number such as 0, or the word demo"
    folder = path.parent
    if not folder.is_dir():
        return f"{path} does not exist, nor does its folder {folder}; {expected}"
    near = difflib.get_close_matches(path.name, [file.name for file in folder.iterdir()], n=1)
    hint = f"did you mean {folder / near[0]}?" if near else expected
    return f"{path} does not exist; {hint}"
