"""The frames to compare on: some of a picture, a folder or a video, spread evenly, one at a time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from sfpp.export.demo import demo_frame, demo_person
from sfpp.runtime.contract import Task
from sfpp.runtime.errors import MediaError
from sfpp.runtime.images import Image, read_image
from sfpp.runtime.video.sources.opening import open_source

Notify = Callable[[str], object]
_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class NamedFrame:
    """One frame, (H, W, 3) uint8 BGR, and its name without suffix."""

    name: str
    image_bgr: Image


class Frames:
    """A choice of frames, iterated once; nothing is decoded before.

    Args:
        images: an image, a folder of images or a video; None takes the picture that comes with sfpp for the task.
        count: how many frames at most.
        task: of the model.
        notify: told what could not be read.

    Attributes:
        total: how many frames there will be, as far as can be told beforehand.
        source: what they are taken from, for people.

    Raises:
        MediaError: there is nothing of that name, or it holds no picture.
    """

    def __init__(self, images: str | os.PathLike[str] | None, *, count: int, task: Task, notify: Notify) -> None:
        shipped = demo_person() if task == "pose" else demo_frame()
        path = os.fspath(images) if images is not None else str(shipped)
        self.source = path if images is not None else "the picture that comes with sfpp"
        self._opened = open_source(path)
        self._count, self._notify = count, notify
        known = self._opened.count
        self.total = count if known is None else min(count, known)

    def __iter__(self) -> Iterator[NamedFrame]:
        """Yield the frames.

        Raises:
            MediaError: not one can be read.
        """
        with self._opened:
            found = self._pictures() if self._opened.kind in ("picture", "folder") else self._decoded()
            none_read = True
            for frame in found:
                none_read = False
                yield frame
        if none_read:
            raise MediaError(f"not one frame of {self.source} can be read; give another picture, folder or video")

    def _pictures(self) -> Iterator[NamedFrame]:
        for path in spread(self._opened.paths, self._count):
            frame = self._picture(path)
            if frame is not None:
                yield frame

    def _picture(self, path: Path) -> NamedFrame | None:
        try:
            return NamedFrame(path.stem, read_image(path))
        except MediaError as error:
            self._notify(f"warning: skipped: {error}")
            return None

    def _decoded(self) -> Iterator[NamedFrame]:
        available = self._opened.count
        # A camera does not end: its first frames are as good as any.
        wanted = set(spread(range(available or self._count), self._count))
        for frame in self._opened:
            if frame.index in wanted:
                yield NamedFrame(frame.name, frame.image_bgr)
            if frame.index >= max(wanted):
                return


def spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """Return ``count`` of the items, or all if there are fewer, as evenly spaced as they can be, ends included."""
    if count >= len(items):
        return list(items)
    # One frame alone is taken from the middle.
    ends = (0, len(items) - 1) if count > 1 else ((len(items) - 1) // 2,) * 2
    return [items[int(index)] for index in np.rint(np.linspace(*ends, count))]


def chunks(frames: Iterator[NamedFrame], size: int) -> Iterator[list[NamedFrame]]:
    """Yield the frames in groups of ``size``; the last may be smaller."""
    while group := list(itertools.islice(frames, size)):
        yield group
