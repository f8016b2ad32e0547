"""Live video to a media server or a player elsewhere: RTSP, RTMP, SRT, or MPEG-TS over UDP."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.events import Event, EventHandler, ignore
from sfpp.runtime.files import python_module
from sfpp.runtime.images import bgr_from_frame
from sfpp.runtime.video.frame import Frame
from sfpp.runtime.video.pyav import import_av, picture_from_bgr
from sfpp.runtime.video.sinks.fitting import FirstSize
from sfpp.runtime.video.sources.address import without_credentials
from sfpp.runtime.video.sources.link import pause_s

_PATIENCE_S = 8.0
_FAREWELL_S = 2.0
# A connection that held for so long was a good one: the next pauses are short again.
_STEADY_S = 10.0
# Seven packets of a transport stream. FFmpeg's own default is no multiple of their size, and would send torn ones.
_DATAGRAM_BYTES = 7 * 188
_PUSHER = "sfpp.runtime.video.sinks.push_child"
PusherState = Literal["connecting", "connected", "failed"]
TIME = struct.Struct("<d")


class PushSink:
    """Sends every picture as low-latency H.264, with a key frame each second; a context manager that ends it.

    ``rtsp://`` and ``rtsps://`` publish (ANNOUNCE, RECORD) within one TCP connection, ``rtmp://`` and ``rtmps://`` send
    FLV, ``srt://`` and ``udp://`` an MPEG transport stream. The connection is made with the first picture, and again
    whenever it breaks, after pauses that grow; pictures meanwhile are left out, and are no errors. Only an event tells:
    ``opened``, ``lost``, ``back`` (with how many pictures were left out), or ``gave-up`` if it is no use to go on. Of
    UDP nobody can tell whether it arrives.

    User, password, key and query of the address are in no event and no error.

    Args:
        uri: the receiver's address.
        pause_s: seconds before the next try, after so many in vain.
        patience_s: how long connecting, or sending one picture, may take.
        on_event: told what becomes of the connection, and of changes of size.
        clock: seconds from any origin.

    Raises:
        UsageError: the address is not complete.
        MissingDependencyError: when it is entered: PyAV is not installed.
        MediaError: likewise: its FFmpeg knows no SRT.
    """

    def __init__(
        self,
        uri: str,
        *,
        pause_s: Callable[[int], float] = pause_s,
        patience_s: float = _PATIENCE_S,
        on_event: EventHandler = ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        receiver = self._receiver = Receiver.from_uri(uri)
        self.name = receiver.name
        self.frames_sent = 0
        self._patience_s = patience_s
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

    def __enter__(self) -> PushSink:
        check_protocol(self._receiver)
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Send ``image``, (H, W, 3) uint8 BGR, or leave it out while there is no connection.

        It waits for the encoder, and where the receiver is stuck, until patience is at an end.
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
        height, width = (side + side % 2 for side in self._fitting.size_hw)
        try:
            self._process = PusherProcess(self._receiver, size_hw=(height, width), patience_s=self._patience_s)
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


@dataclass(frozen=True)
class Protocol:
    """How video goes to a kind of receiver: FFmpeg's name of the container, its options, and an example."""

    container: str
    example: str
    options: dict[str, str] = field(default_factory=dict)
    needs_port: bool = False
    needs_path: bool = False


# Interleaved into the one TCP connection: through firewalls, and without lost packets.
_RTSP = {"rtsp_transport": "tcp"}
_FLV = {"flvflags": "no_duration_filesize"}  # a stream cannot be corrected afterwards
_MPEGTS = {"flush_packets": "1"}
PROTOCOLS = {
    "rtsp": Protocol("rtsp", "rtsp://HOST:8554/PATH", _RTSP, needs_path=True),
    "rtsps": Protocol("rtsp", "rtsps://HOST:8322/PATH", _RTSP, needs_path=True),
    "rtmp": Protocol("flv", "rtmp://HOST/APP/KEY", _FLV, needs_path=True),
    "rtmps": Protocol("flv", "rtmps://HOST/APP/KEY", _FLV, needs_path=True),
    "srt": Protocol("mpegts", "srt://HOST:PORT", _MPEGTS, needs_port=True),
    "udp": Protocol("mpegts", "udp://HOST:PORT", _MPEGTS, needs_port=True),
}


def is_receiver(place: str) -> bool:
    """Whether a place is an address that video is sent to, and no file."""
    scheme, mark, _ = place.partition("://")
    return bool(mark) and scheme.lower() in PROTOCOLS


@dataclass(frozen=True)
class Receiver:
    """A receiver: its address, which may hold a password or a key, and its name, which does not."""

    uri: str = field(repr=False)
    name: str
    protocol: Protocol

    @classmethod
    def from_uri(cls, uri: str) -> Receiver:
        """Read an address such as ``rtsp://user:password@host:8554/path``.

        Raises:
            UsageError: a part is missing, or the protocol is none of :data:`PROTOCOLS`.
        """
        scheme = uri.partition(":")[0].lower()
        if scheme not in PROTOCOLS:
            raise UsageError(f"{scheme}:// is no protocol to send video by; expected one of {', '.join(PROTOCOLS)}")
        protocol = PROTOCOLS[scheme]
        try:
            parts = urlsplit(uri)
            # Without a host, SRT waits for its receiver to call.
            named = bool(parts.hostname) or scheme == "srt"
            complete = named and (bool(parts.port) or not protocol.needs_port)
        except ValueError:  # a port that is no number, or half of an IPv6 address
            complete = False
        # The address itself is not repeated: where it cannot be understood, nobody knows which part is the password.
        if not complete or (protocol.needs_path and not parts.path.strip("/")):
            raise UsageError(f"this {scheme}:// address is not complete; expected {protocol.example}")
        name = without_credentials(uri)
        if scheme == "udp" and "pkt_size=" not in parts.query:
            uri += f"{'&' if parts.query else '?'}pkt_size={_DATAGRAM_BYTES}"
        return cls(uri, name, protocol)


def check_protocol(receiver: Receiver) -> None:
    """Refuse a protocol that this FFmpeg was built without, as far as that can be told without a connection.

    Raises:
        MissingDependencyError: PyAV is not installed.
        MediaError: it is missing.
    """
    av = import_av(purpose=f"sending video to {receiver.name}")
    if not receiver.uri.lower().startswith("srt:"):
        return
    try:
        av.open("srt://").close()
    except av.error.ProtocolNotFoundError:
        raise MediaError(
            f"cannot send video to {receiver.name}: the FFmpeg within PyAV was built without SRT, as newer ones "
            "of PyPI are; send by rtsp://, rtmp:// or udp://, or take a PyAV whose FFmpeg has libsrt"
        ) from None
    except (OSError, av.FFmpegError):
        pass  # it knows the protocol and misses the host


class PusherProcess:
    """Starts to connect at once; :meth:`close` ends it in every state.

    Args:
        receiver: where to send.
        size_hw: height and width of the pictures, even.
        patience_s: how long connecting, or sending one picture, may take.

    Attributes:
        state: where it stands, to be asked again and again.
        reason: why it failed, for people, without the address.
        final: whether it is of no use to try again.
    """

    def __init__(self, receiver: Receiver, *, size_hw: tuple[int, int], patience_s: float) -> None:
        self.state: PusherState = "connecting"
        self.reason = ""
        self.final = False
        self._patience_s = patience_s
        self._started_s = time.monotonic()
        self._process = subprocess.Popen(
            **python_module(_PUSHER),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a traceback could hold the address, and in it a password
            bufsize=0,
        )
        self._listener = threading.Thread(target=self._listen, name="sfpp-pusher", daemon=True)
        self._listener.start()
        job = {**vars(receiver), "protocol": asdict(receiver.protocol), "size_hw": size_hw, "patience_s": patience_s}
        self._write(json.dumps(job).encode() + b"\n")

    def send(self, time_s: float, planes: NDArray[np.uint8]) -> None:
        """Hand over a picture, (3/2 H, W) uint8 in 4:2:0; wait, up to its patience, for the one before."""
        self._write(TIME.pack(time_s))
        self._write(np.ascontiguousarray(planes).data.cast("B"))

    def close(self, *, patience_s: float) -> None:
        """Let it say farewell to the receiver for so long, then end it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _write(self, data: bytes | memoryview) -> None:
        assert self._process.stdin is not None
        rest = memoryview(data)
        # It may have ended; why, the listener hears.
        with contextlib.suppress(BrokenPipeError, ValueError):
            while rest:
                rest = rest[self._process.stdin.write(rest) or 0 :]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if message.get("connected"):
                self.state = "connected"
            else:
                self.reason, self.final = message["error"], message["final"]
        code = self._process.wait()
        if not self.reason:
            # When its patience is at an end, it ends itself without a word.
            overdue = time.monotonic() - self._started_s >= self._patience_s
            self.reason = "no answer in time" if overdue else f"the sending process ended with code {code}"
        self.state = "failed"
