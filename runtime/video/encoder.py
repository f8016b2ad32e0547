"""H.264 videos that browsers and phones play, through PyAV."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError
from sfpp.runtime.files import whole_file
from sfpp.runtime.video.frames import Frame
from sfpp.runtime.video.pyav import BT709, import_av, picture_from_bgr

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import OutputContainer

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
DEFAULT_CRF = 20
MILLISECOND = Fraction(1, 1000)
# The model needs the cores more than the encoder: veryfast takes 0.4 of the default preset's time and, on the shipped
# clip, not one byte more.
_PRESET = "veryfast"
_NOMINAL_LIVE_RATE = Fraction(30)  # only a hint to the encoder: live frames carry their own times
_LIMITED_RANGE = 1


class _NothingWritten(Exception):  # noqa: N818 - a signal within this file
    """No frame came, so there is to be no file."""


@contextlib.contextmanager
def video_sink(path: Path, *, frames_per_second: Fraction | None, crf: int = DEFAULT_CRF) -> Iterator[VideoEncoder]:
    """Write a video that appears under its name when it is complete.

    Ctrl-C within the block completes the video with the frames written so far; any other error leaves nothing behind.

    Args:
        path: ends in .mp4, .mov or .mkv.
        frames_per_second: None gives each frame its own time, as live pictures need.
        crf: quality of libx264; 18 cannot be told from the original, 23 is its default, 6 more halve the size.

    Raises:
        MissingDependencyError: PyAV is not installed.
        SfppError: the folder does not exist, the disk is full, or the encoder failed.
    """
    interruption: KeyboardInterrupt | None = None
    with contextlib.suppress(_NothingWritten), whole_file(path) as temporary:
        encoder = VideoEncoder(path, temporary, frames_per_second=frames_per_second, crf=crf)
        try:
            try:
                yield encoder
            except KeyboardInterrupt as error:
                interruption = error
            if not encoder.frames_written:
                raise interruption or _NothingWritten
            encoder.finish()
        finally:
            encoder.release()
    if interruption is not None:
        raise interruption


class VideoEncoder:
    """Encodes frames of one size into ``temporary``; messages speak of ``path``. Use it through :func:`video_sink`."""

    def __init__(self, path: Path, temporary: Path, *, frames_per_second: Fraction | None, crf: int) -> None:
        av = import_av(purpose=f"writing {path.name}")
        self.path = path
        self.frames_written = 0
        self._rate = frames_per_second
        self._last_pts = -1
        self._crf = crf
        self._size_hw = (0, 0)
        self._stream: H264Stream | None = None
        # With the index in front, a browser plays the file while it still loads. Matroska has no such option.
        options = {} if path.suffix.lower() == ".mkv" else {"movflags": "+faststart"}
        self._container: OutputContainer = av.open(str(temporary.absolute()), mode="w", options=options)

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Encode ``image``, (H, W, 3) uint8 BGR; an odd height or width grows by one repeated row or column.

        Raises:
            MediaError: another size than the first frame's, or the encoder failed.
            OSError: the disk is full, or similar.
        """
        if self._stream is None:
            height, width = self._size_hw = image.shape[:2]
            time_base = MILLISECOND if self._rate is None else 1 / self._rate
            self._stream = H264Stream(
                self._container, (height, width), time_base=time_base, rate=self._rate, crf=self._crf
            )
        if image.shape[:2] != self._size_hw:
            raise MediaError(
                f"frame {frame.name} is {size_words(image.shape[:2])}, but {self.path.name} began with "
                f"{size_words(self._size_hw)}, and a video has one size; give a folder as output"
            )
        with self._errors_named():
            self._stream.write(picture_from_bgr(image), self._next_pts(frame))
        self.frames_written += 1

    def finish(self) -> None:
        """Write what the encoder still holds, and the index.

        Raises:
            MediaError: the encoder failed.
            OSError: the disk is full, or similar.
        """
        assert self._stream is not None
        with self._errors_named():
            self._stream.finish()
        self._container.close()

    def release(self) -> None:
        """Close the file whatever its state; the caller has removed it, or finished it, or is about to remove it."""
        import av

        with contextlib.suppress(av.FFmpegError):
            self._container.close()

    def _next_pts(self, frame: Frame) -> int:
        """Time stamps must rise; two live frames may arrive within a millisecond."""
        stamp = self.frames_written if self._rate is not None else round(frame.time_s / MILLISECOND)
        self._last_pts = max(self._last_pts + 1, stamp)
        return self._last_pts

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        import av

        try:
            yield
        except OSError:
            raise  # PyAV's own OSErrors included: the writer of whole files explains them
        except av.FFmpegError as error:
            raise MediaError(
                f"cannot encode {self.path}: {error.strerror}; try another suffix, such as .mp4"
            ) from error


class H264Stream:
    """The one stream of a container: pictures in, H.264 out.

    Args:
        container: PyAV's, opened for writing; the caller closes it.
        size_hw: height and width of the pictures before :func:`picture_from_bgr`; odd sides grow by one.
        time_base: seconds that a time stamp counts, also in the file.
        rate: frames a second; None where frames come when they come.
        crf: quality of libx264; lower is better.
        options: more of libx264's own options.
    """

    def __init__(
        self,
        container: OutputContainer,
        size_hw: tuple[int, int],
        *,
        time_base: Fraction,
        rate: Fraction | None,
        crf: int,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._container = container
        self._time_base = time_base
        stream: VideoStream = container.add_stream(
            "libx264", rate=rate or _NOMINAL_LIVE_RATE, options={"crf": str(crf), "preset": _PRESET, **(options or {})}
        )
        stream.height, stream.width = (side + side % 2 for side in size_hw)
        stream.pix_fmt = "yuv420p"
        # Without these notes players guess the colors by the size of the picture, and guess differently.
        context: Any = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = _LIMITED_RANGE
        context.time_base = time_base
        self._stream = stream

    def write(self, picture: VideoFrame, pts: int, *, key: bool = False) -> None:
        """Encode a picture of :func:`picture_from_bgr`; ``key`` makes it one that decoding can begin with.

        Raises:
            av.FFmpegError: the encoder failed, or what is written to did; often an OSError too.
        """
        from av.video.frame import PictureType

        picture.pts, picture.time_base = pts, self._time_base
        if key:
            picture.pict_type = PictureType.I
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Write what the encoder still holds; the container's end is the caller's to write.

        Raises:
            av.FFmpegError: as for :meth:`write`.
        """
        self._container.mux(self._stream.encode(None))


def size_words(size_hw: tuple[int, ...]) -> str:
    """Return a size (height, width, ...) in words."""
    return f"{size_hw[1]} wide and {size_hw[0]} high"
