"""Streams over a network, and plain files behind a URL, through PyAV."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.events import EventHandler
from sfpp.runtime.video.frame import Picture, Source
from sfpp.runtime.video.pyav import Shown, declared_rate, import_av, reading_options, video_track
from sfpp.runtime.video.sources.address import Address, Options
from sfpp.runtime.video.sources.gstreamer import open_decoded_by_jetson
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
_OURS = ("transport", "every", "decoder", *RECONNECT_OPTIONS)
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
_CREDENTIALS = (
    "write USER:PASSWORD@ before the host, and within them %40 for @, %3A for :, %2F for /, %3F for ?, %23 for # and "
    "%25 for %"
)
_WAIT = "?wait=1 waits until it is there"
_HINTS = {
    "HTTPUnauthorizedError": f"the user name or the password is missing or wrong; {_CREDENTIALS}",
    "HTTPForbiddenError": "the server does not allow it; check the user's rights",
    "HTTPNotFoundError": "the server has nothing at that path; check it, with the camera's manual",
    "HTTPServerError": "the server failed; check its own log",
    "ConnectionRefusedError": "nothing listens there; check host and port, and that the camera or server is on; "
    f"{_WAIT}",
    "InvalidDataError": "what answers there is no video that FFmpeg knows; check the path",
    "OSError": f"check the host's name and that it can be reached; {_WAIT}",
    "EOFError": f"it ended before anything came; check that the camera or server sends; {_WAIT}",
}
_OVERDUE = ("ExitError", "TimeoutError", "BlockingIOError")
_OVERDUE_HINT = f"check that the host can be reached from here, or give it more time with ?timeout=10; {_WAIT}"
_NEARLY = 0.9
_NAP_S = 0.1  # within which the wish to stop is heard


def open_stream(address: Address, *, on_event: EventHandler) -> Source:
    """Open a stream; the options ``transport``, ``timeout``, ``reconnect``, ``wait``, ``every``, ``decoder`` are ours.

    Others are the server's. ``every`` asks for a still picture again and again, after so many seconds.
    ``decoder=hardware`` decodes ``rtsp://`` with a Jetson's decoder, by GStreamer.

    Raises as :func:`.open_source`.
    """
    options = Options(address, known=_OURS, example=_EXAMPLE, strict=False)
    if not address.place:
        raise UsageError(f"{address.shown} names no host; expected something like {_EXAMPLE}")
    _check_credentials(address)
    every_s = options.seconds("every", 0.0)
    if every_s and address.scheme not in _WEB:
        raise UsageError(
            f"{address.shown}: every= asks for a still picture again and again, by http:// or https:// only"
        )
    transport = options.choice("transport", ("tcp", "udp"), "tcp")
    playlist = address.place.lower().endswith((".m3u8", ".mpd"))
    timeout_s = options.seconds("timeout", _PLAYLIST_TIMEOUT_S if playlist else TIMEOUT_S)
    if options.choice("decoder", ("software", "hardware"), "software") == "hardware":
        if address.scheme not in _RTSP:
            raise UsageError(f"{address.shown}: decoder=hardware is for rtsp:// only; leave it out")
        url = url_without_our_options(address)
        return open_decoded_by_jetson(
            address, url, options=options, transport=transport, timeout_s=timeout_s, on_event=on_event
        )
    av = import_av(purpose=f"reading {address.shown}")

    def connect() -> _StreamConnection:
        return _StreamConnection(av, address, transport=transport, timeout_s=timeout_s)

    link = Link(
        name=address.name,
        address=address.shown,
        connect=(lambda: _Snapshots(connect, every_s)) if every_s else connect,
        timeout_s=timeout_s,
        interval_s=every_s,
    )
    return open_live(link, kind="stream", on_event=on_event, options=options)


def _check_credentials(address: Address) -> None:
    """Refuse a password that ends the host's part of the address, so that its beginning would be sought as a port.

    Raises:
        UsageError: there is one.
    """
    authority, rest = _split_place(address)
    port = authority.rpartition("]")[2].partition(":")[2]
    if "@" in rest and "@" not in authority and port and not port.isdecimal():
        raise UsageError(f"{address.shown}: the password has a character that ends it too soon; {_CREDENTIALS}")


def _split_place(address: Address) -> tuple[str, str]:
    """Return what stands before the path, the query or the fragment, and what comes then."""
    authority, _, rest = re.sub("[/?#]", "/", "?".join((address.place, *address.query))).partition("/")
    return authority, rest


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
        still = clip is not None and self._container.format.name.endswith(("_pipe", "image2"))
        hint = "; a single picture: ?every=1 asks for it again each second" if still else ""
        self.opened = Opened(f"{_detail(self._video)}{hint}", finite=finite, clip=clip)
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
        url, begun_s = url_without_our_options(address), time.monotonic()
        try:
            return self._opened(url, options)
        except (self._av.FFmpegError, OSError, ValueError, RuntimeError) as error:
            unknown = isinstance(error, self._av.InvalidDataError) and address.scheme in _WEB
            message = self._message(address, error, time.monotonic() - begun_s)
        # Out here, so that the error, whose text holds the URL, is neither cause nor context.
        container = self._bare_pictures(url, options) if unknown else None
        if container is None:
            raise MediaError(message)
        return container

    def _bare_pictures(self, url: str, options: dict[str, str]) -> InputContainer | None:
        """Open JPEGs between which there is anything; None if there are none.

        Some cameras send no boundary before the first picture, by which FFmpeg would tell them. Read this way a picture
        ends where the next one begins, and so comes one late.
        """
        with contextlib.suppress(self._av.FFmpegError, OSError, ValueError, RuntimeError):
            container = self._opened(url, options, format="mjpeg")
            if container.streams.video and container.streams.video[0].width:
                return container
            container.close()
        return None

    def _opened(self, url: str, options: dict[str, str], **more: str) -> InputContainer:
        timeouts = (self._timeout_s, self._timeout_s)
        container: InputContainer = self._av.open(url, options=options, timeout=timeouts, **reading_options(), **more)
        return container

    def _message(self, address: Address, error: Exception, seconds: float) -> str:
        if isinstance(error, self._av.error.ProtocolNotFoundError):
            return (
                f"{address.shown} cannot be opened: this PyAV's FFmpeg was built without {address.scheme}://; "
                "let a relay such as MediaMTX turn it into rtsp://"
            )
        reason, hint = reason_and_hint(error, timeout_s=self._timeout_s, seconds=seconds)
        if "@" in _split_place(address)[1]:  # which may be the end of a password that was taken for a path
            hint += f"; if the password has special characters, {_CREDENTIALS}"
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


class _Snapshots:
    """A still picture that is asked for again and again, over a connection each time; see :class:`.link.Connection`."""

    paced = False

    def __init__(self, connect: Callable[[], _StreamConnection], every_s: float) -> None:
        self._connect = connect
        self._every_s = every_s
        self._first: _StreamConnection | None = connect()
        detail = self._first.opened.detail.partition(";")[0]
        self.opened = Opened(f"{detail}, every {every_s:g} s")

    def pictures(self) -> Iterator[Picture | None]:
        """Yield one picture after the other, and None while there is nothing to be done."""
        due_s = time.monotonic()
        while True:
            connection, self._first = self._first or self._connect(), None
            try:
                picture = next((each for each in connection.pictures() if each is not None), None)
            finally:
                connection.close()
            if picture is None:
                raise MediaError("no picture came")
            yield picture._replace(stamp_s=None)
            del picture  # or it would stay in memory while the next one is awaited
            due_s = max(due_s + self._every_s, time.monotonic())
            while (left_s := due_s - time.monotonic()) > 0:
                time.sleep(min(left_s, _NAP_S))
                yield None

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._first is not None:
            self._first.close()


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
