"""A frame, and the stream of frames that every kind of input becomes."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError
from sfpp.runtime.events import Event, EventHandler, ignore

if TYPE_CHECKING:
    from sfpp.runtime.model import Step
    from sfpp.runtime.motion.options import Motion

SourceKind = Literal["picture", "folder", "video", "camera", "stream"]


class Picture(NamedTuple):
    """A picture as it came.

    ``image_bgr`` is (H, W, 3) uint8 BGR; ``stamp_s`` is the time that the stream gives it, if any; ``arrived_s`` is
    when it came, on the clock ``time.monotonic``; ``note`` is what there is to say of the pictures from here on.
    """

    image_bgr: NDArray[np.uint8]
    stamp_s: float | None = None
    arrived_s: float = 0.0
    note: str | None = None


@dataclass
class Origin:
    """The file that frames are read from, for what else of it goes into a video of them.

    Attributes:
        path: the file.
        begin_s: the time of the first frame by the file's own clock; None before it is read, and where no one clock
            goes through.
        ended: all its frames were read.
    """

    path: Path
    begin_s: float | None = None
    ended: bool = False


class Decoded(NamedTuple):
    """What a decoder yields: the picture, (H, W, 3) uint8 BGR; its time from the start; a name for files made of it.

    Without a name it gets the source's and its number. ``taken_s`` is when it came, on the clock ``time.monotonic``;
    None if it came only when it was asked for. ``note`` is what there is to say of the pictures from here on.
    """

    image_bgr: NDArray[np.uint8]
    time_s: float
    name: str | None = None
    taken_s: float | None = None
    note: str | None = None


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    ``image_bgr`` is (H, W, 3) uint8 in BGR order, upright. ``index`` counts the source's frames from 0, ``time_s`` is
    the time since the first of them. ``name`` is unique within the source and fit for a file name (without suffix).
    ``taken_s`` is when the frame came, on the clock ``time.monotonic``, and ``source`` the source's name.
    """

    index: int
    image_bgr: NDArray[np.uint8]
    time_s: float
    name: str
    taken_s: float = 0.0
    source: str = ""


class Source(contextlib.AbstractContextManager["Source"]):
    """A stream of frames, iterated once; a context manager that releases files and cameras.

    Args:
        decoded: the decoder; nothing is decoded before the first frame is asked for.
        kind: what the stream is made of, for choosing how to write the results.
        name: what files made from the whole source are called; it may be changed before frames are taken, to tell
            sources of one name apart, and a single picture's frame has it too.
        frames_per_second: None for a camera, whose frames come when they come.
        count: the number of frames if it can be told beforehand (for a video, what its header promises).
        paths: the files that are read, so that nothing overwrites them.
        frame_names: of pictures; None numbers the frames behind ``name``.
        warnings: filled by the decoder while it runs: what could not be read. One line each, for people.
        live: frames come by the clock, whether anybody takes them or not, as from a camera or a stream.
        origin: of a video file, where its sound is found.
        interrupt: called when the source is closed, before the decoder is: lets go a decoder that waits for a frame, in
            whatever thread it is running.
        release: lets go what the decoder reads from, where it ends, fails or is closed, begun or not; more than once
            does no harm.
        on_event: told when the size changes in mid-stream, and of what the decoder notes, by the thread that iterates;
            the pictures of a folder may differ without being told of.
    """

    def __init__(
        self,
        decoded: Generator[Decoded, None, None],
        *,
        kind: SourceKind,
        name: str,
        frames_per_second: Fraction | None,
        count: int | None = None,
        paths: tuple[Path, ...] = (),
        frame_names: Sequence[str] | None = None,
        warnings: list[str] | None = None,
        live: bool = False,
        origin: Origin | None = None,
        interrupt: Callable[[], object] = lambda: None,
        release: Callable[[], object] = lambda: None,
        on_event: EventHandler = ignore,
    ) -> None:
        self.kind: SourceKind = kind
        self.name = name
        self.frames_per_second = frames_per_second
        self.count = count
        self.paths = paths
        self.warnings: list[str] = [] if warnings is None else warnings
        self.live = live
        self.origin = origin
        self.on_event = on_event
        self.missing = False  # it only stands for one that could not be opened
        self._stem = name
        self._frame_names = None if frame_names is None else tuple(frame_names)
        self._decoded = decoded
        self._interrupt = interrupt
        self._release = release
        self._closed = False
        self._first: Frame | None = None
        self._decoded_count = 0
        self._newest_hw: tuple[int, int] | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the first frame in pixels, upright; it is decoded for this and yielded later.

        Raises:
            MediaError: there is not a single frame.
        """
        if self._first is None:
            self._first = self._first_frame()
        height, width = self._first.image_bgr.shape[:2]
        return height, width

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; MediaError if there is not a single one."""
        frame: Frame | None = self._first or self._first_frame()
        while frame is not None:
            yield frame
            frame = self._next()

    @property
    def frame_names(self) -> tuple[str, ...] | None:
        """The frames' names where they are known beforehand, as pictures' are."""
        return (self.name,) if self.kind == "picture" else self._frame_names

    def numbers(self, name: str) -> bool:
        """Whether a name, upper and lower case alike, is that of a frame which is called by its number."""
        head, _, number = name.casefold().rpartition("-")
        return self.frame_names is None and head == self._stem.casefold() and number.isdecimal()

    def close(self) -> None:
        """Release the file or the camera; a live source also lets go a thread that waits for its next frame."""
        self._closed = True
        self._interrupt()
        # A thread that is stuck in the decoder still holds it, after an interrupt that did not wait for it.
        if inspect.getgeneratorstate(self._decoded) != inspect.GEN_RUNNING:
            # It may have begun to run since.
            with contextlib.suppress(ValueError):
                self._decoded.close()
                self._release()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _first_frame(self) -> Frame:
        frame = self._next()
        if frame is None and self._closed:
            raise MediaError(f"{self.name} was closed before its first frame came")
        if frame is None and self._decoded_count:
            raise MediaError(f"{self.name} was read to its end already, and is read once; open it again")
        if frame is None:
            reasons = f" ({'; '.join(self.warnings)})" if self.warnings else ""
            raise MediaError(f"{self.name} holds no frame that can be decoded{reasons}; give another file or folder")
        return frame

    def _next(self) -> Frame | None:
        decoded = None
        try:
            decoded = next(self._decoded, None)
        finally:
            if decoded is None:
                self._release()
        if decoded is None:
            return None
        image_bgr, time_s, name, came_s, note = decoded
        index, self._decoded_count = self._decoded_count, self._decoded_count + 1
        name = self.name if self.kind == "picture" else name or f"{self._stem}-{index:06d}"
        self._notice_size(image_bgr)
        if note is not None:
            self.on_event(Event("note", self.name, note))
        taken_s = time.monotonic() if came_s is None else came_s
        return Frame(index, image_bgr, time_s, name, taken_s=taken_s, source=self.name)

    def _notice_size(self, image_bgr: NDArray[np.uint8]) -> None:
        height, width = image_bgr.shape[:2]
        before, self._newest_hw = self._newest_hw, (height, width)
        if before is not None and before != self._newest_hw and self.kind != "folder":
            detail = f"from {before[1]}x{before[0]} to {width}x{height} (width x height)"
            self.on_event(Event("size-changed", self.name, detail))


@runtime_checkable
class FitsSources(Protocol):
    """What wants to know a source before its frames come, such as boxes that were found beforehand in its pictures."""

    def fit(self, source: Source) -> None:
        """Find out what belongs to which frame.

        Raises:
            UsageError: nothing fits.
        """


@runtime_checkable
class Follows(Protocol):
    """A model whose answers can be carried to later frames, so that each is shown at once."""

    @property
    def takes_one(self) -> bool:
        """Whether the network takes a single frame as it is, and does not compute a batch for it."""

    def following_steps(
        self, motion: Motion, ask: Callable[[Frame], Future[Any]], give_up: Callable[[str], object] | None
    ) -> Sequence[Step]:
        """Return the steps of one run.

        Args:
            motion: at least how far apart the frames are that the network sees, and how steady results are.
            ask: hands a frame to the model's steps but the last, in another thread; the future has what
                they made.
            give_up: told why, if carrying costs too much here; frames then wait for the network. None never gives up.

        Raises:
            UsageError: this model's answers cannot be carried.
        """
