"""A sink in a thread of its own, so that a slow or a broken one does not hold up what makes the pictures."""

from __future__ import annotations

import functools
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import SfppError, UsageError
from sfpp.runtime.events import Event, EventHandler, ignore
from sfpp.runtime.video.frame import Frame
from sfpp.runtime.video.mailbox import DropReporter, Mailbox, Policy, wait_until

_FRESHEST_TIMEOUT_S = 10.0


class SinkThread:
    """A sink that is written to by a thread; itself a sink, and a context manager that opens and closes the other one.

    Between the caller and the thread there is room for one picture of each source. ``freshest`` replaces a picture that
    still waits by the new one, and never lets the caller wait or fail: dropped pictures are counted, and told of once a
    second; a sink that raises is closed, told of once, and ignored from then on. ``every-frame`` waits for room
    instead, and raises what the sink raised at the next write, or when it is closed.

    The sink is opened in the caller's thread, so what is wrong from the beginning is raised there under both policies;
    it is written to and closed in the other thread.

    Args:
        opening: opens the sink when it is entered, such as :func:`sfpp.runtime.video.open_sink` returns.
        name: of the sink, for events, without credentials.
        policy: what becomes of a picture that comes while another one waits.
        complete: drop nothing under ``freshest`` either, as of lines of which each counts: the caller then waits.
        on_event: told, in whichever thread, of dropped pictures and of a sink that failed or is stuck.
        close_timeout_s: how long the end of the block waits for the sink; None: 10 s for ``freshest``, and for
            ``every-frame`` as long as it takes to complete the file.
        clock: seconds from any origin.
    """

    def __init__(
        self,
        opening: AbstractContextManager[Any],
        *,
        name: str,
        policy: Policy = "freshest",
        complete: bool = False,
        on_event: EventHandler = ignore,
        close_timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._opening = opening
        self._freshest = policy == "freshest"
        self._drops_some = self._freshest and not complete
        self._close_timeout_s = _FRESHEST_TIMEOUT_S if close_timeout_s is None and self._freshest else close_timeout_s
        self._on_event = on_event
        self._drops = DropReporter(name, on_event, _replaced_words, clock=clock)
        self._changed = threading.Condition()
        # One for each source; the first in order is that of the source whose turn it is.
        self._boxes: dict[str, Mailbox[Callable[[Any], object]]] = defaultdict(
            # Without this object in it: a cycle would keep what was written with, such as encoders, until collected.
            functools.partial(Mailbox, newest=self._drops_some, changed=self._changed)
        )
        self._closing = False
        self._given: BaseException | None = None  # what ended the caller's block
        self._error: BaseException | None = None
        self._raised = False
        self._sink: Any = None  # what the opening gives
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """How many pictures were replaced by fresher ones."""
        with self._changed:
            return sum(box.replaced for box in self._boxes.values())

    def __enter__(self) -> SinkThread:
        """Open the sink and start the thread.

        Raises:
            SfppError: the sink cannot be opened.
        """
        self._sink = self._opening.__enter__()
        # A daemon: a sink that is stuck must not keep the program from ending.
        self._thread = threading.Thread(target=self._serve, name=f"sfpp-sink-{self.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let the sink write what waits, close it, and wait for that.

        A sink that is stuck then is left behind: its thread ends, and closes it, should it ever come back.

        Raises:
            SfppError: under ``every-frame``, what the sink raised, unless a write has raised it already, or the block
                ends with an error of its own.
        """
        assert self._thread is not None
        self._given = error
        with self._changed:
            self._closing = True
            for box in self._boxes.values():
                # Where every frame counts, those before an error or Ctrl-C are written still.
                box.close(discard=error is not None and self._drops_some)
            self._changed.notify_all()
        self._thread.join(self._close_timeout_s)
        self._drops.report(self.dropped, always=True)
        if self._thread.is_alive():
            detail = f"does not end within {self._close_timeout_s:g} s; left behind"
            self._on_event(Event("sink-failed", self.name, detail))
        if self._error is not None and not self._freshest and not self._raised and error is None:
            self._raised = True
            raise self._error

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Hand over a picture; it must not be changed afterwards.

        Raises:
            UsageError: it is closed.
            SfppError: under ``every-frame``, what an earlier write raised in the sink.
        """
        self.submit(lambda sink: sink.write(frame, image), source=frame.source)

    def submit(self, work: Callable[[Any], object], *, source: str = "") -> None:
        """Hand over something else to be done with the sink, in the place of a picture; raises as :meth:`write`.

        For sinks that take more than pictures: ``thread.submit(lambda lines: lines.write_record(record))``. Several
        sources that share a sink do not replace each other's.
        """
        with self._changed:
            if not self._boxes[source].put(work, unless=self._takes_nothing):
                self._refuse()
                return
        self._drops.report(self.dropped)

    def _takes_nothing(self) -> bool:
        return self._thread is None or self._closing or self._error is not None

    def _refuse(self) -> None:
        """Raise why nothing is taken; a sink that failed under ``freshest`` was reported, and is ignored."""
        if self._error is not None and not self._freshest:
            self._raised = True
            raise self._error
        if self._thread is None or self._closing:
            raise UsageError(f"the sink {self.name} is closed; write within its block")

    def _serve(self) -> None:
        error: BaseException | None = None
        try:
            while self._do_next():
                pass
        except BaseException as raised:  # noqa: BLE001 - whatever it is, it is told of or raised again
            error = raised
        error = self._close_sink(error)
        with self._changed:
            self._error = error
            for box in self._boxes.values():
                box.discard()
            self._changed.notify_all()
        if error is not None and self._freshest:
            words = str(error) if isinstance(error, SfppError) else f"{type(error).__name__}: {error}"
            self._on_event(Event("sink-failed", self.name, words))

    def _do_next(self) -> bool:
        """Wait for work and do it; False at the end. A function, so that nothing holds a picture while it waits."""
        with self._changed:
            wait_until(self._changed, lambda: self._closing or self._next_source() is not None)
            source = self._next_source()
            if source is None:
                return False
            box = self._boxes.pop(source)
            self._boxes[source] = box  # behind all others
            work = box.take()
        work(self._sink)
        return True

    def _close_sink(self, error: BaseException | None) -> BaseException | None:
        """Close the sink, which may do it differently after an error; return the error to be told of."""
        ending = error or self._given
        try:
            self._opening.__exit__(type(ending) if ending else None, ending, ending.__traceback__ if ending else None)
        except BaseException as raised:  # noqa: BLE001 - as above
            # Sinks explain errors of the operating system when they are closed.
            return error if raised is self._given else raised
        return error

    def _next_source(self) -> str | None:
        return next((source for source, box in self._boxes.items() if box.waiting), None)


def _replaced_words(count: int, seconds: float) -> str:
    pictures = "1 picture was" if count == 1 else f"{count} pictures were"
    return f"{pictures} replaced by fresher ones"
