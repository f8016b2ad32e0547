"""Addresses of receivers of live video: which protocols there are, and what FFmpeg has to be told of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.video.live.credentials import without_credentials
from sfpp.runtime.video.pyav import import_av

# Seven packets of a transport stream. FFmpeg's own default is no multiple of their size, and would send torn ones.
_DATAGRAM_BYTES = 7 * 188


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
