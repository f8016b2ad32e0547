"""An open camera or stream, the thread that reads it, and how it is connected."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from sfpp.runtime.errors import SfppError
from sfpp.runtime.video.live.address import Options
from sfpp.runtime.video.live.handover import Ended, Handover, Opened, Picture
from sfpp.runtime.video.live.pace import Pace

RECONNECT_OPTIONS = ("timeout", "reconnect", "wait")
TIMEOUT_S = 5.0
_MOST_TRIES = 1_000_000
_LATE_S = 1.0
_JUMP_S = 10.0


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
    tries: int | None = None
    wait: bool = False
    connecting_s: float | None = None
    unanswered: str = ""
    connects_in_caller: bool = False


def with_options(link: Link, options: Options) -> Link:
    """Return the link with what the URI's options say about timeouts and tries.

    Raises:
        UsageError: they cannot be meant.
    """
    return replace(
        link,
        timeout_s=options.seconds("timeout", link.timeout_s),
        tries=options.integer("reconnect", None, least=0, most=_MOST_TRIES),
        wait=options.flag("wait", default=False),
    )


def start_reader(connect: Callable[[], Connection], handover: Handover, *, name: str) -> threading.Thread:
    """Connect and read in a thread of its own, which ends when the connection does or the handover is closed.

    It puts :class:`Opened`, pictures, and at last :class:`Ended`, when everything is released.
    """
    # A daemon: a driver that never comes back must not keep the program from ending.
    thread = threading.Thread(target=_read, args=(connect, handover), name=f"sfpp-live-{name}", daemon=True)
    thread.start()
    return thread


def _read(connect: Callable[[], Connection], handover: Handover) -> None:
    try:
        connection = connect()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised again where frames are taken
        handover.put(Ended(str(error), error))
        return
    handover.put(_delivered(connection, handover))


def _delivered(connection: Connection, handover: Handover) -> Ended:
    """Deliver all pictures, close the connection, and return why it ended."""
    pace = Pace(slack_s=_LATE_S, jump_s=_JUMP_S) if connection.paced else None
    try:
        handover.put(connection.opened)
        for picture in connection.pictures():
            if picture is None:
                wanted = handover.wanted
            else:
                if pace is not None and picture.stamp_s is not None:
                    handover.pause(pace.delay_s(picture.stamp_s))
                wanted = handover.put(picture._replace(arrived_s=time.monotonic()))
            del picture  # or it would stay in memory while the next one is awaited
            if not wanted:
                return Ended("it was closed")
    except SfppError as error:
        return Ended(str(error), error)
    except BaseException as error:  # noqa: BLE001 - as above
        return Ended(f"{type(error).__name__}", error)
    finally:
        connection.close()
    return Ended("it ended")
