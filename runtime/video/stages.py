"""Stages in threads of their own: order kept, little room between them, errors raised in the caller.

A frame passes decoding, the model and drawing one after the other, but different frames can be in different stages at
once: OpenCV, NumPy, PyAV and the inference libraries release Python's lock while they work. The caller's own thread is
the last stage. What must not be interrupted half-way, or must not be touched once the run is over, belongs there.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sfpp.runtime.errors import UsageError
from sfpp.runtime.video.mailbox import Mailbox

# The item in the mailbox, and the one that its maker holds until there is room: two frames between neighbours, each of
# 25 MB at 3840x2160. More would only add memory and age; it makes nothing faster once the slowest stage never waits.
_ROOM = 1
# How long Ctrl-C waits for stages within a library's call before it leaves them behind.
_PATIENCE_S = 2.0


@dataclass(frozen=True)
class Stage:
    """A step that every item takes, in a thread called after it; ``work`` makes the next stage's item from its own."""

    name: str
    work: Callable[[Any], Any]

    def then(self, work: Callable[[Any], Any]) -> Stage:
        """Return the stage with more work after its own, in the same thread: for what is too little for another one."""
        return Stage(self.name, lambda item: work(self.work(item)))


@contextlib.contextmanager
def run_stages(
    source: Iterable[Any], stages: Sequence[Stage], *, source_name: str = "source", room: int = _ROOM
) -> Iterator[Iterator[Any]]:
    """Run every item of ``source`` through the stages, one thread a stage and one for the source.

    Within the block the finished items are iterated, in the order of the source. Leaving it, in whatever way, stops the
    threads and waits for them; items on their way are dropped. Only after a KeyboardInterrupt is a stage that does not
    come back within two seconds left to itself: it ends with its present item, which goes nowhere.

    An error in the source or a stage is raised by the iterator in the place of its item, after all earlier items, with
    the traceback of where it happened. With n stages at most ``(n + 1) * (room + 1)`` items are on their way, so the
    source is never read further ahead than that.

    Args:
        source: iterated in a thread of its own, and not touched any more after the block.
        stages: in order; each sees one item at a time, always in the same thread.
        source_name: of the source's thread.
        room: how many items may wait between two neighbours.

    Raises:
        UsageError: no room.
    """
    if room < 1:
        raise UsageError(f"room is {room}, expected at least 1 item between two stages")
    line = _Line(source, stages, source_name=source_name, room=room)
    patience_s = None
    try:
        line.start()
        yield line.results()
    except KeyboardInterrupt:
        # The first Ctrl-C is a request and does not come here; who asks again does not want to wait for a stuck camera.
        patience_s = _PATIENCE_S
        raise
    finally:
        line.end(patience_s=patience_s)


@dataclass(frozen=True)
class _End:
    """Follows the last item: nothing more comes, because of ``error`` if there is one."""

    error: BaseException | None = None


class _Line:
    """The threads of one run and the mailboxes between them."""

    def __init__(self, source: Iterable[Any], stages: Sequence[Stage], *, source_name: str, room: int) -> None:
        self._boxes: list[Mailbox[Any]] = [Mailbox(room) for _ in range(len(stages) + 1)]
        ends = zip(stages, self._boxes, self._boxes[1:], strict=False)
        # Daemons, for the one case in which a thread is left behind: it must not keep the program from ending.
        self._threads = [
            threading.Thread(target=_feed, args=(source, self._boxes[0]), name=f"sfpp-{source_name}", daemon=True),
            *(threading.Thread(target=_serve, args=each, name=f"sfpp-{each[0].name}", daemon=True) for each in ends),
        ]

    def start(self) -> None:
        """Start all threads."""
        for thread in self._threads:
            thread.start()

    def results(self) -> Iterator[Any]:
        """Yield what comes out at the end of the line; raise what went wrong in it."""
        while True:
            item = self._boxes[-1].take(default=_End())
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
            del item  # or a frame more would stay in memory while the next one is awaited

    def end(self, *, patience_s: float | None) -> None:
        """Close all mailboxes and wait for the threads, each of which ends after its present item."""
        for box in self._boxes:
            box.close()
        deadline_s = None if patience_s is None else time.monotonic() + patience_s
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))


def _feed(source: Iterable[Any], made: Mailbox[Any]) -> None:
    try:
        for item in source:
            if not made.put(item):
                return
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised again in the caller's thread
        made.put(_End(error))
    else:
        made.put(_End())


def _serve(stage: Stage, given: Mailbox[Any], made: Mailbox[Any]) -> None:
    while _pass_one(stage, given, made):
        pass
    given.close()  # the stages before learn of an end by having nobody to give to


def _pass_one(stage: Stage, given: Mailbox[Any], made: Mailbox[Any]) -> bool:
    """Do one item's work and tell whether to go on; a function, so that nothing holds the item while it waits."""
    item = given.take(default=_End())
    if isinstance(item, _End):
        made.put(item)
        return False
    try:
        result = stage.work(item)
    except BaseException as error:  # noqa: BLE001 - as above
        made.put(_End(error))
        return False
    del item
    return made.put(result)
