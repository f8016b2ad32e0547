"""Stages in threads of their own: order kept, little room between them, errors raised in the caller.

A frame passes decoding, the model and drawing one after the other, but different frames can be in different stages at
once: OpenCV, NumPy, PyAV and the inference libraries release Python's lock while they work. The caller's own thread is
the last stage. What must not be interrupted half-way, or must not be touched once the run is over, belongs there.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sfpp.runtime.video.mailbox import Mailbox

# The item in the mailbox, and the one that its maker holds until there is room: two frames between neighbours, each of
# 25 MB at 3840x2160. More would only add memory and age; it makes nothing faster once the slowest stage never waits.
_ROOM = 1
# How long Ctrl-C waits for stages within a library's call before it leaves them behind.
_PATIENCE_S = 2.0


@dataclass(frozen=True)
class Stage:
    """A step that every item takes, in a thread called after it; ``work`` makes the next stage's item from its own.

    ``rest`` makes one more when all have come, or None. For ``room`` items the stage before need not wait.
    """

    name: str
    work: Callable[[Any], Any]
    rest: Callable[[], Any] = lambda: None
    room: int = _ROOM


@contextlib.contextmanager
def run_stages(
    source: Iterable[Any], stages: Sequence[Stage], *, source_name: str = "source"
) -> Iterator[Iterator[Any]]:
    """Run every item of ``source`` through the stages, one thread a stage and one for the source.

    Within the block the finished items are iterated, in the order of the source. Leaving it, in whatever way, stops the
    threads and waits for them; items on their way are dropped. Only after a KeyboardInterrupt is a stage that does not
    come back within two seconds left to itself: it ends with its present item, which goes nowhere.

    An error in the source or a stage is raised by the iterator in the place of its item, after all earlier items, with
    the traceback of where it happened. With n stages of room 1 at most ``2 * (n + 1)`` items are on their way, so the
    source is never read further ahead than that.

    Args:
        source: iterated in a thread of its own, and not touched any more after the block.
        stages: in order; each sees one item at a time, always in the same thread.
        source_name: of the source's thread.
    """
    boxes: list[Mailbox[Any]] = [Mailbox(room) for room in (*(stage.room for stage in stages), _ROOM)]
    between = zip(stages, boxes, boxes[1:], strict=False)
    # Daemons, for the one case in which a thread is left behind: it must not keep the program from ending.
    threads = [
        threading.Thread(target=_feed, args=(source, boxes[0]), name=f"sfpp-{source_name}", daemon=True),
        *(threading.Thread(target=_serve, args=each, name=f"sfpp-{each[0].name}", daemon=True) for each in between),
    ]
    patience_s = None
    try:
        for thread in threads:
            thread.start()
        yield _results(boxes[-1])
    except KeyboardInterrupt:
        # The first Ctrl-C is a request and does not come here; who asks again does not want to wait for a stuck camera.
        patience_s = _PATIENCE_S
        raise
    finally:
        for box in boxes:
            box.close()
        _join(threads, patience_s=patience_s)


class Background:
    """A thread that does one thing after the other while others go on; a context manager that ends it.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        # A daemon, as all stages.
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def submit(self, task: Callable[[], Any]) -> Future[Any]:
        """Do it after all that was given before; return what will hold its result or its error."""
        future: Future[Any] = Future()
        self._tasks.put((future, task))
        return future

    def close(self, *, patience_s: float = _PATIENCE_S) -> None:
        """Begin nothing more, and wait for the present task; longer than the patience it is left to itself."""
        with contextlib.suppress(queue.Empty):
            while (waiting := self._tasks.get_nowait()) is not None:
                waiting[0].cancel()
        self._tasks.put(None)
        self._thread.join(patience_s)

    def _serve(self) -> None:
        while (given := self._tasks.get()) is not None:
            future, task = given
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
                    future.set_exception(error)
            del given, future, task  # or a frame would stay in memory while the next one is awaited


@dataclass(frozen=True)
class _End:
    """Follows the last item: nothing more comes, because of ``error`` if there is one, or as ``left`` in the middle."""

    error: BaseException | None = None
    left: bool = False


def _results(box: Mailbox[Any]) -> Iterator[Any]:
    """Yield what comes out at the end of the line; raise what went wrong in it."""
    while True:
        item = box.take(default=_End())
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return
        yield item
        del item  # or a frame more would stay in memory while the next one is awaited


def _join(threads: Sequence[threading.Thread], *, patience_s: float | None) -> None:
    """Wait for the threads, each of which ends after its present item."""
    deadline_s = None if patience_s is None else time.monotonic() + patience_s
    for thread in threads:
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
    item = given.take(default=_End(left=True))
    ended = isinstance(item, _End)
    try:
        if not ended:
            result = stage.work(item)
        elif item.error is None and not item.left and (result := stage.rest()) is not None:
            made.put(result)
    except BaseException as error:  # noqa: BLE001 - as above
        made.put(_End(error))
        return False
    if ended:
        made.put(item)
        return False
    del item
    return made.put(result)
