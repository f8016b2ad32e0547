"""Sources read in threads of their own, so that a live one never waits and a stuck one stops nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from sfpp.runtime.errors import MediaError, SfppError
from sfpp.runtime.events import Event, EventHandler
from sfpp.runtime.video.frame import Frame, Source

_HEARING_S = 0.1
_TELL_EVERY_S = 1.0


class Reader:
    """A source and the thread that reads it, with room for one frame.

    Args:
        source: read until its end, or until :meth:`stop`; it is closed by whoever opened it.
        keep: ``newest`` replaces a frame that nobody has taken, which is counted and told of once a second; ``every``
            waits for it to be taken.
        changed: notified of each frame and of the end; shared with other readers.
        on_event: told of frames that were dropped.
    """

    def __init__(self, source: Source, *, newest: bool, changed: threading.Condition, on_event: EventHandler) -> None:
        self.source = source
        self.dropped = 0
        self.error: BaseException | None = None
        self.ended = False
        self._newest = newest
        self._changed = changed
        self._on_event = on_event
        self._slot: Frame | None = None
        self._stopped = False
        self._untold = 0
        self._told_s = time.monotonic()
        # A daemon: a camera that is stuck within its driver must not keep the program from ending.
        self._thread = threading.Thread(target=self._read, name=f"sfpp-read-{source.name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    @property
    def has_frame(self) -> bool:
        """Whether a frame can be taken; to be asked with the lock of ``changed``."""
        return self._slot is not None

    def take(self) -> Frame:
        """Return the frame that waits; to be called with the lock of ``changed``."""
        frame, self._slot = self._slot, None
        assert frame is not None
        self._changed.notify_all()
        return frame

    def stop(self, *, timeout_s: float) -> None:
        """End the thread, or leave it behind if its source does not come back in time."""
        with self._changed:
            self._stopped = True
            self._slot = None
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _read(self) -> None:
        try:
            for frame in self.source:
                if not self._put(frame):
                    return
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised again where frames are taken
            self.error = error
        finally:
            self._tell_dropped(always=True)
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    def _put(self, frame: Frame) -> bool:
        """Put a frame into the slot; False when nobody wants any more."""
        with self._changed:
            while self._slot is not None and not self._newest and not self._stopped:
                self._changed.wait(_HEARING_S)
            if self._stopped:
                return False
            if self._slot is not None:
                self.dropped += 1
                self._untold += 1
            self._slot = frame
            self._changed.notify_all()
        self._tell_dropped()
        return True

    def _tell_dropped(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if self._untold and (always or now - self._told_s >= _TELL_EVERY_S):
            seconds = now - self._told_s
            detail = f"{self._untold} frames in {seconds:.1f} s came while the model was busy"
            self._on_event(Event("dropped", self.source.name, detail, count=self._untold))
            self._untold = 0
        if now - self._told_s >= _TELL_EVERY_S:
            self._told_s = now


class Readers:
    """Several sources read at once, and their frames taken in turn.

    Args:
        sources: at least one.
        newest: those of which a frame that nobody has taken is replaced by a newer one.
        on_event: told what happens to the sources.
    """

    def __init__(self, sources: Sequence[Source], *, newest: Collection[Source], on_event: EventHandler) -> None:
        self._changed = threading.Condition()
        self._on_event = on_event
        self.all = tuple(
            Reader(source, newest=source in newest, changed=self._changed, on_event=on_event) for source in sources
        )
        self._turn = 0
        self._stopped = False
        self._told: set[int] = set()

    def frames(self, *, batch: int = 1, wait: Callable[[], bool] = lambda: True) -> Iterator[tuple[Frame, ...]]:
        """Yield frames until all sources have ended: one, or as many as are there at once, each of another source.

        Args:
            batch: at most so many at a time.
            wait: asked before each; returns when frames should be taken, False to end.

        Raises:
            SfppError: all sources have failed. As long as one has not, a failure is an event.
        """
        for reader in self.all:
            reader.start()
        while wait():
            taken = self._taken(batch)
            if not taken:
                return
            yield taken
            del taken  # or these frames would stay in memory while the next ones are awaited

    def halt(self) -> None:
        """Give no more frames, and let go of whoever waits for one."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def stop(self, *, timeout_s: float) -> None:
        """End all threads; ones that are stuck are left behind."""
        self.halt()
        deadline_s = time.monotonic() + timeout_s
        for reader in self.all:
            reader.stop(timeout_s=max(0.0, deadline_s - time.monotonic()))

    def _taken(self, batch: int) -> tuple[Frame, ...]:
        """Wait for frames and return them; none when all sources have ended."""
        with self._changed:
            while not self._stopped:
                ready = [reader for reader in self._in_turn() if reader.has_frame][:batch]
                if ready:
                    self._turn = self.all.index(ready[-1]) + 1
                    return tuple(reader.take() for reader in ready)
                self._tell_ended()
                if all(reader.ended for reader in self.all):
                    return ()
                # Python hears signals between waits only.
                self._changed.wait(_HEARING_S)
        return ()

    def _in_turn(self) -> tuple[Reader, ...]:
        turn = self._turn % len(self.all)
        return self.all[turn:] + self.all[:turn]

    def _tell_ended(self) -> None:
        """Tell of the sources that have ended; raise if not one is left that did not fail."""
        for index, reader in enumerate(self.all):
            if not reader.ended or index in self._told:
                continue
            self._told.add(index)
            failed = reader.error
            if failed is not None and (not isinstance(failed, SfppError) or all(each.error for each in self.all)):
                raise failed
            detail = str(failed) if failed is not None else "; ".join(reader.source.warnings) or "no more frames"
            self._on_event(Event("gave-up" if failed else "ended", reader.source.name, detail))


def check_names(sources: Sequence[Source]) -> None:
    """Refuse sources that could not be told apart.

    Raises:
        MediaError: two have one name.
    """
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise MediaError(f"two sources are called {name!r}; give each source once, or files of different names")
