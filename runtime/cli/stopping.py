"""How a command ends that is told to: by Ctrl-C, SIGTERM or SIGHUP, once or again, amid anything.

The first signal raises :class:`Stopped` in the main thread, so that on the way out all is cleaned up that was begun;
while frames run it is a request instead, since an exception may strike between two halves of a step (a packet encoded
and not yet written). Later ones change nothing, or they would tear what is being completed. The third, and a library
that does not return, end the process at once; its temporary files are removed then, too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from sfpp.runtime.scratch import discard_all
from sfpp.runtime.video.mailbox import POLL_S

SIGNALED = 128  # and the signal's number: the exit code, as shells report it
_PATIENCE_S = 10.0
_ENOUGH = 3
_ONE_S = 1.0  # signals within it count as one: a key that is held, or one that another process hands on
_AGAIN_S = 0.05


class Stopped(KeyboardInterrupt):
    """A signal told the command to end; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class StopRequest:
    """Whether somebody asked to stop, and by which signal; calling it answers yes or no."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._closing = False

    def __call__(self) -> bool:
        """Whether a signal came."""
        return self.signal_number is not None

    def handle(self, signal_number: int) -> None:
        """Note the first signal; a second one does not wait for the frame's end and raises Stopped, once."""
        impatient = self.signal_number is not None and not self._closing
        self.signal_number = self.signal_number or signal_number
        if impatient:
            self._closing = True
            raise Stopped(self.signal_number)

    @contextlib.contextmanager
    def stops(self, stop: Callable[[], object]) -> Iterator[None]:
        """Within the block a signal calls ``stop``; after it signals change nothing: files must be completed untorn.

        Another thread calls it, even while no frame comes that could be asked after, and never amid a step of this one.
        Where the block does not end then, within ten seconds, since a library does not return, the signal comes again.
        """
        done = threading.Event()

        def listen() -> None:
            while not self():
                if done.wait(POLL_S):
                    return
            stop()
            if not done.wait(_PATIENCE_S) and self.signal_number is not None:
                _send_to_main_thread(self.signal_number)

        thread = threading.Thread(target=listen, name="sfpp-signals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closing = True
            done.set()
            thread.join()


class Signals:
    """What a command hears while it works.

    Attributes:
        first: number of the first signal that came, or None.
    """

    def __init__(self, command: str) -> None:
        self.first: int | None = None
        self._command = command
        self._request: StopRequest | None = None
        self._raised = False

    def handle(self, number: int, at: FrameType | None) -> None:
        """Take a signal, in the main thread."""
        self.first = self.first or number
        if self._request is not None:
            self._request.handle(number)
        elif not self._raised:
            self._raised = True
            raise Stopped(number)

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Take an error that comes out of the block after a signal's for that: libraries make other ones of it.

        One that is being imported says that it cannot be loaded.
        """
        try:
            yield
        except Exception as error:
            if self.first is not None and self._raised:
                raise Stopped(self.first) from error
            raise

    @contextlib.contextmanager
    def requested(self) -> Iterator[StopRequest]:
        """Within the block only a second signal raises anything; after it none does, if one came."""
        self._request = request = StopRequest()
        try:
            yield request
        finally:
            self._raised = self._raised or request()
            self._request = None

    def watch(self, received: socket.socket) -> None:
        """End the process when signals come that the main thread does not hear, or that do not want to wait for it."""
        numbers: list[int] = []
        last_s = -_ONE_S
        while True:
            received.settimeout(_PATIENCE_S if numbers and self.first is None else None)
            try:
                came = received.recv(64)
            except TimeoutError:
                came = b""
                if self.first is None:
                    self._end(numbers[0], "a library did not return")
                continue
            except OSError:
                return
            if not came:
                return
            now_s = time.monotonic()
            stops = [number for number in came if number in signals_that_stop()]
            if stops and now_s - last_s >= _ONE_S:
                numbers.append(stops[0])
                last_s = now_s
            if len(numbers) >= _ENOUGH:
                self._end(numbers[0], "by the third signal")

    def was_lost(self, number: int) -> None:
        """Raise again what was raised where Python lets nothing through, such as amid the end of an object."""
        self._raised = False
        threading.Timer(_AGAIN_S, _send_to_main_thread, [number]).start()

    def _end(self, number: int, why: str) -> None:
        discard_all()
        os.write(2, f"{self._command}: stopped at once, {why}\n".encode())
        os._exit(SIGNALED + number)


_current: Signals | None = None


def ends_without_threads(code: int) -> None:
    """Let the process end with this exit code even where a thread is still within a library.

    Python's own end takes the ground from under it, and the library ends the process by SIGABRT.
    """

    def end() -> None:
        if _busy():
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(code)

    if _busy():
        atexit.register(end)


def _busy() -> bool:
    return any(thread.daemon and thread.name.startswith("sfpp-") for thread in threading.enumerate())


@contextlib.contextmanager
def listening(command: str) -> Iterator[Signals]:
    """Within the block a command hears signals as this module says.

    Outside the main thread, which alone may handle signals, and within another such block nothing changes.

    Args:
        command: begins what is said when the process ends at once.
    """
    global _current  # signals are the process's
    signals = Signals(command)
    if threading.current_thread() is not threading.main_thread() or _current is not None:
        yield signals
        return
    _current = signals
    try:
        with _watched(signals), _handled(signals), _unlost(signals):
            yield signals
    finally:
        _current = None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block SIGINT, SIGTERM and SIGHUP (a terminal is closed) set the request instead of ending the command.

    Where no command listens, the request is never set.
    """
    if _current is None or threading.current_thread() is not threading.main_thread():
        yield StopRequest()
        return
    with _current.requested() as request:
        yield request


def signals_that_stop() -> list[signal.Signals]:
    """Return the signals that a command ends by."""
    stops = [signal.SIGINT, signal.SIGTERM]
    # Not on Windows, and what nohup starts is meant to go on.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        stops.append(signal.SIGHUP)
    return stops


def _send_to_main_thread(number: int) -> None:
    """Send a signal from another thread, so that it ends also what the main thread waits in."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


@contextlib.contextmanager
def _handled(signals: Signals) -> Iterator[None]:
    previous = {number: signal.signal(number, signals.handle) for number in signals_that_stop()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _watched(signals: Signals) -> Iterator[None]:
    """Let another thread know of signals too: it hears them also while the main thread is within a library."""
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    thread = threading.Thread(target=signals.watch, args=(receiving,), name="sfpp-watch", daemon=True)
    with receiving, sending:
        before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            sending.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextlib.contextmanager
def _unlost(signals: Signals) -> Iterator[None]:
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, Stopped):
            signals.was_lost(lost.exc_value.number)
        else:
            before(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
