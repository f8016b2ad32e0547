"""Frames for calibration and for validation: which ones, and in the very form in which the runtime feeds them.

Frames are chosen once and can then be gone through any number of times; only one of them is in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Container, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfpp.calibration.settings import CalibrationSettings
from sfpp.runtime.errors import MediaError
from sfpp.runtime.images import Image
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.pixels.pictures import read_image
from sfpp.runtime.scratch import scratch_folder
from sfpp.tooling.frames import FrameSource, NamedFrame

# A diverse selection looks at this many random frames for each that it wants: not at all those of an hour of video.
_POOL_FACTOR = 8
_THUMBNAIL = 8  # pixels a side: where the sky is and what color the road has, and no detail


class Frames:
    """Frames that were chosen, to be gone through again and again.

    Args:
        frames: of each its file, a picture or the pixels of a video's frame as .npy; its name; a hash of its pixels.
    """

    def __init__(self, frames: Sequence[tuple[Path, str, bytes]]) -> None:
        self._frames = tuple(frames)
        self.names = tuple(name for _, name, _ in frames)

    @property
    def sha256(self) -> str:
        """The hash of all their pixels, in hexadecimal."""
        return hashlib.sha256(b"".join(digest for *_, digest in self._frames)).hexdigest()

    def __len__(self) -> int:
        return len(self._frames)

    def shares_with(self, others: Frames) -> bool:
        """Return whether one of the frames has the same pixels as one of the others."""
        return not {digest for *_, digest in self._frames}.isdisjoint(digest for *_, digest in others._frames)

    def __iter__(self) -> Iterator[NamedFrame]:
        """Yield the frames, each read anew.

        Raises:
            MediaError: one of them cannot be read any more.
        """
        for index, (file, name, _) in enumerate(self._frames):
            yield NamedFrame(name, np.load(file) if file.suffix == ".npy" else read_image(file), index, file)

    def first(self, count: int) -> Frames:
        """Return the first ones only, or all if there are no more."""
        return Frames(self._frames[:count])


@dataclass(frozen=True, eq=False)
class ChosenFrames:
    """What a source gave.

    Attributes:
        calibration: frames to calibrate with.
        held_out: others, to evaluate on.
        overlapping: some frames serve for both: there were too few, or the other source has the same ones.
        warnings: what else should be known, in sentences.
        annotated: names of all frames that could have been held out; among all, where annotations limit them, those
            that have some.
    """

    calibration: Frames
    held_out: Frames
    overlapping: bool = False
    warnings: tuple[str, ...] = ()
    annotated: tuple[str, ...] = ()


@contextlib.contextmanager
def chosen_frames(
    settings: CalibrationSettings,
    *,
    annotated: Container[str] | None = None,
    only_annotated: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Generator[ChosenFrames, None, None]:
    """Choose frames; they can be read until the block ends. The same seed chooses the same frames.

    Args:
        settings: which and how many. Of a source that is calibrated with too, at most a third is held out; held-out
            frames are always random ones.
        annotated: names of the frames that may be evaluated on; None allows all.
        only_annotated: calibrate with those only too, where the source has any.
        progress: called with how many frames were read, of how many.

    Raises:
        MediaError: nothing can be read, or a source does not know its length, as a camera.
    """
    is_apart = settings.validation is not None
    own = _opened(settings.images)
    other = own if settings.validation is None else _opened(settings.validation)
    order, held = _shuffled(own, settings.seed), _shuffled(other, settings.seed)
    if annotated is not None:
        held = [index for index in held if other.names[index] in annotated]
        if only_annotated:
            order = [index for index in order if own.names[index] in annotated] or order
    usable = tuple(other.names[index] for index in held)
    held = held[: settings.held_out if is_apart else min(settings.held_out, max(len(order) // 3, 1))]
    pool = [index for index in order if is_apart or index not in held] or order
    chosen, unread = pool[: settings.frames], 0
    if settings.select == "diverse":
        chosen, unread = _most_diverse(own, pool[: settings.frames * _POOL_FACTOR], settings.frames)
    with scratch_folder() as folder:
        calibration = _gathered(own, chosen, folder / "calibration", progress)
        evaluation = _gathered(other, held, folder / "held-out", progress)
        if not len(calibration):
            raise MediaError(
                f"{settings.images}: not one frame can be read; give images or a video that sfpp-run can open"
            )
        if not len(evaluation):
            lacking = "can be read" if annotated is None else "has annotations; the names of both must be the same"
            raise MediaError(f"{settings.validation or settings.images}: no frame to evaluate on {lacking}")
        same = calibration.shares_with(evaluation) if is_apart else not set(chosen).isdisjoint(held)
        lost = unread + len(chosen) + len(held) - len(calibration) - len(evaluation)
        warnings = _warnings(settings, own, other, found=len(calibration), lost=lost, same=same)
        yield ChosenFrames(calibration, evaluation, same, tuple(warnings), usable)


def _opened(source: str) -> FrameSource:
    opened = FrameSource(source)
    if not opened.names:
        opened.close()
        raise MediaError(
            f"{source} has no known number of frames; calibrate on a video file, a folder of images or a list"
        )
    return opened


def _shuffled(source: FrameSource, seed: int) -> list[int]:
    return [int(index) for index in np.random.default_rng(seed).permutation(len(source.names))]


def _gathered(
    source: FrameSource, indices: Collection[int], folder: Path, progress: Callable[[int, int], object]
) -> Frames:
    """Read frames once, for their hashes; those of a video are written down, since decoding it again takes too long."""
    folder.mkdir()
    gathered = []
    for done, frame in enumerate(source.take(indices), 1):
        file = frame.file
        if file is None:
            file = folder / f"{frame.index}.npy"
            np.save(file, frame.image_bgr)
        pixels = repr(frame.image_bgr.shape).encode() + frame.image_bgr.tobytes()
        gathered.append((file, frame.name, hashlib.sha256(pixels).digest()))
        progress(done, len(indices))
    return Frames(gathered)


def _warnings(
    settings: CalibrationSettings, own: FrameSource, other: FrameSource, *, found: int, lost: int, same: bool
) -> Iterator[str]:
    source, validation = settings.images, settings.validation
    yield from dict.fromkeys((*own.warnings, *other.warnings))
    if found < settings.frames:
        yield f"{source} gave {found} frames to calibrate with, {settings.frames} were asked for"
    if lost:
        yield f"{lost} of the frames cannot be read and were left out"
    if same and validation is None:
        yield f"{source} has so few frames that files are evaluated on those that they were calibrated with"
    if same and validation is not None:
        yield f"{validation} has frames that are calibrated with too; evaluate on others"
    # Labels cannot tell such frames apart, as where 1.png beside 1.jpg is a label image.
    if twice := sorted(each for each, count in Counter(other.names).items() if count > 1):
        yield (
            f"{validation or source} has several frames called {twice[0]} ({len(twice)} such names): labels belong to "
            "all frames of a name; keep label images in a folder of their own"
        )


def _most_diverse(source: FrameSource, pool: Collection[int], wanted: int) -> tuple[list[int], int]:
    """Choose the frames that look least alike: one after the other the one farthest from all chosen before it.

    Gonzalez's rule for k centers (Theoretical Computer Science 38, 1985), on thumbnails.

    Returns:
        The frames by number, and how many of the pool cannot be read.
    """
    numbers, thumbnails = [], []
    for frame in source.take(pool):
        numbers.append(frame.index)
        thumbnails.append(_thumbnail(frame.image_bgr))
    if not numbers:
        return [], len(pool)
    points = np.stack(thumbnails)
    distance = np.linalg.norm(points - points.mean(axis=0), axis=1)
    chosen = [int(distance.argmin())]  # the most ordinary one first
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(wanted, len(points)):
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        distance[chosen] = -1  # also where several frames are the same picture
        chosen.append(int(distance.argmax()))
    return [numbers[position] for position in chosen], len(pool) - len(numbers)


def _thumbnail(image_bgr: Image) -> NDArray[np.float32]:
    cv2 = import_cv2(purpose="comparing frames")
    small = cv2.resize(image_bgr, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).ravel()
