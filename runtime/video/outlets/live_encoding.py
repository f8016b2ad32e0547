"""What H.264 needs to be live: no frame held back, times from the frames themselves, a key frame each second."""

from __future__ import annotations

from sfpp.runtime.video.encoder import MILLISECOND

# Of itself libx264 holds back some 20 frames, to look ahead and to fill its threads: two seconds at 10 frames a second,
# which a receiver would wait for and a crash would lose. And it sees a new scene in every flicker of a noisy camera,
# each a key frame beside those that are asked for.
LIVE_OPTIONS = {"tune": "zerolatency", "sc_threshold": "0"}
_KEY_INTERVAL_MS = 1000


class LiveStamps:
    """Time stamps in milliseconds that begin at 0 and rise with the frames' own times, and which frames are key frames.

    A key frame each second of time, rather than each so many frames: frames come at whatever rate the model makes them.
    """

    def __init__(self) -> None:
        self._start_s: float | None = None
        self._last_ms = -1
        self._key_ms = -_KEY_INTERVAL_MS

    def of(self, time_s: float) -> tuple[int, bool]:
        """Return the stamp of the frame at ``time_s`` seconds, and whether it is to be a key frame."""
        if self._start_s is None:
            self._start_s = time_s
        # Stamps must rise even if two frames arrive within a millisecond, or a source's clock is set back.
        stamp_ms = max(self._last_ms + 1, round((time_s - self._start_s) / MILLISECOND))
        self._last_ms = stamp_ms
        key = stamp_ms - self._key_ms >= _KEY_INTERVAL_MS
        if key:
            self._key_ms = stamp_ms
        return stamp_ms, key
