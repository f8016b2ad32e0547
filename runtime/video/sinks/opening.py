"""Where segmented frames go: a video, a picture, a folder of pictures or masks, a snapshot, or live to a receiver."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError, UsageError, did_you_mean
from sfpp.runtime.events import EventHandler, ignore
from sfpp.runtime.files import (
    check_destinations,
    check_name,
    free_path,
    made_folder,
    open_number,
    settle_all,
)
from sfpp.runtime.pixels import pictures
from sfpp.runtime.video.frame import Frame, Origin
from sfpp.runtime.video.sinks.h264 import VIDEO_SUFFIXES, recording_sink, video_sink
from sfpp.runtime.video.sinks.push import PROTOCOLS, PushSink, Receiver
from sfpp.runtime.video.sinks.raw import STANDARD_OUTPUT, RawSink, RawTarget
from sfpp.runtime.video.sinks.records import RECORD_SUFFIX, check_records, record_lines
from sfpp.runtime.video.sinks.window import WindowSink
from sfpp.runtime.video.sources.address import is_uri

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
FOLDER_SUFFIX = ".png"  # of pictures in folders
_DEFAULT_RATE = Fraction(25)
_STDOUT = 1
OutputKind = Literal["video", "picture", "folder", "lines", "raw", "window", "receiver", "unknown"]
SINK_SCHEMES = ("raw", "window", *PROTOCOLS)


class Sink(Protocol):
    """Takes pictures one by one: (H, W, 3) uint8 BGR overlays, or (H, W) uint8 label values."""

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Take the picture made from ``frame``; it may be kept, but other sinks have it too and it must not be changed.

        Raises:
            SfppError: it cannot be written.
        """


def open_sink(
    path: str | os.PathLike[str],
    *,
    frames_per_second: Fraction | None = _DEFAULT_RATE,
    count: int | None = None,
    live: bool = False,
    origin: Origin | None = None,
    on_event: EventHandler = ignore,
    on_stop: Callable[[], object] = lambda: None,
) -> AbstractContextManager[Sink]:
    """Choose the sink by the name: .mp4, .mov, .mkv a video; .png, .jpg a picture; no suffix or a final / a folder.

    ``NAME.jsonl`` or ``-`` (standard output) are lines of JSON: what is given as pictures there becomes frames' numbers
    and times, and :meth:`.RecordLines.write_record` takes the rest. Addresses are ``raw://-`` and ``raw:///PATH`` for
    bare bytes, ``window://`` for a window, and ``rtsp://``, ``rtsps://``, ``rtmp://``, ``rtmps://``, ``srt://`` and
    ``udp://`` for live video.

    Args:
        path: where to write.
        frames_per_second: of a video: about as many as will come, since each frame has its own time. Raw pictures have
            none, and are so many a second; None writes them as they come.
        count: how many pictures will come, None if unknown; only one fits into a picture file.
        live: write videos so that they can be played whatever ends the program, with each frame's own time; and
            overwrite no older file: videos of the same name are renamed, pictures get a number.
        origin: :attr:`.Source.origin` of the source whose frames come, so that a video gets its sound.
        on_event: told what happens to receivers and readers, of changes of size, and of sound that is left out.
        on_stop: told when the user closes a window.

    Raises:
        UsageError: a suffix or an address that is none of these, or a picture file for more than one picture.
    """
    check_sink(path, count=count)
    text, target, kind = os.fspath(path), Path(path), output_from(path).kind
    if kind == "window":
        return WindowSink(on_stop)
    if kind == "raw":
        rate = None if live else frames_per_second
        return RawSink(RawTarget.from_uri(text), frames_per_second=rate, on_event=on_event)
    if kind == "receiver":
        return PushSink(text, on_event=on_event)
    if kind == "lines":
        return record_lines(text, on_event=on_event)
    if kind == "folder":
        return folder_sink(target, keep_older=live)
    if kind != "video":
        return contextlib.nullcontext(_Image(target))
    if live:
        return recording_sink(target, on_event=on_event)
    return video_sink(target, frames_per_second=frames_per_second, origin=origin, on_event=on_event)


def check_sink(path: str | os.PathLike[str], *, count: int | None = None) -> None:
    """Refuse a name that :func:`open_sink` cannot open, before anything is.

    Raises:
        UsageError: as for :func:`open_sink`.
        SfppError: it is a disk or a socket, or lies in what is no folder.
    """
    output = output_from(path)
    place, kind = output.place, output.kind
    if kind == "folder":
        _check_no_half_address(output.name)
    if kind == "unknown":
        known = ", ".join((*VIDEO_SUFFIXES, *PICTURE_SUFFIXES, RECORD_SUFFIX))
        raise UsageError(f"cannot tell what to write to {output.name}: expected a folder, or a name ending in {known}")
    if kind in ("folder", "raw") or not isinstance(place, Path):
        return
    if kind == "picture" and count != 1:
        many = f"{count} frames" if count else "any number of frames"
        raise UsageError(
            f"{place} holds one picture, but {many} will come; "
            "give a folder or a name ending in .mp4, or take one frame only"
        )
    if kind == "lines":
        check_records(place)
    check_destinations(place)


@dataclass(frozen=True)
class Output:
    """What the name or the address of an output means, as long as no file or folder of that name comes or goes.

    Attributes:
        kind: of what is written; ``unknown`` for a file's name that does not tell.
        name: what to call it in messages: a path as it is, an address without what may be secret.
        place: a path, ``-`` for standard output by any name, or another address as it is.
    """

    kind: OutputKind
    name: str
    place: Path | str = field(repr=False)

    @property
    def thread_name(self) -> str:
        """What the thread that writes it is called, in events too."""
        return "standard output" if self.place == STANDARD_OUTPUT else self.name


def output_from(path: str | os.PathLike[str]) -> Output:
    """Tell what a name or an address means.

    Raises:
        UsageError: an address of no known kind, or one that is not complete.
    """
    text = os.fspath(path)
    if not is_uri(text):
        place = _standard_output_or_path(text)  # which checks the name before it is asked what is there
        return Output(_kind_of_file(text), text, place)
    scheme = text.partition(":")[0].lower()
    if scheme in PROTOCOLS:
        return Output("receiver", Receiver.from_uri(text).name, text)
    if scheme == "raw":
        return Output("raw", text, _standard_output_or_path(RawTarget.from_uri(text).place))
    if scheme == "window":
        return Output("window", text, text)
    known = ", ".join(f"{each}://" for each in SINK_SCHEMES)
    hint = did_you_mean(scheme, SINK_SCHEMES)
    raise UsageError(f"nothing can be written to {scheme}://{hint}; expected {known}, or the name of a file")


def _kind_of_file(text: str) -> OutputKind:
    path, suffix = Path(text), Path(text).suffix.lower()
    if text == STANDARD_OUTPUT:
        return "lines"
    if text.endswith(("/", os.sep)) or path.is_dir() or not (path.suffix or path.exists()):
        return "folder"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix in PICTURE_SUFFIXES:
        return "picture"
    return "lines" if suffix == RECORD_SUFFIX else "unknown"


def _standard_output_or_path(text: str) -> Path | str:
    check_name(text)
    return STANDARD_OUTPUT if text == STANDARD_OUTPUT or open_number(Path(text)) == _STDOUT else Path(text)


def _check_no_half_address(text: str) -> None:
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() in SINK_SCHEMES and not Path(text).is_dir():
        host = rest.rpartition("@")[2]  # a password would end up in logs
        shown = text if host == rest else f"{scheme}:/{host}"
        raise UsageError(f"{shown} would be a folder; did you mean {scheme}://{host.lstrip('/')}?")


@contextlib.contextmanager
def folder_sink(path: Path, *, keep_older: bool = False) -> Iterator[Sink]:
    """Write every picture into a folder under its frame's name; the folder is created, with its parents.

    A file of that name is overwritten, or with ``keep_older`` left, and the picture gets a number behind its name.
    Waiting for the disk after each picture would make it thrice as slow, so that is done once, after the last: a power
    cut before that may take the pictures of the last half minute.

    Raises:
        SfppError: the folder cannot be created.
    """
    with made_folder(path):
        try:
            yield _Folder(path, keep_older=keep_older)
        finally:
            settle_all()


@contextlib.contextmanager
def snapshot_sink(path: Path, *, count: int | None = None) -> Iterator[Sink]:
    """Keep one picture from about the middle of ``count`` (None: of however many come) and write it at the end.

    Ctrl-C within the block still writes it; any other error does not.

    Raises:
        UsageError: a suffix of no picture format.
        SfppError: it cannot be written.
    """
    check_picture_path(path)
    snapshot = _Snapshot(path, count)
    try:
        yield snapshot
    except KeyboardInterrupt:
        snapshot.save()
        raise
    snapshot.save()


def check_picture_path(path: Path) -> None:
    """Refuse early what would fail after the work is done; raises as :func:`snapshot_sink`."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"{path} is no name for a picture: expected it to end in {', '.join(PICTURE_SUFFIXES)}")
    check_destinations(path)


class _Image:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = False

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        if self._written:
            raise MediaError(
                f"{self._path} holds one picture, and {frame.name} is the second; give a folder or a video"
            )
        pictures.write_image(self._path, image)
        self._written = True


class _Folder:
    def __init__(self, path: Path, *, keep_older: bool) -> None:
        self._path = path
        self._keep_older = keep_older

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        path = self._path / f"{frame.name}{FOLDER_SUFFIX}"
        pictures.write_image(free_path(path) if self._keep_older else path, image, settled=False)


class _Snapshot:
    def __init__(self, path: Path, count: int | None) -> None:
        self._path = path
        self._count = count
        self._seen = 0
        self._image: NDArray[np.uint8] | None = None

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        if self._wanted():
            self._image = image
        self._seen += 1

    def save(self) -> None:
        if self._image is not None:
            pictures.write_image(self._path, self._image)

    def _wanted(self) -> bool:
        if self._count is not None:
            return self._seen <= self._count // 2
        # Without a known end, every doubling: the picture is then from the second half of the run, whenever it ends.
        return self._seen & (self._seen - 1) == 0
