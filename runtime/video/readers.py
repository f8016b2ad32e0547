"""Which frames of which source come next: live ones never wait, a stuck source stops nobody, files lose none."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from sfpp.runtime.errors import MediaError, SfppError
from sfpp.runtime.events import Event, EventHandler
from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.frame import Frame, Source
from sfpp.runtime.video.mailbox import DropReporter, Mailbox, Policy, wait_until


class Reader:
    """A source and the thread that reads it, with room for one frame.

    Args:
        source: read until its end, or until :meth:`stop`; it is closed by whoever opened it.
        frames: those of its frames that are wanted.
        newest: a frame that nobody has taken is replaced by a newer one, which is counted and reported once a second;
            else reading waits for it to be taken.
        changed: notified of each frame and of the end; shared with other readers.
        on_event: takes what is reported.
    """

    def __init__(
        self,
        source: Source,
        frames: Iterator[Frame],
        *,
        newest: bool,
        changed: threading.Condition,
        on_event: EventHandler,
    ) -> None:
        self.source = source
        self.error: BaseException | None = None
        self.ended = False
        self.box: Mailbox[Frame] = Mailbox(newest=newest, changed=changed)
        self._frames = frames
        self._changed = changed
        self._drops = DropReporter(source.name, on_event, _dropped_words)
        # A daemon: a camera that is stuck within its driver must not keep the program from ending.
        self._thread = threading.Thread(target=self._read, name=f"sfpp-read-{source.name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self, *, timeout_s: float) -> None:
        """End the thread, or leave it behind if its source does not come back in time."""
        self.box.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _read(self) -> None:
        try:
            for frame in self._frames:
                if not self.box.put(frame):
                    return
                del frame  # or it would stay in memory while the next one is awaited
                self._drops.report(self.box.replaced)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised again where frames are taken
            self.error = error
        finally:
            self._drops.report(self.box.replaced, always=True)
            with self._changed:
                self.ended = True
                self._changed.notify_all()


class Readers:
    """Several sources read at once, and their frames taken in turn.

    A single file needs no thread that reads it: whoever takes its frames decodes them.

    Args:
        sources: at least one.
        newest: those of which a frame that nobody has taken is replaced by a newer one.
        every: take only every Nth frame of each source, beginning with the first.
        most: of a single source read no frame beyond so many; None goes on to its end.
        timer: measures ``decode`` of what waits to be read; of a camera that would be the time until its next frame.
        on_event: told what happens to the sources.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        newest: Collection[Source] = (),
        every: int = 1,
        most: int | None = None,
        timer: StageTimer,
        on_event: EventHandler,
    ) -> None:
        self._changed = threading.Condition()
        self._on_event = on_event
        stop = None if most is None or len(sources) > 1 else (most - 1) * every + 1
        frames = [_chosen(source, every=every, stop=stop, timer=timer) for source in sources]
        self._direct = frames[0] if len(sources) == 1 and _is_file(sources[0]) and sources[0] not in newest else None
        self.all = tuple(
            Reader(source, each, newest=source in newest, changed=self._changed, on_event=on_event)
            for source, each in zip(sources, frames, strict=True)
        )
        self._turn = 0
        self._stopped = False
        self._reported: set[int] = set()

    def frames(self, *, batch: int = 1, wait: Callable[[], bool] = lambda: True) -> Iterator[tuple[Frame, ...]]:
        """Yield frames until all sources have ended: one, or as many as are there at once, each of another source.

        Args:
            batch: at most so many at a time.
            wait: asked before each; returns when frames should be taken, False to end.

        Raises:
            SfppError: all sources have failed. As long as one has not, a failure is an event.
        """
        if self._direct is not None:
            yield from self._without_thread(self._direct, wait)
            return
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

    def _without_thread(self, frames: Iterator[Frame], wait: Callable[[], bool]) -> Iterator[tuple[Frame, ...]]:
        while wait() and not self._stopped:
            frame = next(frames, None)
            if frame is None:
                return
            yield (frame,)
            del frame

    def _taken(self, batch: int) -> tuple[Frame, ...]:
        """Wait for frames and return them; none when all sources have ended."""
        with self._changed:
            wait_until(self._changed, lambda: self._stopped or self._has_frame() or self._all_ended())
            if self._stopped:
                return ()
            ready = [reader for reader in self._in_turn() if reader.box.waiting][:batch]
            if ready:
                self._turn = self.all.index(ready[-1]) + 1
            return tuple(reader.box.take() for reader in ready)

    def _has_frame(self) -> bool:
        return any(reader.box.waiting for reader in self.all)

    def _all_ended(self) -> bool:
        """Whether no frame can come any more; report sources that have ended, and raise if all that are left failed."""
        for index, reader in enumerate(self.all):
            if not reader.ended or reader.box.waiting or index in self._reported:
                continue
            self._reported.add(index)
            failed = reader.error
            if failed is not None and (not isinstance(failed, SfppError) or all(each.error for each in self.all)):
                raise failed
            detail = str(failed) if failed is not None else "; ".join(reader.source.warnings) or "no more frames"
            self._on_event(Event("gave-up" if failed else "ended", reader.source.name, detail))
        return all(reader.ended for reader in self.all)

    def _in_turn(self) -> tuple[Reader, ...]:
        turn = self._turn % len(self.all)
        return self.all[turn:] + self.all[:turn]


def policy_for(source: Source, given: Policy | None) -> Policy:
    """Return what becomes of a source's frames for which there is no time: by default, files lose none."""
    return given or ("freshest" if source.live else "every-frame")


def check_names(sources: Sequence[Source]) -> None:
    """Refuse sources that could not be told apart.

    Raises:
        MediaError: two have one name.
    """
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise MediaError(f"two sources are called {name!r}; give each source once, or files of different names")


def expected_frames(source: Source, *, every: int = 1, max_frames: int | None = None) -> int | None:
    """How many frames of a source will be taken, as far as it knows its own length."""
    count = None if source.count is None else -(-source.count // every)
    return min((number for number in (count, max_frames) if number is not None), default=None)


def _chosen(source: Source, *, every: int, stop: int | None, timer: StageTimer) -> Iterator[Frame]:
    frames = itertools.islice(source, 0, stop, every)
    while True:
        try:
            with contextlib.nullcontext() if source.live else timer.measure("decode"):
                frame = next(frames)
        except StopIteration:
            return
        yield frame
        del frame


def _is_file(source: Source) -> bool:
    """Whether frames come as soon as they are asked for, so that nobody needs to be let go who waits for one."""
    return not source.live and bool(source.paths) and all(path.is_file() for path in source.paths)


def _dropped_words(count: int, seconds: float) -> str:
    frames = "1 frame" if count == 1 else f"{count} frames"
    return f"{frames} in {seconds:.1f} s came while the model was busy"
