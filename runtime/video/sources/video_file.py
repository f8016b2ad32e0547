"""Frames from a video file through PyAV."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from sfpp.runtime.errors import MediaError
from sfpp.runtime.video.frame import Decoded, Origin, Picture, Source
from sfpp.runtime.video.pyav import Shown, declared_rate, reading_options, video_track

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

_MICROSECONDS = 1_000_000
_MATROSKA_DURATION = re.compile(r"(\d+):(\d+):(\d+\.?\d*)")  # 00:00:04.800000000, in the stream's metadata
# Formats of pieces: each may have a clock of its own, and one may be missing.
_JOINED = ("mpegts", "hls", "concat")
_LONGEST_GAP_S = 10.0  # between two pieces; where they are further apart, their clocks differ
_SHORTEST_GAP_S = 0.5
_SHORTEST_STEP_S = 1e-3
_EXPECTED = "expected a video file such as .mp4, .mkv, .mov or .avi"
_LARGEST_DENOMINATOR = 1001  # that of the NTSC rates: 30000/1001, 24000/1001


def open_video(path: Path) -> Source:
    """Open a video file or a pipe; a damaged one yields what can be decoded and says in ``warnings`` what could not.

    Raises as :func:`.open_source`.
    """
    facts = path.stat()
    if stat.S_ISREG(facts.st_mode) and facts.st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes); {_EXPECTED}")
    container, stream = _open_container(path)
    # Threads by frame would be faster alone, but hold frames back and lose them when a later packet is broken; and the
    # model competes for the same cores.
    stream.thread_type = "SLICE"
    rate = declared_rate(stream)
    begin_s = (
        None if stream.start_time is None or stream.time_base is None else float(stream.start_time * stream.time_base)
    )
    duration_s = _duration_s(container, stream, begin_s or 0.0)
    count = stream.frames or (round(duration_s * rate) if duration_s else None)
    tally = Tally(path.name, rate=rate, declared_count=count, declared_s=duration_s)
    tally.begin_s = begin_s
    tally.joined = container.format.name in _JOINED
    pictures = filter(None, Shown(stream).pictures(_raw_frames(container, stream, tally)))
    return video_source(path, pictures, tally, close=container.close, origin=Origin(path))


def _open_container(path: Path) -> tuple[InputContainer, VideoStream]:
    import av

    try:
        # An absolute path, since a relative one with a colon would be taken for the name of a protocol.
        container: InputContainer = av.open(str(path.absolute()), **reading_options())
    except av.FFmpegError as error:
        raise MediaError(
            f"{path} cannot be opened as a video ({error.strerror}); {_EXPECTED}. "
            "An .mp4 that was cut off while it was written lacks its index and cannot be played"
        ) from error
    stream = video_track(container)
    # FFmpeg renders any .txt as a terminal's screen, which nobody means.
    if container.format.name == "tty" or stream is None:
        kinds = ", ".join(stream.type for stream in container.streams if stream.type != "video") or "text"
        container.close()
        raise MediaError(f"{path} holds no pictures, only {kinds}; {_EXPECTED}")
    return container, stream


def _duration_s(container: InputContainer, stream: VideoStream, begin_s: float) -> float | None:
    """How long the header says the pictures last; None if it does not say so for the pictures alone."""
    if container.format.name == "asf":
        return None  # Windows Media counts what a player waits before it begins
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    clock = _MATROSKA_DURATION.fullmatch(stream.metadata.get("DURATION", ""))
    if clock is not None:
        hours, minutes, seconds = map(float, clock.groups())
        return hours * 3600 + minutes * 60 + seconds - begin_s  # Matroska's is the time of the end
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / _MICROSECONDS
    return None


@dataclass
class Tally:
    """What a decoder met on its way, and what the file's header had promised; times are the file's own."""

    name: str
    rate: Fraction
    declared_count: int | None
    declared_s: float | None
    begin_s: float | None = None
    joined: bool = False
    frames: int = 0
    damaged: int = 0
    last_s: float = 0.0
    moved_s: float = 0.0
    broken_off: bool = False
    reason: str = ""
    warnings: list[str] = field(default_factory=list)

    def time_s(self, stamp_s: float | None) -> float:
        """Count a frame and return its time, from the file's beginning; times rise, also where pieces were joined."""
        frame_s = float(1 / self.rate)
        stamp_s = self.frames * frame_s if stamp_s is None else stamp_s
        if self.frames == 0:
            self.begin_s = stamp_s if self.begin_s is None else self.begin_s
            self._note_missing(0.0, stamp_s - self.begin_s)
        self.frames += 1
        time_s = stamp_s - (self.begin_s or 0.0) + self.moved_s
        step_s = time_s - self.last_s
        if self.frames > 1:
            if step_s <= -frame_s or (self.joined and step_s > _LONGEST_GAP_S):
                self.moved_s += frame_s - step_s
                time_s = self.last_s + frame_s
            elif step_s <= 0:  # two frames of one time, as screen recorders write them
                time_s = self.last_s + _SHORTEST_STEP_S
            elif self.joined:
                self._note_missing(self.last_s, step_s - frame_s)
        self.last_s = time_s
        return time_s

    def _note_missing(self, at_s: float, seconds: float) -> None:
        """Note a hole that is no matter of rounding."""
        if seconds > max(_SHORTEST_GAP_S, float(2 / self.rate)):
            where = f"after {at_s:.1f} s" if at_s else "at the beginning"
            self.warnings.append(f"{self.name}: {seconds:.1f} s are missing {where}; kept what was decoded")

    def warning(self) -> str | None:
        """One line about what is missing at the end or damaged, or None."""
        # Counts alone mislead (edit lists leave frames out on purpose), and the last frame's duration is a guess.
        tolerance_s = max(0.1, float(2 / self.rate))
        short = self.declared_s is not None and self.last_s + float(1 / self.rate) < self.declared_s - tolerance_s
        if self.broken_off or short:
            of = f" of {self.declared_count}" if self.declared_count else ""
            reason = self.reason or "the rest is missing"
            return f"{self.name}: the video breaks off after {self.frames}{of} frames ({reason}); kept what was decoded"
        if self.damaged:
            reason = f" ({self.reason})" if self.reason else ""
            frames = "1 frame is" if self.damaged == 1 else f"{self.damaged} frames are"
            return f"{self.name}: {frames} damaged{reason}: left out, or shown as far as decoded"
        return None


def video_source(
    path: Path,
    pictures: Iterable[Picture],
    tally: Tally,
    *,
    close: Callable[[], object],
    origin: Origin | None = None,
) -> Source:
    """Return the source of a video's pictures, counted by a tally; ``close`` is called at the end."""
    return Source(
        _decoded(pictures, tally, origin),
        kind="video",
        name=path.stem,
        frames_per_second=tally.rate,
        count=tally.declared_count,
        paths=(path,),
        warnings=tally.warnings,
        origin=origin,
        release=close,
    )


def _decoded(pictures: Iterable[Picture], tally: Tally, origin: Origin | None) -> Generator[Decoded, None, None]:
    """Yield to the end, with times from the first picture on, and note what is missing."""
    first_s = None
    for picture in pictures:
        time_s = tally.time_s(picture.stamp_s)
        first_s = time_s if first_s is None else first_s
        if origin is not None:
            origin.begin_s = None if tally.moved_s or picture.stamp_s is None else (tally.begin_s or 0.0) + first_s
        yield Decoded(picture.image_bgr, time_s - first_s, note=picture.note)
        del picture  # or it would stay in memory while the next one is decoded
    if origin is not None:
        origin.ended = True
    if (warning := tally.warning()) is not None:
        tally.warnings.append(warning)


def _raw_frames(container: InputContainer, stream: VideoStream, tally: Tally) -> Iterator[VideoFrame]:
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
