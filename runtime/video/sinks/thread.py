"""A sink in a thread of its own, so that a slow or a broken one does not hold up what makes the pictures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import SfppError, UsageError
from sfpp.runtime.events import Event, EventHandler, ignore
from sfpp.runtime.video.frame import Frame

if TYPE_CHECKING:
    from sfpp.runtime.video.sinks.opening import Sink

Policy = Literal["freshest", "every-frame"]
AnySink = TypeVar("AnySink", bound="Sink")

_TELL_EVERY_S = 1.0
_FRESHEST_TIMEOUT_S = 10.0
_HEARING_S = 0.1  # Python hears a signal between waits only


class SinkThread(Generic[AnySink]):
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
        on_event: told, in whichever thread, of dropped pictures and of a sink that failed or is stuck.
        close_timeout_s: how long the end of the block waits for the sink; None: 10 s for ``freshest``, and for
            ``every-frame`` as long as it takes to complete the file.
        clock: seconds from any origin.

    Attributes:
        dropped: how many pictures were replaced by fresher ones.
    """

    def __init__(
        self,
        opening: AbstractContextManager[AnySink],
        *,
        name: str,
        policy: Policy = "freshest",
        on_event: EventHandler = ignore,
        close_timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.dropped = 0
        self._opening = opening
        self._freshest = policy == "freshest"
        self._close_timeout_s = _FRESHEST_TIMEOUT_S if close_timeout_s is None and self._freshest else close_timeout_s
        self._on_event = on_event
        self._clock = clock
        self._told_s = -_TELL_EVERY_S
        self._untold = 0
        self._changed = threading.Condition()
        self._waiting: dict[str, Callable[[AnySink], object]] = {}  # by source, in the order of coming
        self._closing = False
        self._given: BaseException | None = None  # what ended the caller's block
        self._error: BaseException | None = None
        self._raised = False
        self._sink: AnySink | None = None
        self._thread: threading.Thread | None = None

    @property
    def path(self) -> Path | None:
        """What the sink writes."""
        return None if self._sink is None else self._sink.path

    def __enter__(self) -> SinkThread[AnySink]:
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
        self._given = error
        try:
            self.close(self._close_timeout_s)
        except Exception:
            if error is None:
                raise  # else the caller's own error is the one to be told of

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Hand over a picture; it must not be changed afterwards.

        Raises:
            UsageError: it is closed.
            SfppError: under ``every-frame``, what an earlier write raised in the sink.
        """
        self.submit(lambda sink: sink.write(frame, image), source=frame.source)

    def submit(self, work: Callable[[AnySink], object], *, source: str = "") -> None:
        """Hand over something else to be done with the sink, in the place of a picture; raises as :meth:`write`.

        For sinks that take more than pictures: ``thread.submit(lambda lines: lines.write_record(record))``. Several
        sources that share a sink do not replace each other's.
        """
        with self._changed:
            if not self._freshest:
                while source in self._waiting and self._error is None and not self._closing:
                    self._changed.wait(_HEARING_S)
                if self._error is not None:
                    self._raised = True
                    raise self._error
            if self._closing or self._thread is None:
                raise UsageError(f"the sink {self.name} is closed; write within its block")
            if self._error is not None:
                return
            if source in self._waiting:
                self.dropped += 1
                self._untold += 1
            self._waiting[source] = work
            self._changed.notify_all()
        self._tell_dropped()

    def close(self, timeout_s: float | None = None) -> bool:
        """Let the sink write what waits, close it, and wait for that.

        Args:
            timeout_s: how long to wait at most; None as long as it takes. A sink that is stuck then is left behind: its
                thread ends, and closes it, should it ever come back.

        Returns:
            Whether the sink is closed.

        Raises:
            SfppError: under ``every-frame``, what the sink raised, unless a write has raised it already.
        """
        with self._changed:
            first = not self._closing
            self._closing = True
            if self._given is not None:
                self._waiting.clear()
            self._changed.notify_all()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        closed = not self._thread.is_alive()
        if first:
            self._tell_dropped(always=True)
            if not closed:
                self._on_event(Event("sink-failed", self.name, f"does not end within {timeout_s:g} s; left behind"))
        if self._error is not None and not self._freshest and not self._raised:
            self._raised = True
            raise self._error
        return closed

    def _serve(self) -> None:
        assert self._sink is not None
        error: BaseException | None = None
        try:
            while self._do_next(self._sink):
                pass
        except BaseException as raised:  # noqa: BLE001 - whatever it is, it is told of or raised again
            error = raised
        error = self._close_sink(error)
        with self._changed:
            self._error = error
            self._waiting.clear()
            self._changed.notify_all()
        if error is not None and self._freshest:
            words = str(error) if isinstance(error, SfppError) else f"{type(error).__name__}: {error}"
            self._on_event(Event("sink-failed", self.name, words))

    def _do_next(self, sink: AnySink) -> bool:
        """Wait for work and do it; False at the end. A function, so that nothing holds a picture while it waits."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if not self._waiting:
                return False
            work = self._waiting.pop(next(iter(self._waiting)))
            self._changed.notify_all()
        work(sink)
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

    def _tell_dropped(self, *, always: bool = False) -> None:
        with self._changed:
            now_s = self._clock()
            count = self._untold
            if not count or not (always or now_s - self._told_s >= _TELL_EVERY_S):
                return
            self._untold, self._told_s = 0, now_s
        pictures = "1 picture was" if count == 1 else f"{count} pictures were"
        self._on_event(Event("dropped", self.name, f"{pictures} replaced by fresher ones", count=count))
