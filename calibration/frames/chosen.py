"""Frames for calibration and for judging: which ones, and in the very form in which the runtime feeds them.

Frames are chosen once and can then be gone through any number of times; only one of them is in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from sfpp.calibration.frames.diversity import most_diverse
from sfpp.calibration.frames.shelves import NamedFrame, Progress, Shelf, open_shelf
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.images import read_image

Selection = Literal["random", "diverse"]

# A diverse choice looks at this many random frames for each that it wants: not at all those of an hour of video.
_POOL_FACTOR = 8


class Frames:
    """Frames that were chosen, to be gone through again and again.

    Args:
        files: where each lies: a picture, or the pixels of a video's frame as .npy.
        names: what each is called.
        digests: hashes of their pixels.
    """

    def __init__(self, files: Sequence[Path], names: Sequence[str], digests: Sequence[bytes]) -> None:
        self._files = tuple(files)
        self._digests = tuple(digests)
        self.names = tuple(names)

    @property
    def sha256(self) -> str:
        """The hash of all their pixels, in hexadecimal."""
        return hashlib.sha256(b"".join(self._digests)).hexdigest()

    def __len__(self) -> int:
        return len(self._files)

    def shares_with(self, others: Frames) -> bool:
        """Return whether one of the frames has the same pixels as one of the others."""
        return not set(self._digests).isdisjoint(others._digests)

    def __iter__(self) -> Iterator[NamedFrame]:
        """Yield the frames, each read anew.

        Raises:
            MediaError: one of them cannot be read any more.
        """
        for name, file in zip(self.names, self._files, strict=True):
            yield NamedFrame(name, np.load(file) if file.suffix == ".npy" else read_image(file), file)

    def first(self, count: int) -> Frames:
        """Return the first ones only, or all if there are no more."""
        return Frames(self._files[:count], self.names[:count], self._digests[:count])


@dataclass(frozen=True, eq=False)
class ChosenFrames:
    """What a source gave.

    Attributes:
        calibration: frames to calibrate with.
        held_out: others, to judge by.
        overlapping: some frames serve for both: there were too few, or the other source has the same ones.
        warnings: what else should be known, in sentences.
    """

    calibration: Frames
    held_out: Frames
    overlapping: bool = False
    warnings: tuple[str, ...] = ()


@contextlib.contextmanager
def chosen_frames(
    source: str,
    *,
    frames: int = 64,
    held_out: int = 24,
    select: Selection = "random",
    seed: int = 0,
    judge_by: str | None = None,
    annotated: Collection[str] | None = None,
    only_annotated: bool = False,
    progress: Progress = lambda done, total: None,
) -> Generator[ChosenFrames, None, None]:
    """Choose frames of a source; they can be read until the block ends.

    Args:
        source: a picture, a folder of pictures, a .txt file with the path of one picture a line, or a video file.
        frames: how many to calibrate with.
        held_out: how many others to judge by; of a small source, at most a third.
        select: ``random``, or ``diverse``: those that look least alike. Frames to judge by are always random ones.
        seed: of the choice; the same seed chooses the same frames.
        judge_by: another source for the frames to judge by; None holds some of ``source`` out.
        annotated: names of the frames that may be judged by; None allows all.
        only_annotated: calibrate with those only too, where the source has any.
        progress: told how many frames were read.

    Raises:
        UsageError: fewer than one frame, or a selection that does not exist.
        MediaError: nothing can be read, or a source does not know its length, as a camera.
    """
    if frames < 1 or held_out < 1:
        raise UsageError(f"frames is {frames} and held_out {held_out}, expected at least 1 of each")
    if select not in get_args(Selection):
        raise UsageError(f"select is {select!r}, expected one of {', '.join(get_args(Selection))}")
    shelf = open_shelf(source)
    judging = shelf if judge_by is None else open_shelf(judge_by)
    to_judge = _to_judge(judging, held_out, seed, annotated, apart=judge_by is not None)
    order = _shuffled(shelf, seed)
    if only_annotated and annotated is not None:
        order = [index for index in order if shelf.names[index] in annotated] or order
    if judge_by is None:
        to_judge = to_judge[: max(len(order) // 3, 1)]  # of fewer frames, a third is fewer too
    taken = set(to_judge) if judge_by is None else set()
    pool = [index for index in order if index not in taken] or order
    chosen, unread = pool[:frames], 0
    if select == "diverse":
        chosen, unread = most_diverse(shelf, pool[: frames * _POOL_FACTOR], frames)
    with tempfile.TemporaryDirectory(prefix="sfpp-frames-") as folder:
        calibration = _gathered(shelf, chosen, Path(folder, "calibration"), progress)
        held = _gathered(judging, to_judge, Path(folder, "held-out"), progress)
        same = not set(chosen).isdisjoint(to_judge) if judge_by is None else calibration.shares_with(held)
        if not len(calibration):
            raise MediaError(f"{source}: not one frame can be read; give pictures or a video that sfpp-run can open")
        if not len(held):
            lacking = "can be read" if annotated is None else "has annotations; the names of both must be the same"
            raise MediaError(f"{judge_by or source}: no frame to judge by {lacking}")
        lost = unread + len(chosen) + len(to_judge) - len(calibration) - len(held)
        warnings = _warnings(source, lost=lost, found=len(calibration), wanted=frames, judge_by=judge_by, same=same)
        yield ChosenFrames(calibration, held, same, (*warnings, *_namesakes(judge_by or source, judging)))


def _shuffled(shelf: Shelf, seed: int) -> list[int]:
    return [int(index) for index in np.random.default_rng(seed).permutation(len(shelf.names))]


def _to_judge(shelf: Shelf, held_out: int, seed: int, annotated: Collection[str] | None, *, apart: bool) -> list[int]:
    """Return the frames to judge by: of a source that is calibrated with too, at most a third, but at least one."""
    order = _shuffled(shelf, seed)
    allowed = order if annotated is None else [index for index in order if shelf.names[index] in annotated]
    return allowed[: held_out if apart else min(held_out, max(len(order) // 3, 1))]


def _gathered(shelf: Shelf, indices: Collection[int], folder: Path, progress: Progress) -> Frames:
    """Read frames once, for their hashes; those of a video are written down, since decoding it again takes too long."""
    folder.mkdir()
    files, names, digests = [], [], []
    for done, (index, frame) in enumerate(shelf.take(indices), 1):
        file = frame.file
        if file is None:
            file = folder / f"{index}.npy"
            np.save(file, frame.image_bgr)
        files.append(file)
        names.append(frame.name)
        pixels = repr(frame.image_bgr.shape).encode() + frame.image_bgr.tobytes()
        digests.append(hashlib.sha256(pixels).digest())
        progress(done, len(indices))
    return Frames(files, names, digests)


def _warnings(source: str, *, lost: int, found: int, wanted: int, judge_by: str | None, same: bool) -> tuple[str, ...]:
    lines = []
    if found < wanted:
        lines.append(f"{source} gave {found} frames to calibrate with, {wanted} were asked for")
    if lost:
        lines.append(f"{lost} of the frames cannot be read and were left out")
    if same and judge_by is None:
        lines.append(f"{source} has so few frames that files are judged by those that they were calibrated with")
    if same and judge_by is not None:
        lines.append(f"{judge_by} has frames that are calibrated with too; judge by others")
    return tuple(lines)


def _namesakes(source: str, shelf: Shelf) -> list[str]:
    """Return a warning if labels cannot tell frames apart, as where 1.png beside 1.jpg is a label picture."""
    twice = sorted(name for name, count in Counter(shelf.names).items() if count > 1)
    if not twice:
        return []
    return [
        f"{source} has several frames called {twice[0]} ({len(twice)} such names): labels belong to all frames of a "
        "name; keep label pictures in a folder of their own"
    ]
