"""Ctrl-C as a request rather than an exception, so that a run ends between two frames and its files are complete."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from sfpp.runtime.video.mailbox import POLL_S


class StopRequest:
    """Whether somebody asked to stop, and by which signal; calling it answers yes or no."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._closing = False

    def __call__(self) -> bool:
        """Whether a signal came."""
        return self.signal_number is not None

    def handle(self, signal_number: int, at: FrameType | None) -> None:
        """Note the first signal; a second one does not wait for the frame's end and raises KeyboardInterrupt, once."""
        impatient = self.signal_number is not None and not self._closing
        self.signal_number = self.signal_number or signal_number
        if impatient:
            self._closing = True
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def stops(self, stop: Callable[[], object]) -> Iterator[None]:
        """Within the block a signal calls ``stop``; after it signals change nothing: files must be completed untorn.

        Another thread calls it, even while no frame comes that could be asked after, and never amid a step of this one.
        """
        done = threading.Event()

        def listen() -> None:
            while not done.wait(POLL_S):
                if self():
                    stop()
                    return

        thread = threading.Thread(target=listen, name="sfpp-signals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closing = True
            done.set()
            thread.join()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block SIGINT, SIGTERM and SIGHUP (a terminal is closed) set the request instead of ending the program.

    An exception may strike between two halves of a step (a packet encoded and not yet written); a request cannot.
    Outside the main thread, which alone may handle signals, the request is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request.handle) for number in _signals()}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    stops = [signal.SIGINT, signal.SIGTERM]
    # Not on Windows, and what nohup starts is meant to go on.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        stops.append(signal.SIGHUP)
    return stops
