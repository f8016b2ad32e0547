"""Where the frames of a source can be had by their number: pictures from their files, videos by decoding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sfpp.runtime.errors import MediaError
from sfpp.runtime.images import Image, read_image
from sfpp.runtime.video import open_source

Progress = Callable[[int, int], object]  # how many are done, of how many


@dataclass(frozen=True, eq=False)
class NamedFrame:
    """One frame: its name, unique in its source and without suffix, and (H, W, 3) uint8 BGR.

    ``file`` is the picture that it was read from, None for a frame of a video.
    """

    name: str
    image_bgr: Image
    file: Path | None = None


class Shelf(Protocol):
    """The frames of one source."""

    @property
    def names(self) -> Sequence[str]:
        """What the frames are called, by number; a source may turn out to be shorter than it says."""

    def take(self, indices: Collection[int]) -> Iterator[tuple[int, NamedFrame]]:
        """Yield those of the frames that can be read, in the order of the source; the others are left out."""


class PictureShelf:
    """Pictures, each read when it is asked for.

    Args:
        files: in the order of the source.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        self.names = tuple(file.stem for file in self._files)

    def take(self, indices: Collection[int]) -> Iterator[tuple[int, NamedFrame]]:
        """Yield the pictures that can be read; see :class:`Shelf`."""
        for index in sorted(indices):
            file = self._files[index]
            try:
                yield index, NamedFrame(self.names[index], read_image(file), file)
            except MediaError:
                continue


class VideoShelf:
    """The frames of a video file, decoded from the start whenever some are asked for.

    Args:
        path: the file.
        count: how many frames its header promises.
    """

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self.names = tuple(f"{path.stem}-{index:06d}" for index in range(count))

    def take(self, indices: Collection[int]) -> Iterator[tuple[int, NamedFrame]]:
        """Yield the frames that can be decoded; see :class:`Shelf`."""
        wanted, last = set(indices), max(indices, default=-1)
        with open_source(str(self._path)) as source:
            for frame in source:
                if frame.index > last:
                    return
                if frame.index in wanted:
                    yield frame.index, NamedFrame(self.names[frame.index], frame.image_bgr)


def open_shelf(source: str) -> Shelf:
    """Return the frames of a picture, a folder of pictures, a .txt file with a picture's path a line, or a video.

    Raises:
        MediaError: nothing has that name, it holds no frame, or it does not know its length, as a camera.
    """
    path = Path(source)
    if path.suffix.lower() == ".txt" and path.is_file():
        return PictureShelf(_listed(path))
    with open_source(source) as opened:
        if opened.kind in ("picture", "folder"):
            return PictureShelf(opened.paths)
        if opened.count is None or not opened.paths:
            raise MediaError(
                f"{source} has no known number of frames; calibrate on a video file, a folder of pictures or a list"
            )
        return VideoShelf(opened.paths[0], opened.count)


def _listed(path: Path) -> list[Path]:
    """Return the pictures of a list; relative paths are relative to the list."""
    try:
        # Windows' editors begin a file with a byte order mark, which would be taken for part of the first name.
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"cannot read the list {path}: {error}") from error
    files = [path.parent / line for line in lines if line and not line.startswith("#")]
    if not files:
        raise MediaError(f"the list {path} names no picture; expected one path a line")
    if missing := [file for file in files if not file.is_file()]:
        raise MediaError(f"the list {path} names {missing[0]}, which does not exist ({len(missing)} of {len(files)})")
    return files
