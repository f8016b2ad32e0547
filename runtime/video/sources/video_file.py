"""Frames from a video file through PyAV, or through OpenCV where PyAV is not installed."""

from __future__ import annotations

import importlib.util
import itertools
import operator
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from sfpp.runtime.errors import MediaError
from sfpp.runtime.images import Image
from sfpp.runtime.imports import cv2_text, import_cv2
from sfpp.runtime.video.frame import Decoded, Source
from sfpp.runtime.video.pyav import FALLBACK_RATE, HIGHEST_RATE, declared_rate, reading_options, upright_bgr

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

_Timed = tuple[Image, float | None]  # a picture, and its time in the file if that tells
_MICROSECONDS = 1_000_000
_MATROSKA_DURATION = re.compile(r"(\d+):(\d+):(\d+\.?\d*)")  # 00:00:04.800000000, in the stream's metadata
_EXPECTED = "expected a video file such as .mp4, .mkv, .mov or .avi"
_LARGEST_DENOMINATOR = 1001  # that of the NTSC rates: 30000/1001, 24000/1001


def open_video(path: Path) -> Source:
    """Open a video file; a damaged one yields what can be decoded and says in ``warnings`` what could not.

    Raises as :func:`.open_source`.
    """
    if path.stat().st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes); {_EXPECTED}")
    if importlib.util.find_spec("av") is None:
        return open_video_with_opencv(path)
    container = _open_container(path)
    stream = container.streams.video[0]
    # Threads by frame would be faster alone, but hold frames back and lose them when a later packet is broken; and the
    # model competes for the same cores.
    stream.thread_type = "SLICE"
    rate = declared_rate(stream)
    duration_s = _duration_s(container, stream)
    count = stream.frames or (round(duration_s * rate) if duration_s else None)
    tally = _Tally(path.name, rate=rate, declared_count=count, declared_s=duration_s)
    frames = ((upright_bgr(frame), frame.time) for frame in _raw_frames(container, stream, tally))
    return _source(path, frames, tally, close=container.close)


def _open_container(path: Path) -> InputContainer:
    import av

    try:
        # An absolute path, since a relative one with a colon would be taken for the name of a protocol.
        container: InputContainer = av.open(str(path.absolute()), **reading_options())
    except av.FFmpegError as error:
        raise MediaError(
            f"{path} cannot be opened as a video ({error.strerror}); {_EXPECTED}. "
            "An .mp4 that was cut off while it was written lacks its index and cannot be played"
        ) from error
    # FFmpeg renders any .txt as a terminal's screen, which nobody means.
    if container.format.name == "tty" or not container.streams.video:
        kinds = ", ".join(stream.type for stream in container.streams if stream.type != "video") or "text"
        container.close()
        raise MediaError(f"{path} holds no pictures, only {kinds}; {_EXPECTED}")
    return container


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    """How long the header says the pictures last; None if it does not say so for the pictures alone."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    clock = _MATROSKA_DURATION.fullmatch(stream.metadata.get("DURATION", ""))
    if clock is not None:
        hours, minutes, seconds = map(float, clock.groups())
        return hours * 3600 + minutes * 60 + seconds
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / _MICROSECONDS
    return None


@dataclass
class _Tally:
    """What a decoder met on its way, and what the file's header had promised."""

    name: str
    rate: Fraction
    declared_count: int | None
    declared_s: float | None
    frames: int = 0
    damaged: int = 0
    end_s: float = 0.0
    broken_off: bool = False
    reason: str = ""
    warnings: list[str] = field(default_factory=list)

    def warning(self) -> str | None:
        """One line about what is missing, or None."""
        # Counts alone mislead (edit lists leave frames out on purpose), and the last frame's duration is a guess.
        tolerance_s = max(0.1, float(2 / self.rate))
        short = self.declared_s is not None and self.end_s < self.declared_s - tolerance_s
        if self.broken_off or short:
            of = f" of {self.declared_count}" if self.declared_count else ""
            reason = self.reason or "the rest is missing"
            return f"{self.name}: the video breaks off after {self.frames}{of} frames ({reason}); kept what was decoded"
        if self.damaged:
            reason = f" ({self.reason})" if self.reason else ""
            frames = "1 frame is" if self.damaged == 1 else f"{self.damaged} frames are"
            return f"{self.name}: {frames} damaged{reason}: left out, or shown as far as decoded"
        return None


def _source(path: Path, frames: Iterator[_Timed], tally: _Tally, *, close: Callable[[], object]) -> Source:
    return Source(
        _decoded(frames, tally),
        kind="video",
        name=path.stem,
        frames_per_second=tally.rate,
        count=tally.declared_count,
        paths=(path,),
        warnings=tally.warnings,
        release=close,
    )


def _decoded(frames: Iterator[_Timed], tally: _Tally) -> Generator[Decoded, None, None]:
    """Yield to the end, count, and note what is missing."""
    start_s = None
    for image_bgr, time_s in frames:
        stamp_s = float(tally.frames / tally.rate) if time_s is None else time_s
        start_s = stamp_s if start_s is None else start_s
        tally.frames += 1
        tally.end_s = stamp_s - start_s + float(1 / tally.rate)
        yield Decoded(image_bgr, stamp_s - start_s)
        del image_bgr  # or it would stay in memory while the next one is decoded
    if (warning := tally.warning()) is not None:
        tally.warnings.append(warning)


def _raw_frames(container: InputContainer, stream: VideoStream, tally: _Tally) -> Iterator[VideoFrame]:
    """Decode to the end, past broken packets; a container that cannot be read on ends the video."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            tally.broken_off, tally.reason = True, error.strerror or str(error)
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            tally.damaged += 1
            tally.reason = error.strerror or str(error)
            continue
        for frame in frames:
            tally.damaged += bool(frame.is_corrupt)
            yield frame


def open_video_with_opencv(path: Path) -> Source:
    """Open a video file; OpenCV turns the frames upright itself. Raises as :func:`.open_source`."""
    cv2 = import_cv2(purpose=f"reading {path.name}")
    if cv2_text(str(path)) != str(path):
        raise MediaError(
            f"{path} cannot be opened by OpenCV, since its name is not UTF-8; rename it, or install PyAV, which reads "
            "it: pip install 'sfpp[video]'"
        )
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        capture.release()
        raise MediaError(
            f"{path} cannot be opened as a video by OpenCV; expected a video file such as .mp4, .mkv or .avi. "
            "With PyAV more formats open: pip install 'sfpp[video]'"
        )
    reported = capture.get(cv2.CAP_PROP_FPS)
    rate = Fraction(reported).limit_denominator(_LARGEST_DENOMINATOR) if 0 < reported <= HIGHEST_RATE else FALLBACK_RATE
    # Some backends report a negative number for "unknown".
    count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))) or None
    # The count is computed from duration and rate, so the last frame or two may never have existed.
    declared_s = None if count is None else float(count / rate)
    tally = _Tally(path.name, rate=rate, declared_count=count, declared_s=declared_s)
    # OpenCV says only that there is no next frame, not why.
    arrived = itertools.takewhile(operator.itemgetter(0), iter(capture.read, None))
    frames = ((image_bgr, None) for _, image_bgr in arrived)
    return _source(path, frames, tally, close=capture.release)
