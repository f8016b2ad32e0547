"""How much the viewer does, for whom, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from sfpp.runtime.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Bounds of the viewer's work.

    Attributes:
        frames_per_second: pictures that a page gets, at most; each view setting is drawn so often at most.
        width: of pictures in pixels where a page does not ask for another one with ``?width=``.
        largest_width: the most that a page can ask for.
        jpeg_quality: of the pictures, 1..100.
        clients: pages that may look at once.
        connections: open connections, those of pages and of whoever asks for something else.
        heartbeat_s: a page that does not answer for so long and half of it again has vanished.
        idle_s: a connection that asks for nothing is closed after so many seconds.
        fresh_s: the pipeline is healthy as long as its last frame is not older.
        held: frames that are kept for pages that have paused; the page that paused first loses its own.

    Raises:
        UsageError: a bound that is not positive, or a JPEG quality above 100.
    """

    frames_per_second: float = 30.0
    width: int = 1280
    largest_width: int = 3840
    jpeg_quality: int = 80
    clients: int = 64
    connections: int = 192
    heartbeat_s: float = 10.0
    idle_s: float = 20.0
    fresh_s: float = 10.0
    held: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise UsageError(f"{name} is {value}, expected more than 0")
        if self.jpeg_quality > 100:
            raise UsageError(f"jpeg_quality is {self.jpeg_quality}, expected 1 to 100")
