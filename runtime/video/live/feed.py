"""A live source that may be lost and come back: its frames go on as if nothing had happened, and events tell of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

from sfpp.runtime.errors import MediaError, SfppError
from sfpp.runtime.video.events import Event, EventHandler, EventKind
from sfpp.runtime.video.frames import Decoded, Source, SourceKind
from sfpp.runtime.video.live.connection import Connection, Link, start_reader
from sfpp.runtime.video.live.handover import Clip, Ended, Handover, Opened, Picture
from sfpp.runtime.video.live.outages import Outages

# The first picture of a connection may have to wait for a key frame, or for a camera's exposure: so many timeouts.
_FIRST_PICTURE = 3
# A driver's call that takes longer than this will not return, and there is no way to end it from here.
_STUCK_S = 60.0
# How long closing waits for the device to be released, so that it can be opened again at once.
_CLOSING_S = 1.0


def open_live(link: Link, *, kind: SourceKind, on_event: EventHandler, paths: tuple[Path, ...] = ()) -> Source:
    """Connect and return the source; a plain file behind a URL becomes a source of kind ``video``, which is not live.

    Closing the source, from any thread, ends whatever it is waiting for. ``paths`` are the files that are read, if any.

    Raises:
        MediaError: the first connection failed, and the link does not say to wait.
        MissingDependencyError: a library is missing.
    """
    warnings: list[str] = []
    feed = Feed(link, on_event=on_event, warnings=warnings)
    clip = None if link.wait else feed.connect()
    return Source(
        feed.frames(),
        kind=kind if clip is None else "video",
        name=link.name,
        frames_per_second=None if clip is None else clip.frames_per_second,
        count=None if clip is None else clip.count,
        paths=paths,
        warnings=warnings,
        live=clip is None,
        interrupt=feed.close,
        on_event=on_event,
    )


class Feed:
    """The frames of a link, over as many connections as it takes. There is one connection and one thread at a time."""

    def __init__(self, link: Link, *, on_event: EventHandler, warnings: list[str]) -> None:
        self._link = link
        self._on_event = on_event
        self._warnings = warnings
        self._handover = Handover()
        self._outages = Outages(self._tell, tries=link.tries, now_s=time.monotonic())
        self._lock = threading.Lock()
        self._made: Connection | None = None  # in the caller's thread, and nobody reads it yet
        self._thread: threading.Thread | None = None
        self._opened: Opened | None = None
        self._patience_s: float | None = None
        self._numbering = _Numbering(link.name)

    def connect(self) -> Clip | None:
        """Make the first connection; return what it found out if that is a plain file.

        Raises:
            MediaError: it failed.
        """
        try:
            if self._link.connects_in_caller:
                self._made = self._link.connect()
                self._note_opened(self._made.opened)
            else:
                self._start(self._link.connect)
                self._take_opened()
        except BaseException:
            self.close()
            raise
        return self._opened.clip if self._opened else None

    def frames(self) -> Generator[Decoded, None, None]:
        """Yield the frames of one connection after the other, until the source is closed, given up or at its end.

        Raises:
            MediaError: there never was a first frame.
        """
        try:
            # Without a name for what it ended with, whose error would keep the closed connection in memory.
            while self._goes_on((yield from self._frames_of_connection())):
                pass
        finally:
            self.close()

    def close(self) -> None:
        """End everything. If a library's call holds the thread that reads, that ends by itself, when the call does."""
        self._handover.close()
        made = self._take_made()
        if made is not None:
            made.close()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSING_S)

    def _start(self, connect: Callable[[], Connection]) -> None:
        self._handover.welcome()
        self._patience_s = self._link.connecting_s
        self._thread = start_reader(connect, self._handover, name=self._link.name)

    def _take_made(self) -> Connection | None:
        with self._lock:
            made, self._made = self._made, None
            return made

    def _take_opened(self) -> None:
        message = self._handover.take(self._link.connecting_s)
        if isinstance(message, Ended):
            raise message.error or MediaError(f"{self._link.address}: {message.reason}")
        if not isinstance(message, Opened):
            raise MediaError(self._link.unanswered or f"{self._link.address} does not answer")
        self._note_opened(message)
        if message.clip is None:
            # Until somebody takes frames, what has come only gets older; a model may have to be built first.
            self._handover.keep_newest()

    def _note_opened(self, opened: Opened) -> None:
        if self._opened is None:
            self._tell("opened", f"{self._link.address}, {opened.detail}")
        self._opened = opened
        self._patience_s = _FIRST_PICTURE * self._link.timeout_s

    def _frames_of_connection(self) -> Generator[Decoded, None, Ended | None]:
        """Yield what comes over one connection, and return why it ended; None if there is nothing more to be done."""
        if self._thread is None:
            made = self._take_made()
            self._start(self._link.connect if made is None else lambda: made)
        while True:
            message = self._handover.take(self._patience_s)
            if isinstance(message, Picture):
                self._patience_s = self._link.timeout_s
                self._outages.picture_came(message.arrived_s)
                yield self._numbering.decoded(message, clip=self._opened.clip if self._opened else None)
            elif isinstance(message, Opened):
                self._note_opened(message)
            elif isinstance(message, Ended):
                self._thread = None
                return message
            else:
                return None if self._handover.closed else self._silence()
            del message  # or the frame would stay in memory while the next one is awaited

    def _silence(self) -> Ended | None:
        """Nothing came for too long: end the connection, and wait until it is released."""
        silent = Ended(f"no picture for {self._patience_s:g} s")
        self._handover.dismiss()
        self._outages.begin(silent.reason)
        if isinstance(self._handover.take(_STUCK_S), Ended):
            self._thread = None
            return silent
        if not self._handover.closed:
            self._give_up(f"{silent.reason}, and the driver does not return")
        return None

    def _goes_on(self, ended: Ended | None) -> bool:
        """Whether to connect again, after the pause that is due.

        Raises:
            BaseException: what is no loss but a bug, or a source that never had a picture.
        """
        if ended is None:
            return False
        if ended.error is not None and not isinstance(ended.error, SfppError):
            raise ended.error
        finite = self._opened is not None and self._opened.finite
        if not self._numbering.count and (finite or not self._link.wait):
            raise MediaError(self._never_came(ended.reason))
        if finite:
            self._note_end_of_file(ended)
            return False
        self._outages.begin(ended.reason)
        pause = self._outages.next_pause_s()
        if pause is None:
            self._give_up(ended.reason)
            return False
        return self._handover.pause(pause)

    def _never_came(self, reason: str) -> str:
        hint = "check that it plays elsewhere, or give it more time with ?timeout=10"
        if self._opened is not None and self._opened.clip is not None:
            hint = "an .mp4 with its index at the end (one without +faststart) needs a server that sends parts of files"
        return f"{self._link.address} was opened, but no picture came: {reason}; {hint}"

    def _note_end_of_file(self, ended: Ended) -> None:
        if ended.error is None:
            return
        clip = self._opened.clip if self._opened is not None else None
        of = f" of {clip.count}" if clip is not None and clip.count else ""
        self._warnings.append(
            f"{self._link.name} breaks off after {self._numbering.count}{of} frames: {ended.reason}; kept what came"
        )

    def _give_up(self, reason: str) -> None:
        why = self._outages.give_up(reason)
        self._warnings.append(f"{self._link.name} delivers no more frames after {self._numbering.count}: {why}")

    def _tell(self, kind: EventKind, detail: str) -> None:
        self._on_event(Event(kind, self._link.name, detail))


class _Numbering:
    """Counts the pictures over all connections."""

    def __init__(self, name: str) -> None:
        self.count = 0
        self._name = name
        self._first_s: float | None = None

    def decoded(self, picture: Picture, *, clip: Clip | None) -> Decoded:
        """Give a picture its name and its time: that of its coming, or in a plain file its own."""
        time_s = picture.arrived_s
        if clip is not None:
            time_s = float(self.count / clip.frames_per_second) if picture.stamp_s is None else picture.stamp_s
        self._first_s = time_s if self._first_s is None else self._first_s
        self.count += 1
        name = f"{self._name}-{self.count - 1:06d}"
        return Decoded(picture.image_bgr, time_s - self._first_s, name, picture.arrived_s)
