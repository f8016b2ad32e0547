"""Which frames of which source come next: live ones never wait, a stuck source stops nobody, files lose none."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from sfpp.runtime.errors import MediaError, SfppError
from sfpp.runtime.events import Event, EventHandler
from sfpp.runtime.timing import StageTimer
from sfpp.runtime.video.frame import Frame, Source
from sfpp.runtime.video.mailbox import DropReporter, Mailbox, Policy, wait_until


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
        self._reading = tuple(
            _Reading(source, each, Mailbox(newest=source in newest, changed=self._changed))
            for source, each in zip(sources, frames, strict=True)
        )
        self._turn = 0
        self._stopped = False

    @property
    def replaced(self) -> dict[str, int]:
        """How many frames were replaced by newer ones, by the source's name."""
        return {each.source.name: each.box.replaced for each in self._reading}

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
        for each in self._reading:
            # A daemon: a camera that is stuck within its driver must not keep the program from ending.
            each.thread = threading.Thread(
                target=self._read, args=(each,), name=f"sfpp-read-{each.source.name}", daemon=True
            )
            each.thread.start()
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
        for each in self._reading:
            each.box.close()
            if each.thread is not None and each.thread.ident is not None:
                each.thread.join(max(0.0, deadline_s - time.monotonic()))

    def _read(self, reading: _Reading) -> None:
        drops = DropReporter(reading.source.name, self._on_event, _dropped_words)
        try:
            for frame in reading.frames:
                if not reading.box.put(frame):
                    return
                del frame  # or it would stay in memory while the next one is awaited
                drops.report(reading.box.replaced)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised again where frames are taken
            reading.error = error
        finally:
            drops.report(reading.box.replaced, always=True)
            with self._changed:
                reading.ended = True
                self._changed.notify_all()

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
            in_turn = self._reading[self._turn :] + self._reading[: self._turn]
            ready = [each for each in in_turn if each.box.waiting][:batch]
            if ready:
                self._turn = self._reading.index(ready[-1]) + 1
            return tuple(each.box.take() for each in ready)

    def _has_frame(self) -> bool:
        return any(each.box.waiting for each in self._reading)

    def _all_ended(self) -> bool:
        """Whether no frame can come any more; report sources that have ended, and raise if all that are left failed."""
        for each in self._reading:
            if not each.ended or each.box.waiting or each.reported:
                continue
            each.reported = True
            failed = each.error
            if failed is not None and (not isinstance(failed, SfppError) or all(one.error for one in self._reading)):
                raise failed
            detail = str(failed) if failed is not None else "; ".join(each.source.warnings) or "no more frames"
            self._on_event(Event("gave-up" if failed else "ended", each.source.name, detail))
        return all(each.ended for each in self._reading)


@dataclass(eq=False)
class _Reading:
    """A source that a thread reads, with room for one frame, and how it ended."""

    source: Source
    frames: Iterator[Frame]
    box: Mailbox[Frame]
    thread: threading.Thread | None = None
    error: BaseException | None = None
    ended: bool = False
    reported: bool = False


def policy_for(source: Source, given: Policy | None) -> Policy:
    """Return what becomes of a source's frames for which there is no time: files lose none, unless told to."""
    if given is None or given == "follow":
        return "freshest" if source.live else "every-frame"
    return given


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
