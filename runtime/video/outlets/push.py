"""Live video to a media server or a player elsewhere: RTSP, RTMP, SRT, or MPEG-TS over UDP."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.images import bgr_from_frame
from sfpp.runtime.video.events import Event, EventHandler, ignore
from sfpp.runtime.video.frames import Frame
from sfpp.runtime.video.live.outages import pause_s
from sfpp.runtime.video.outlets.fitting import FirstSize
from sfpp.runtime.video.outlets.pusher_process import PusherProcess, PushJob
from sfpp.runtime.video.outlets.receivers import Receiver, check_protocol
from sfpp.runtime.video.pyav import picture_from_bgr

_CRF = 23
_PATIENCE_S = 8.0
_FAREWELL_S = 2.0
# A connection that held for so long was a good one: the next pauses are short again.
_STEADY_S = 10.0


@contextlib.contextmanager
def push_sink(
    uri: str,
    *,
    crf: int = _CRF,
    most_kilobits_s: int | None = None,
    pause_s: Callable[[int], float] = pause_s,
    patience_s: float = _PATIENCE_S,
    on_event: EventHandler = ignore,
) -> Iterator[Push]:
    """Send every picture as low-latency H.264, with a key frame each second.

    ``rtsp://`` and ``rtsps://`` publish (ANNOUNCE, RECORD) within one TCP connection, ``rtmp://`` and ``rtmps://`` send
    FLV, ``srt://`` and ``udp://`` an MPEG transport stream. The connection is made with the first picture, and again
    whenever it breaks, after pauses that grow; pictures meanwhile are left out, and are no errors. Only an event tells:
    ``opened``, ``lost``, ``back`` (with how many pictures were left out), or ``gave-up`` if it is no use to go on. Of
    UDP nobody can tell whether it arrives.

    User, password, key and query of the address are in no event and no error.

    Args:
        uri: the receiver's address.
        crf: quality of libx264; 6 more halve the bits.
        most_kilobits_s: limits the bits on average and in bursts; None: what the quality needs.
        pause_s: seconds before the next try, after so many in vain.
        patience_s: how long connecting, or sending one picture, may take.
        on_event: told what becomes of the connection, and of changes of size.

    Raises:
        UsageError: the address is not complete.
        MissingDependencyError: PyAV is not installed.
        MediaError: its FFmpeg knows no SRT.
    """
    receiver = Receiver.from_uri(uri)
    check_protocol(receiver)
    limit = {} if most_kilobits_s is None else {"maxrate": f"{most_kilobits_s}k", "bufsize": f"{most_kilobits_s}k"}
    push = Push(receiver, crf=crf, encoder_options=limit, pause_s=pause_s, patience_s=patience_s, on_event=on_event)
    try:
        yield push
    finally:
        push.close()


class Push:
    """Sends pictures as long as there is a receiver; use it through :func:`push_sink`."""

    path = None

    def __init__(
        self,
        receiver: Receiver,
        *,
        crf: int,
        encoder_options: dict[str, str],
        pause_s: Callable[[int], float],
        patience_s: float,
        on_event: EventHandler,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = receiver.name
        self.frames_sent = 0
        container, options = receiver.protocol.container, receiver.protocol.options
        self._job = PushJob(receiver.uri, container, options, encoder_options, crf, patience_s)
        self._pause_s = pause_s
        self._on_event = on_event
        self._clock = clock
        self._fitting = FirstSize(receiver.name, on_event)
        self._process: PusherProcess | None = None
        self._connected_s: float | None = None  # when, if it is connected
        self._tries = 0  # that failed, since the last good connection
        self._next_try_s = 0.0
        self._missed = 0  # pictures, since the last connection
        self._lost_reason: str | None = None
        self._ended = False

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Send ``image``, (H, W, 3) uint8 BGR, or leave it out while there is no connection.

        It waits for the encoder, and where the receiver is stuck, until patience is at an end.

        Raises:
            MediaError: not an image.
        """
        if self._ended:
            return
        fitted = self._fitting.fit(bgr_from_frame(image))
        if not self._ready():
            self._missed += 1
            return
        assert self._process is not None
        planes: Any = picture_from_bgr(fitted).to_ndarray()
        self._process.send(frame.time_s, planes)
        self.frames_sent += 1

    def close(self) -> None:
        """End the connection; nothing is sent any more."""
        self._ended = True
        self._drop_process()

    def _ready(self) -> bool:
        """Whether a picture can be sent now; connect, note what became of the connection, and tell of it."""
        if self._process is None:
            if self._clock() >= self._next_try_s:
                self._connect()
            return False
        if self._process.state == "failed":
            self._lose(self._process.reason, final=self._process.final)
            return False
        if self._process.state == "connected" and self._connected_s is None:
            self._greet()
        return self._connected_s is not None

    def _connect(self) -> None:
        height, width = self._fitting.size_hw
        try:
            self._process = PusherProcess(replace(self._job, size_hw=(height + height % 2, width + width % 2)))
        except OSError as error:  # no memory for another process, perhaps only now
            self._lose(f"the sending process cannot be started ({error.strerror})", final=False)

    def _greet(self) -> None:
        self._connected_s = self._clock()
        height, width = self._fitting.size_hw
        if self._lost_reason is None:
            self._on_event(Event("opened", self.name, f"sending {width}x{height} (width x height)"))
        else:
            detail = f"connected again; {self._missed} pictures were left out"
            self._on_event(Event("back", self.name, detail, count=self._missed))
        self._lost_reason, self._missed = None, 0

    def _lose(self, reason: str, *, final: bool) -> None:
        now_s = self._clock()
        if self._connected_s is not None and now_s - self._connected_s >= _STEADY_S:
            self._tries = 0
        self._drop_process()
        if final:
            self._ended = True
            self._on_event(Event("gave-up", self.name, reason))
            return
        self._next_try_s = now_s + self._pause_s(self._tries)
        self._tries += 1
        if reason != self._lost_reason:  # the same words at every try would tell nothing new
            self._on_event(Event("lost", self.name, f"{reason}; connecting again"))
        self._lost_reason = reason

    def _drop_process(self) -> None:
        self._connected_s = None
        process, self._process = self._process, None
        if process is not None:
            process.close(patience_s=_FAREWELL_S)
