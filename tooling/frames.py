"""Frames to calibrate with, to evaluate on and to compare on: taken by number, one in memory at a time."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from sfpp.runtime.errors import MediaError
from sfpp.runtime.images import Image
from sfpp.runtime.pixels.pictures import read_image
from sfpp.runtime.typed_json import text_from_file
from sfpp.runtime.video.sources.opening import open_source

_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class NamedFrame:
    """One frame.

    Attributes:
        name: unique in its source and without suffix.
        image_bgr: (H, W, 3) uint8 BGR.
        index: its number in the source.
        file: the image that it was read from, None for a frame of a video.
    """

    name: str
    image_bgr: Image
    index: int = 0
    file: Path | None = None


class FrameSource:
    """The frames of one source: images, each read when it is asked for, or a video, decoded from its start.

    Args:
        source: an image, a folder of images, a .txt file with the path of one image per line, or whatever else
            :func:`sfpp.runtime.video.sources.opening.open_source` opens.

    Attributes:
        names: what the frames are called, by number; a video may turn out to be shorter than its header says. Empty
            where nobody knows how many there will be, as of a camera. Of images in several folders that share theirs,
            the folders stand before it: ``left/0001``.
        warnings: what is odd about the source, in sentences.

    Raises:
        MediaError: nothing has that name, or it holds no frame.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._files: tuple[Path, ...] = ()
        self.warnings: tuple[str, ...] = ()
        path = Path(source)
        if path.suffix.lower() == ".txt" and path.is_file():
            self._files = _listed(path)
        else:
            # A camera can only be opened once, so it stays open until its frames are taken.
            self._opened = open_source(source)
            if self._opened.kind in ("picture", "folder"):
                self._files = self._opened.paths
            if self._opened.count is not None:
                self._opened.close()
            self.warnings = tuple(self._opened.warnings)
        self.names = _names(self._files) or tuple(
            f"{self._opened.name}-{index:06d}" for index in range(self._opened.count or 0)
        )

    def take(
        self, indices: Collection[int], *, on_unreadable: Callable[[MediaError], object] = lambda error: None
    ) -> Iterator[NamedFrame]:
        """Yield those of the frames that can be read, in the order of the source; the others are left out.

        Args:
            indices: the frames' numbers.
            on_unreadable: called with the reason for an image that cannot be read.
        """
        if not self._files:
            yield from self._decoded(set(indices))
            return
        for index in sorted(indices):
            file = self._files[index]
            try:
                frame = NamedFrame(self.names[index], read_image(file), index, file)
            except MediaError as error:
                on_unreadable(error)
                continue
            yield frame

    def close(self) -> None:
        """Release a camera whose frames are not taken."""
        if not self._files:
            self._opened.close()

    def _decoded(self, wanted: set[int]) -> Iterator[NamedFrame]:
        with self._opened if self._opened.count is None else open_source(self._source) as source:
            for frame in source:
                if frame.index in wanted:
                    yield NamedFrame(frame.name, frame.image_bgr, frame.index)
                if frame.index >= max(wanted, default=-1):
                    return


def evenly_spaced(items: Sequence[_Item], count: int) -> list[_Item]:
    """Return ``count`` of the items, or all if there are fewer, as evenly spaced as they can be, ends included."""
    if count >= len(items):
        return list(items)
    # One frame alone is taken from the middle.
    ends = (0, len(items) - 1) if count > 1 else ((len(items) - 1) // 2,) * 2
    return [items[int(index)] for index in np.rint(np.linspace(*ends, count))]


def in_batches(frames: Iterator[NamedFrame], size: int) -> Iterator[list[NamedFrame]]:
    """Yield the frames in groups of ``size``; the last may be smaller."""
    while batch := list(itertools.islice(frames, size)):
        yield batch


def _names(files: Sequence[Path]) -> tuple[str, ...]:
    counts = Counter(file.stem for file in files)
    if len(counts) == len(files):
        return tuple(file.stem for file in files)
    whole = [file.absolute() for file in files]  # a list may name some so, and others not
    root = os.path.commonpath([file.parent for file in whole])
    return tuple(
        file.stem if counts[file.stem] == 1 else (file.parent.relative_to(root) / file.stem).as_posix()
        for file in whole
    )


def _listed(path: Path) -> tuple[Path, ...]:
    """Return the images of a list; relative paths are relative to the list."""
    text = text_from_file(path, where=f"the list {path}", raising=MediaError)
    lines = [line.strip() for line in text.splitlines()]
    files = tuple(path.parent / line for line in lines if line and not line.startswith("#"))
    if not files:
        raise MediaError(f"the list {path} names no picture; expected one path per line")
    if missing := [file for file in files if not os.path.isfile(file)]:  # noqa: PTH113 - Path's raises where a name is too long
        raise MediaError(f"the list {path} names {missing[0]}, which does not exist ({len(missing)} of {len(files)})")
    return files
