"""A live source that may be lost and come back: its frames go on as if nothing had happened, and events report it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from sfpp.runtime.errors import MediaError, SfppError
from sfpp.runtime.events import Event, EventHandler, EventKind
from sfpp.runtime.video.frame import Decoded, Picture, Source, SourceKind
from sfpp.runtime.video.mailbox import Mailbox, wait_until
from sfpp.runtime.video.sources.address import Options

# The first picture of a connection may have to wait for a key frame, or for a camera's exposure: so many timeouts.
_FIRST_PICTURE = 3
# A driver's call that takes longer than this will not return, and there is no way to end it from here.
_STUCK_S = 60.0
# How long closing waits for the device to be released, so that it can be opened again at once.
_CLOSING_S = 1.0
RECONNECT_OPTIONS = ("timeout", "reconnect", "wait")
TIMEOUT_S = 5.0
_MOST_TRIES = 1_000_000
_LATE_S = 1.0
_JUMP_S = 10.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
_JITTER = 0.2
Tell = Callable[[EventKind, str], object]


def open_live(
    link: Link,
    *,
    kind: SourceKind,
    on_event: EventHandler,
    options: Options | None = None,
    paths: tuple[Path, ...] = (),
) -> Source:
    """Connect and return the source; a plain file behind a URL becomes a source of kind ``video``, which is not live.

    Closing the source, from any thread, ends whatever it is waiting for. ``options`` are those of the URI, which may
    say more about timeouts and tries, and ``paths`` the files that are read, if any.

    Raises:
        UsageError: an option cannot be meant.
        MediaError: the first connection failed, and the link does not say to wait.
        MissingDependencyError: a library is missing.
    """
    if options is not None:
        link = replace(
            link,
            timeout_s=options.seconds("timeout", link.timeout_s),
            tries=options.integer("reconnect", None, least=0, most=_MOST_TRIES),
            wait=options.flag("wait", default=False),
        )
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
        self._outages = Outages(self._tell, tries=link.tries, now_s=time.monotonic())
        self._changed = threading.Condition()
        self._closed = False
        self._made: Connection | None = None  # in the caller's thread, and nobody reads it yet
        # Of the present connection. Whoever reads it waits for room, so that nothing piles up.
        self._thread: threading.Thread | None = None
        self._box: Mailbox[Message] = Mailbox(changed=self._changed)
        self._opened: Opened | None = None
        self._patience_s: float | None = None
        self._count = 0  # pictures, over all connections
        self._first_s = 0.0

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
        with self._changed:
            self._closed = True
            self._box.close()
        made = self._take_made()
        if made is not None:
            made.close()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSING_S)

    def _start(self, connect: Callable[[], Connection]) -> None:
        self._patience_s = self._link.connecting_s
        with self._changed:
            self._box = Mailbox(changed=self._changed)
            if self._closed:
                self._box.close()
        # A daemon: a driver that never comes back must not keep the program from ending.
        self._thread = threading.Thread(
            target=_read, args=(connect, self._box, self._changed), name=f"sfpp-live-{self._link.name}", daemon=True
        )
        self._thread.start()

    def _take_made(self) -> Connection | None:
        with self._changed:
            made, self._made = self._made, None
            return made

    def _take_opened(self) -> None:
        message = self._box.take(self._link.connecting_s)
        if isinstance(message, Ended):
            raise message.error or MediaError(f"{self._link.address}: {message.reason}")
        if not isinstance(message, Opened):
            raise MediaError(self._link.unanswered or f"{self._link.address} does not answer")
        self._note_opened(message)
        # Until somebody takes frames, what has come only gets older; a model may have to be built first.
        self._box.newest = message.clip is None

    def _note_opened(self, opened: Opened) -> None:
        if self._opened is None:
            self._tell("opened", f"{self._link.address}, {opened.detail}")
        self._opened = opened
        self._patience_s = _FIRST_PICTURE * self._link.timeout_s + self._link.interval_s

    def _frames_of_connection(self) -> Generator[Decoded, None, Ended | None]:
        """Yield what comes over one connection, and return why it ended; None if there is nothing more to be done."""
        if self._thread is None:
            made = self._take_made()
            self._start(self._link.connect if made is None else lambda: made)
        self._box.newest = False
        while True:
            message = self._box.take(self._patience_s)
            if isinstance(message, Picture):
                self._patience_s = self._link.timeout_s + self._link.interval_s
                self._outages.picture_came(message.arrived_s)
                yield self._decoded(message)
            elif isinstance(message, Opened):
                self._note_opened(message)
            elif isinstance(message, Ended):
                self._thread = None
                return message
            else:
                return None if self._closed else self._silence()
            del message  # or the frame would stay in memory while the next one is awaited

    def _decoded(self, picture: Picture) -> Decoded:
        """Give a picture its time: that of its coming, or in a plain file its own."""
        time_s = picture.arrived_s
        if self._opened is not None and self._opened.clip is not None:
            by_rate_s = float(self._count / self._opened.clip.frames_per_second)
            time_s = by_rate_s if picture.stamp_s is None else picture.stamp_s
        self._first_s = self._first_s if self._count else time_s
        self._count += 1
        return Decoded(picture.image_bgr, time_s - self._first_s, taken_s=picture.arrived_s, note=picture.note)

    def _silence(self) -> Ended | None:
        """Nothing came for too long: end the connection, and wait until it is released."""
        thread, silent = self._thread, Ended(f"no picture for {self._patience_s:g} s")
        assert thread is not None
        self._box.close()
        self._outages.begin(silent.reason)
        with self._changed:
            wait_until(self._changed, lambda: self._closed or not thread.is_alive(), _STUCK_S)
        if not thread.is_alive():
            self._thread = None
            return silent
        if not self._closed:
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
        if not self._count and (finite or not self._link.wait):
            raise MediaError(self._never_came(ended.reason))
        if finite:
            self._note_end_of_file(ended)
            return False
        self._outages.begin(ended.reason)
        pause = self._outages.next_pause_s()
        if pause is None:
            self._give_up(ended.reason)
            return False
        with self._changed:
            return not wait_until(self._changed, lambda: self._closed, pause)

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
            f"{self._link.name} breaks off after {self._count}{of} frames: {ended.reason}; kept what came"
        )

    def _give_up(self, reason: str) -> None:
        why = self._outages.give_up(reason)
        self._warnings.append(f"{self._link.name} delivers no more frames after {self._count}: {why}")

    def _tell(self, kind: EventKind, detail: str) -> None:
        self._on_event(Event(kind, self._link.name, detail))


class Connection(Protocol):
    """What is open, used by one thread.

    Attributes:
        opened: what it is.
        paced: pictures may come faster than their stamps say, and have to wait.
    """

    opened: Opened
    paced: bool

    def pictures(self) -> Iterator[Picture | None]:
        """Yield pictures until the end, and None now and then where something came that makes no picture yet.

        Raises:
            MediaError: it broke; the text is a reason, such as "connection reset by peer".
        """

    def close(self) -> None:
        """Release it."""


@dataclass(frozen=True)
class Link:
    """How a live source is connected, and how often that is tried.

    Attributes:
        name: the source's name.
        address: what is shown to people, without credentials.
        connect: opens it; MediaError if that fails.
        timeout_s: it counts as lost when no picture comes for so long.
        interval_s: longer than that, where a picture is only asked for after such a time.
        tries: to connect again, before it is given up; None for ever.
        wait: whether the first connection may fail too.
        connecting_s: how long connecting may take, where the library sets no limit itself.
        unanswered: the error if it takes longer.
        connects_in_caller: the first connection is made by the thread that opens the source. macOS asks people whether
            a program may use the camera only in the main thread.
    """

    name: str
    address: str
    connect: Callable[[], Connection] = field(repr=False)
    timeout_s: float = TIMEOUT_S
    interval_s: float = 0.0
    tries: int | None = None
    wait: bool = False
    connecting_s: float | None = None
    unanswered: str = ""
    connects_in_caller: bool = False


def _read(connect: Callable[[], Connection], box: Mailbox[Message], changed: threading.Condition) -> None:
    """Connect, put :class:`Opened`, pictures, and at last :class:`Ended`, when everything is released.

    It ends when the connection does, or the mailbox is closed. ``changed`` is the mailbox's.
    """
    try:
        connection = connect()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised again where frames are taken
        box.put(Ended(str(error), error))
        return
    box.put(_delivered(connection, box, changed))


def _delivered(connection: Connection, box: Mailbox[Message], changed: threading.Condition) -> Ended:
    """Deliver all pictures, close the connection, and return why it ended."""
    pace = StampPace(slack_s=_LATE_S, jump_s=_JUMP_S) if connection.paced else None
    try:
        box.put(connection.opened)
        for picture in connection.pictures():
            if picture is not None:
                if pace is not None and picture.stamp_s is not None:
                    with changed:
                        wait_until(changed, lambda: box.closed, pace.delay_s(picture.stamp_s))
                box.put(picture._replace(arrived_s=time.monotonic()))
            del picture  # or it would stay in memory while the next one is awaited
            if box.closed:
                return Ended("it was closed")
    except SfppError as error:
        return Ended(str(error), error)
    except BaseException as error:  # noqa: BLE001 - as above
        return Ended(f"{type(error).__name__}", error)
    finally:
        connection.close()
    return Ended("it ended")


@dataclass(frozen=True)
class Clip:
    """A plain file behind a URL: frames a second, and how many frames if it says so."""

    frames_per_second: Fraction
    count: int | None


@dataclass(frozen=True)
class Opened:
    """A connection stands.

    Attributes:
        detail: what to, for people: ``640x360 h264``.
        finite: its end is an end, and no loss.
        clip: it is a plain file, whose pictures wait to be taken and have their own times.
    """

    detail: str
    finite: bool = False
    clip: Clip | None = None


@dataclass(frozen=True)
class Ended:
    """A connection is closed, or could not be made; ``error`` is None where the source simply ended."""

    reason: str
    error: BaseException | None = field(default=None, repr=False)


Message = Picture | Opened | Ended


def pause_s(tries: int) -> float:
    """Return how long to wait after so many tries in vain: 0.5 s, doubled with each, at most 15 s.

    It varies by a fifth, so that many sources do not return to a server all at once.
    """
    pause = min(_FIRST_PAUSE_S * 2.0 ** min(tries, 30), _LONGEST_PAUSE_S)
    return pause * random.uniform(1 - _JITTER, 1 + _JITTER)


class Outages:
    """Tells of each outage once: when it begins, and when it ends one way or the other.

    Args:
        tell: takes the kind of an event and its detail.
        tries: how many connections may fail in a row; None for any number.
        now_s: the time, on the clock of all other times here.
    """

    def __init__(self, tell: Tell, *, tries: int | None, now_s: float) -> None:
        self._tell = tell
        self._most_tries = tries
        self._tries = 0
        self._lost = False
        self._last_s = now_s

    def picture_came(self, now_s: float) -> None:
        """Note a picture; it ends an outage."""
        if self._lost:
            self._tell("back", f"after {now_s - self._last_s:.1f} s, at try {self._tries}")
        self._lost, self._tries, self._last_s = False, 0, now_s

    def begin(self, reason: str) -> None:
        """Note that no picture comes any more; within an outage that is nothing new."""
        if not self._lost:
            again = "" if self._most_tries == 0 else "; connecting again"
            self._tell("lost", f"{reason}{again}")
        self._lost = True

    def next_pause_s(self) -> float | None:
        """Return how long to wait before the next try, and count it; None if there shall be no more."""
        if self._most_tries is not None and self._tries >= self._most_tries:
            return None
        self._tries += 1
        return pause_s(self._tries - 1)

    def give_up(self, reason: str) -> str:
        """Tell that it is over; return why, for a warning."""
        tried = f"gave up after {self._tries} {'try' if self._tries == 1 else 'tries'}: " if self._tries else ""
        self._tell("gave-up", f"{tried}{reason}")
        return f"{tried}{reason}"


class StampPace:
    """When each picture is due. One that is late moves all that follow, as with a camera: nothing is caught up.

    Args:
        slack_s: how late a picture may be before that happens.
        jump_s: a picture that would have to wait longer belongs to a stream that has begun anew, and is due at once.
        clock: seconds from any origin.
    """

    def __init__(
        self, *, slack_s: float, jump_s: float = float("inf"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slack_s = slack_s
        self._jump_s = jump_s
        self._clock = clock
        self._origin_s: float | None = None

    def delay_s(self, stamp_s: float) -> float:
        """Return how long the picture with that stamp has to wait, in seconds."""
        now_s = self._clock()
        delay_s = 0.0 if self._origin_s is None else self._origin_s + stamp_s - now_s
        if self._origin_s is None or not -self._slack_s <= delay_s <= self._jump_s:
            self._origin_s = now_s - stamp_s
            return 0.0
        return max(0.0, delay_s)
