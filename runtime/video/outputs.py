"""What a run writes and where, decided before anything is opened or written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sfpp.runtime.errors import UsageError
from sfpp.runtime.files import identity, is_nowhere
from sfpp.runtime.video.frame import Source
from sfpp.runtime.video.run import expected_frames
from sfpp.runtime.video.sinks.opening import (
    FOLDER_SUFFIX,
    Sink,
    folder_sink,
    is_folder,
    open_sink,
    sink_name,
    sink_place,
    snapshot_sink,
)
from sfpp.runtime.video.sinks.raw import STANDARD_OUTPUT
from sfpp.runtime.video.sinks.records import KeypointsFile, keypoints_file

_DEFAULT_ENDINGS = {"picture": "-sfpp.png", "folder": "-sfpp/"}  # all others become a video


@dataclass(frozen=True)
class Outputs:
    """The places to write to; None for what is not wanted.

    Attributes:
        overlay: a video, a picture, or a folder (a final slash makes it one), as text, since paths drop the slash.
        masks: a folder for PNGs of label values.
        snapshot: a picture from the middle of the run.
        keypoints: a file for keypoints as JSON lines.
    """

    overlay: str | None
    masks: str | None = None
    snapshot: str | None = None
    keypoints: str | None = None

    def all(self) -> tuple[str, ...]:
        """All places that are wanted."""
        places = self.overlay, self.masks, self.snapshot, self.keypoints
        return tuple(place for place in places if place is not None)


def default_overlay(source: Source) -> str:
    """Name the output after the input, in the current folder: highway.mp4 -> highway-sfpp.mp4."""
    return source.name + _DEFAULT_ENDINGS.get(source.kind, "-sfpp.mp4")


def check_places(places: Iterable[str], sources: Sequence[Source], *, also_read: Sequence[str] = ()) -> None:
    """Refuse outputs that would overwrite an input, or other files that are ``also_read``, or each other.

    Files are told by what they are, whatever links and spellings lead to them.

    Args:
        places: names of sinks, as :func:`.sinks.open_sink` takes them.
        sources: what is read, opened or closed again.
        also_read: other files that are.

    Raises:
        UsageError: they would, or an address is none.
    """
    inputs = {identity(path) for path in (*_paths(sources), *map(Path, also_read))}
    folders = {identity(path) for path in _folders_of_pictures(sources)}
    taken: set[object] = set()
    for text in places:
        name, place = sink_name(text), sink_place(text)
        key = identity(place) if isinstance(place, Path) else place
        if key in inputs:
            raise UsageError(f"the output {name} is the input itself; give another name")
        # Pictures in a folder are named after the frames, and so after the pictures that were read.
        if key in folders:
            raise UsageError(
                f"the output folder {name} holds the input, which would be overwritten; give another folder"
            )
        if key in taken:
            where = "standard output" if place == STANDARD_OUTPUT else name
            raise UsageError(f"two outputs go to {where}; give each its own place")
        if not is_nowhere(place):
            taken.add(key)


def check_folder(place: str, source: Source) -> None:
    """Refuse a folder that holds files whose names pictures of a source would get, whoever wrote them.

    Pictures of a live source are not refused: they get a number.

    Raises:
        UsageError: there is one.
    """
    folder = Path(place)
    if source.live or not folder.is_dir():
        return
    if source.frame_names is not None:
        files = (folder / f"{name}{FOLDER_SUFFIX}" for name in source.frame_names)
        existing = next(filter(os.path.lexists, files), None)
    else:
        numbered = (each for each in folder.iterdir() if each.suffix.lower() == FOLDER_SUFFIX)
        existing = next((each for each in numbered if source.numbers(each.stem)), None)
    if existing is not None:
        raise UsageError(
            f"{existing} exists, and would be overwritten; give another folder, or take away what is in this one"
        )


def check_outputs(outputs: Outputs, source: Source, *, also_read: Sequence[str] = ()) -> None:
    """Refuse outputs as :func:`check_places` and :func:`check_folder` do.

    Raises:
        UsageError: they would overwrite something.
    """
    check_places(outputs.all(), [source], also_read=also_read)
    overlay = outputs.overlay if outputs.overlay is not None and is_folder(outputs.overlay) else None
    for folder in filter(None, (overlay, outputs.masks)):
        check_folder(folder, source)


@contextlib.contextmanager
def open_outputs(
    outputs: Outputs, source: Source, *, every: int = 1, max_frames: int | None = None
) -> Iterator[tuple[list[Sink], list[Sink]]]:
    """Open the pictures that are wanted, and complete them at the end of the block.

    ``every`` and ``max_frames`` as for the run: with every second frame, a video shows half as many frames a second.

    Returns:
        The sinks for overlays, and those for masks.

    Raises:
        SfppError: an output would overwrite the input, has a name of no known kind, or cannot be written.
    """
    check_outputs(outputs, source)
    count = expected_frames(source, every=every, max_frames=max_frames)
    rate = source.frames_per_second and source.frames_per_second / every
    overlays: list[Sink] = []
    masks: list[Sink] = []
    with contextlib.ExitStack() as stack:
        if outputs.overlay is not None:
            overlays.append(stack.enter_context(open_sink(outputs.overlay, frames_per_second=rate, count=count)))
        if outputs.snapshot is not None:
            overlays.append(stack.enter_context(snapshot_sink(Path(outputs.snapshot), count=count)))
        if outputs.masks is not None:
            masks.append(stack.enter_context(folder_sink(Path(outputs.masks))))
        yield overlays, masks


@contextlib.contextmanager
def open_keypoints(outputs: Outputs) -> Iterator[list[KeypointsFile]]:
    """Open the file for keypoints, if it is wanted, and complete it at the end of the block.

    Raises:
        SfppError: it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        yield [] if outputs.keypoints is None else [stack.enter_context(keypoints_file(outputs.keypoints))]


def _paths(sources: Iterable[Source]) -> Iterator[Path]:
    for source in sources:
        yield from source.paths


def _folders_of_pictures(sources: Iterable[Source]) -> set[Path]:
    """Return the folders in which pictures that are read lie, and those in which what they are links to lies."""
    paths = list(_paths(source for source in sources if source.kind in ("picture", "folder")))
    return {path.parent for path in paths} | {path.resolve().parent for path in paths if path.is_symlink()}
