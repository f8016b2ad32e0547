"""Streams over a network, and plain files behind a URL, through PyAV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.events import EventHandler
from sfpp.runtime.video.frame import Picture, Source
from sfpp.runtime.video.pyav import Shown, declared_rate, import_av, reading_options, video_track
from sfpp.runtime.video.sources.address import Address, Options
from sfpp.runtime.video.sources.link import (
    RECONNECT_OPTIONS,
    TIMEOUT_S,
    Clip,
    Link,
    Opened,
    open_live,
)

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "srt", "tcp")
_OURS = ("transport", *RECONNECT_OPTIONS)
_RTSP = ("rtsp", "rtsps")
_WEB = ("http", "https")
_EXAMPLE = "rtsp://USER:PASSWORD@192.168.1.20/stream1?transport=udp&timeout=10"
# A playlist delivers some seconds at once and then nothing for as long.
_PLAYLIST_TIMEOUT_S = 20.0
_PLAYLISTS = ("hls", "dash")
_MICROSECONDS = 1_000_000
# How long FFmpeg looks at a stream before it delivers.
_ANALYZED_S = 0.5
# What waits for packets that UDP has delivered out of order.
_REORDERING_S = 0.1
_HINTS = {
    "HTTPUnauthorizedError": "the user name or the password is missing or wrong; write USER:PASSWORD@ before the host, "
    "with %40 for @, %2F for / and %3A for : within them",
    "HTTPForbiddenError": "the server does not allow it; check the user's rights",
    "HTTPNotFoundError": "the server has nothing at that path; check it, with the camera's manual",
    "HTTPServerError": "the server failed; check its own log",
    "ConnectionRefusedError": "nothing listens there; check host and port, and that the camera or server is on",
    "InvalidDataError": "what answers there is no video that FFmpeg knows; check the path",
    "OSError": "check the host's name and that it can be reached",
    "EOFError": "it ended before anything came; check that the camera or server sends",
}
_OVERDUE = ("ExitError", "TimeoutError", "BlockingIOError")
_OVERDUE_HINT = "check that the host can be reached from here, or give it more time with ?timeout=10"
_NEARLY = 0.9


def open_stream(address: Address, *, on_event: EventHandler) -> Source:
    """Open a stream; the options ``transport``, ``timeout``, ``reconnect`` and ``wait`` are ours, others the server's.

    Raises as :func:`.open_source`.
    """
    av = import_av(purpose=f"reading {address.shown}")
    options = Options(address, known=_OURS, example=_EXAMPLE, strict=False)
    if not address.place:
        raise UsageError(f"{address.shown} names no host; expected something like {_EXAMPLE}")
    transport = options.choice("transport", ("tcp", "udp"), "tcp")
    playlist = address.place.lower().endswith((".m3u8", ".mpd"))
    timeout_s = options.seconds("timeout", _PLAYLIST_TIMEOUT_S if playlist else TIMEOUT_S)
    link = Link(
        name=address.name,
        address=address.shown,
        connect=lambda: _StreamConnection(av, address, transport=transport, timeout_s=timeout_s),
        timeout_s=timeout_s,
    )
    return open_live(link, kind="stream", on_event=on_event, options=options)


def url_without_our_options(address: Address) -> str:
    """Return the URL for FFmpeg: all that was given, credentials too, but not the options that are ours."""
    theirs = "&".join(part for part in address.query if part.partition("=")[0] not in _OURS)
    return f"{address.scheme}://{address.place}{'?' * bool(theirs)}{theirs}"


def ffmpeg_options(scheme: str, *, transport: str, timeout_s: float) -> dict[str, str]:
    """Return FFmpeg's options for little delay.

    Two that are often recommended are left out. ``fflags=nobuffer`` throws away what was looked at while opening, the
    first key frame with it, and the next one may be seconds away; nothing is gained, since frames are taken as fast as
    they come. ``flags=low_delay`` shows MPEG-4's B-frames in the wrong order; a decoder that splits frames among its
    threads (see below) has no delay to lose.
    """
    microseconds = str(round(timeout_s * _MICROSECONDS))
    options = {"analyzeduration": str(round(_ANALYZED_S * _MICROSECONDS))}
    # Enough frames to guess a rate from are waited for only where it may be a plain file, whose rate is wanted. With
    # both options an RTSP camera opens 0.8 s sooner than with FFmpeg's own values.
    if scheme not in _WEB:
        options["fpsprobesize"] = "0"
    if scheme in _RTSP:
        reordering = str(round(_REORDERING_S * _MICROSECONDS))
        return options | {
            "rtsp_transport": transport,
            "timeout": microseconds,
            "max_delay": reordering,
            "allowed_media_types": "video",
        }
    if scheme == "udp":
        options["overrun_nonfatal"] = "1"
    # Not "timeout", which makes rtmp:// wait to be called.
    return options | {"rw_timeout": microseconds}


class _StreamConnection:
    """An open stream; everything FFmpeg does on the network ends after ``timeout_s`` without data."""

    def __init__(self, av: Any, address: Address, *, transport: str, timeout_s: float) -> None:
        self._av = av
        self._timeout_s = timeout_s
        self._container = self._open(address, transport)
        video = video_track(self._container)
        if video is None:
            kinds = ", ".join(stream.type for stream in self._container.streams) or "nothing"
            self._container.close()
            raise MediaError(f"{address.shown} holds no pictures, only {kinds}; check the path")
        self._video = video
        # Threads by frame would be faster alone, but hold back a frame each.
        self._video.thread_type = "SLICE"
        is_playlist = self._container.format.name.startswith(_PLAYLISTS)
        finite = self._is_finite(is_file=address.scheme in _WEB and not is_playlist)
        clip = None
        if finite and address.scheme in _WEB:
            clip = Clip(declared_rate(self._video), self._video.frames or None)
        self.opened = Opened(_detail(self._video), finite=finite, clip=clip)
        self.paced = clip is None and is_playlist

    def pictures(self) -> Iterator[Picture | None]:
        """Decode until the end, past broken packets; see :class:`.link.Connection`."""
        return Shown(self._video).pictures(self._frames())

    def _frames(self) -> Iterator[VideoFrame | None]:
        for packet in self._packets():
            # All streams are read, since a wish to stop must be heard between packets of sound too.
            if packet.stream.index != self._video.index:
                yield None
                continue
            try:
                frames = packet.decode()
            except self._av.FFmpegError:
                frames = []  # as at the start, in the middle of a group of pictures
            yield from frames or [None]

    def close(self) -> None:
        """Close the connection."""
        self._container.close()

    def _open(self, address: Address, transport: str) -> InputContainer:
        options = ffmpeg_options(address.scheme, transport=transport, timeout_s=self._timeout_s)
        timeouts = (self._timeout_s, self._timeout_s)
        begun_s = time.monotonic()
        try:
            container: InputContainer = self._av.open(
                url_without_our_options(address), options=options, timeout=timeouts, **reading_options()
            )
        except (self._av.FFmpegError, OSError, ValueError, RuntimeError) as error:
            message = self._message(address, error, time.monotonic() - begun_s)
        else:
            return container
        # Out here, so that the error, whose text holds the URL, is neither cause nor context.
        raise MediaError(message)

    def _message(self, address: Address, error: Exception, seconds: float) -> str:
        if isinstance(error, self._av.error.ProtocolNotFoundError):
            return (
                f"{address.shown} cannot be opened: this PyAV's FFmpeg was built without {address.scheme}://; "
                "let a relay such as MediaMTX turn it into rtsp://"
            )
        reason, hint = reason_and_hint(error, timeout_s=self._timeout_s, seconds=seconds)
        return f"{address.shown} cannot be opened: {reason}{hint}"

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux()
        while True:
            reason = None
            begun_s = time.monotonic()
            try:
                packet = next(packets, None)
            except self._av.FFmpegError as error:
                seconds = time.monotonic() - begun_s
                reason, _ = reason_and_hint(error, timeout_s=self._timeout_s, seconds=seconds)
            if reason is not None:
                raise MediaError(f"the connection broke off ({reason})")
            if packet is None:
                return
            yield packet

    def _is_finite(self, *, is_file: bool) -> bool:
        """Tell a recording from a stream: it knows its duration, or its size if it is a file."""
        # Cameras that send pictures one by one over HTTP may claim any size, from which a duration would follow.
        if self._container.format.name == "mpjpeg":
            return False
        size = self._container.size or 0  # of a stream without an end: None since PyAV 19, below zero before
        return self._container.duration is not None or (is_file and size > 0)


def _detail(video: VideoStream) -> str:
    """Say what the stream is; its size may be known only with the first key frame."""
    size = f"{video.width}x{video.height} " if video.width and video.height else ""
    return f"{size}{video.codec_context.name}"


def reason_and_hint(error: Exception, *, timeout_s: float, seconds: float = 0.0) -> tuple[str, str]:
    """Return what went wrong in a call of PyAV's that took ``seconds`` of the ``timeout_s`` that it had; what to check.

    The hint begins with a semicolon, and is empty where there is nothing to say.
    """
    kinds = [kind.__name__ for kind in type(error).__mro__]
    # A call whose time is over is an interruption to FFmpeg, and to its RTSP "invalid data".
    if not set(kinds).isdisjoint(_OVERDUE) or seconds >= _NEARLY * timeout_s:
        return f"nothing came for {timeout_s:g} s", f"; {_OVERDUE_HINT}"
    # Only the library's own word for the number: any other text may hold the address.
    words = str(getattr(error, "strerror", None) or "")
    reason = words.lower() if words and "://" not in words else f"FFmpeg failed ({type(error).__name__})"
    return reason, next((f"; {_HINTS[kind]}" for kind in kinds if kind in _HINTS), "")
