"""What reading and writing with PyAV share: the module itself, and pixels between FFmpeg's frames and BGR arrays."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MissingDependencyError
from sfpp.runtime.images import Image, with_even_sides
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.pixels.nv12 import usual_matrix
from sfpp.runtime.video import hdr
from sfpp.runtime.video.frame import Picture

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

# The number of BT.709 in H.264's tables of primaries, transfer and matrix, and those of other matrices.
BT709 = 1
_UNSPECIFIED = 2
_BT2020 = 9
_MOST_OBLONG = 16  # a pixel's sides, as times each other
_BARE = ("h264", "hevc", "m4v", "mpegvideo", "vvc", "cavsvideo", "obu", "av1")
FALLBACK_RATE = Fraction(25)
HIGHEST_RATE = 1000
_LENIENT_SINCE = 19


def import_av(*, purpose: str) -> Any:
    """Return the module ``av``; ``purpose`` begins the message when it cannot be had.

    Raises:
        MissingDependencyError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError("PyAV", extra="video", purpose=purpose) from error
    return av


def reading_options() -> dict[str, Any]:
    """Return the arguments of ``av.open`` with which titles that are not UTF-8 are no error."""
    import av

    # From version 19 on they never are, and the option is gone.
    before = int(av.__version__.partition(".")[0]) < _LENIENT_SINCE
    return {"metadata_errors": "replace"} if before else {}


def video_track(container: InputContainer) -> VideoStream | None:
    """Return the track that a player shows: the default one, and no cover picture where there is another."""
    return cast("VideoStream | None", container.streams.best("video"))


def declared_rate(stream: VideoStream) -> Fraction:
    """Return the frames a second that a stream claims, 25 if it claims none that can be meant."""
    # A file of bare pictures has no clock, and the demuxer makes one up; the pictures' own headers may have one.
    own = stream.codec_context.framerate if is_bare(stream) else None
    for rate in (own, stream.average_rate, stream.guessed_rate):
        # Where a container knows no rate, FFmpeg may report its clock's, such as 90 000.
        if rate and 0 < rate <= HIGHEST_RATE:
            return Fraction(rate)
    return FALLBACK_RATE


def is_bare(stream: VideoStream) -> bool:
    """Whether the file is nothing but coded pictures, as .h264 is, and so has no times."""
    return bool(stream.container.format.name in _BARE)


class Shown:
    """A stream's pictures as a player shows them: upright, in square pixels, whole, in ordinary dynamic range.

    Args:
        stream: PyAV's, from which the frames come.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self._deinterlacing: Any = None
        self._said: set[str] = set()
        self._rotation: int | None = None
        self._matrix: bytes | None = None

    def pictures(self, frames: Iterable[VideoFrame | None]) -> Iterator[Picture | None]:
        """Yield them in the frames' order; those of interlaced video come a frame late. None stays None."""
        for frame in self._whole(frames):
            if frame is None:
                yield None
                continue
            picture = Picture(self._bgr(frame), frame.time, note=self._notes(frame))
            del frame  # or its pixels would stay in memory while the next one is decoded
            yield picture
            del picture

    def _whole(self, frames: Iterable[VideoFrame | None]) -> Iterator[VideoFrame | None]:
        """Let no picture be of two moments: of interlaced video, one field is kept and the lines between are made."""
        for frame in frames:
            if frame is not None and frame.interlaced_frame and self._deinterlacing is None:
                self._deinterlacing = _deinterlacing(self._stream)
            if self._deinterlacing is None or frame is None:
                yield frame
            else:
                self._deinterlacing.push(frame)
                yield from _pulled(self._deinterlacing)
        if self._deinterlacing is not None:
            self._deinterlacing.push(None)
            yield from _pulled(self._deinterlacing)

    def _bgr(self, frame: VideoFrame) -> Image:
        width, height = self._square(frame)
        if frame.color_trc in hdr.NAMES:
            rgb: Any = frame.to_ndarray(format="rgb48", width=width, height=height, src_colorspace=_BT2020)
            image = hdr.sdr_from_hdr(rgb, frame.color_trc)
        else:
            pixels = frame.to_ndarray(format="bgr24", width=width, height=height, src_colorspace=_matrix(frame))
            image = cast(Image, pixels)
        return turned(image, self._turn(frame))

    def _turn(self, frame: VideoFrame) -> bytes | None:
        """Return a frame's display matrix, which is looked at only where it may have changed.

        PyAV keeps a frame whose side data was looked at until garbage is collected, so a tiny one is.
        """
        if frame.rotation != self._rotation:
            self._rotation = frame.rotation
            matrix: Any = frame.reformat(width=2, height=2, format="gray").side_data.get("DISPLAYMATRIX")
            self._matrix = None if matrix is None else bytes(matrix)
        return self._matrix

    def _square(self, frame: VideoFrame) -> tuple[int, int]:
        """Return width and height in square pixels; the short side grows, so that nothing is lost."""
        aspect = self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio
        if not aspect or not 1 / _MOST_OBLONG <= aspect <= _MOST_OBLONG:
            return frame.width, frame.height
        return round(frame.width * max(aspect, Fraction(1))), round(frame.height / min(aspect, Fraction(1)))

    def _notes(self, frame: VideoFrame) -> str | None:
        """Return what is new to say of the stream's pictures."""
        notes = []
        if frame.color_trc in hdr.NAMES:
            notes.append(f"high dynamic range ({hdr.NAMES[frame.color_trc]}) is shown as an ordinary screen would")
        if self._square(frame) != (frame.width, frame.height):
            width, height = self._square(frame)
            notes.append(f"pixels are not square, so {frame.width}x{frame.height} becomes {width}x{height}")
        if self._deinterlacing is not None:
            notes.append("interlaced pictures are made whole")
        new = [each for each in notes if each not in self._said]
        self._said.update(new)
        return "; ".join(new) or None


def _matrix(frame: VideoFrame) -> int | None:
    """Return how the colors are coded, where players must guess: as FFmpeg does not, by the size."""
    large = usual_matrix((frame.height, frame.width)) == "bt709"
    return BT709 if frame.colorspace == _UNSPECIFIED and large else None


def turned(image: Image, matrix: bytes | None) -> Image:
    """Return an image as a display matrix says: turned by quarters, and mirrored where a front camera's is.

    Args:
        image: (H, W, 3).
        matrix: FFmpeg's nine 32-bit numbers, by rows; None changes nothing.
    """
    if matrix is None:
        return image
    cv2 = import_cv2(purpose="turning pictures upright")
    # x' = a x + c y, y' = b x + d y
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    across, down = (a, d) if abs(a) + abs(d) >= abs(b) + abs(c) else (c, b)
    if (across, down) == (c, b):
        image = cv2.transpose(image)
    if across < 0 or down < 0:
        image = cv2.flip(image, -1 if across < 0 and down < 0 else (1 if across < 0 else 0))
    return image


def _deinterlacing(stream: VideoStream) -> Any:
    from av.filter import Graph

    graph = Graph()
    deinterlace = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    graph.link_nodes(graph.add_buffer(template=stream), deinterlace, graph.add("buffersink")).configure()
    return graph


def _pulled(graph: Any) -> Iterator[VideoFrame]:
    import av

    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        yield frame


def picture_from_bgr(image: NDArray[np.uint8]) -> VideoFrame:
    """Return (H, W, 3) uint8 BGR as what H.264 takes: YUV 4:2:0 in BT.709, odd sides grown by a row or column."""
    import av

    picture = av.VideoFrame.from_ndarray(with_even_sides(image), format="bgr24")
    return picture.reformat(format="yuv420p", dst_colorspace=BT709)
