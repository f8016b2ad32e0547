"""Ctrl-C as a wish rather than an exception, so that a run ends between two frames and its files are complete."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


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
    def heard_within(self) -> Iterator[None]:
        """After the block signals change nothing any more: files that are being completed must not be torn."""
        try:
            yield
        finally:
            self._closing = True


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block SIGINT and SIGTERM set the request instead of ending the program.

    An exception may strike between two halves of a step (a packet encoded and not yet written); a request cannot.
    Outside the main thread, which alone may handle signals, the request is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
