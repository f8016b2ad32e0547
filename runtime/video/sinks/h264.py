"""H.264 videos that browsers and phones play, through PyAV: whole files, and files that a crash leaves playable."""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError, SfppError
from sfpp.runtime.events import Event, EventHandler, ignore
from sfpp.runtime.files import free_path, made_folder, open_number, ordinary_place, whole_file
from sfpp.runtime.images import bgr_from_frame
from sfpp.runtime.video.frame import Frame, Origin
from sfpp.runtime.video.pyav import BT709, import_av, picture_from_bgr
from sfpp.runtime.video.sinks.fitting import FirstSize
from sfpp.runtime.video.sinks.sound import Sound

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import OutputContainer

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
MILLISECOND = Fraction(1, 1000)
# Of libx264: 18 cannot be told from the original, 23 is its default, 6 more halve the size.
_CRF = 20
# The model needs the cores more than the encoder: veryfast takes 0.4 of the default preset's time and, on the shipped
# clip, not one byte more.
_PRESET = "veryfast"
_NOMINAL_RATE = Fraction(30)  # where none is told
_TICKS_PER_SECOND = 10_000
_LIMITED_RANGE = 1
_FRAGMENTS = "frag_keyframe+empty_moov+default_base_moof"
_FRAGMENT_MICROSECONDS = "250000"
_CLUSTER_MILLISECONDS = "250"
_HYBRID_SINCE = (61, 7)  # libavformat of FFmpeg 7.1
# Of itself libx264 holds back some 20 frames, to look ahead and to fill its threads: two seconds at 10 frames a second,
# which a receiver would wait for and a crash would lose. And it sees a new scene in every flicker of a noisy camera,
# each a key frame beside those that are asked for.
LIVE_OPTIONS = {"tune": "zerolatency", "sc_threshold": "0"}
_KEY_INTERVAL_S = 1.0


class _NothingWritten(Exception):  # noqa: N818 - a signal within this file
    """No frame came, so there is to be no file."""


@contextlib.contextmanager
def video_sink(
    path: Path,
    *,
    frames_per_second: Fraction | None = None,
    origin: Origin | None = None,
    on_event: EventHandler = ignore,
) -> Iterator[VideoFile]:
    """Write a video that appears under its name when it is complete.

    Whatever ends the block, also an error, completes the video with the frames written so far, unless the writing
    itself has failed: then nothing is left behind. Every frame has its own time. A picture of another size than the
    first one's is scaled to it, with black bars where it needs them. Without a frame there is no file.

    Args:
        path: ends in .mp4, .mov or .mkv.
        frames_per_second: about as many as will come; frames whose times do not rise are so far apart.
        origin: the file that the frames are of, whose sound is copied.
        on_event: told of changes of size, and of sound that is left out.

    Raises:
        MissingDependencyError: PyAV is not installed.
        SfppError: the folder cannot be made, the disk is full, or the encoder failed.
    """
    ending: BaseException | None = None
    with contextlib.suppress(_NothingWritten), whole_file(path) as temporary:
        video = VideoFile(path, temporary, frames_per_second=frames_per_second, origin=origin, on_event=on_event)
        try:
            try:
                yield video
            except BaseException as error:
                if video.failed:
                    raise
                ending = error
            if not video.frames_written:
                raise ending or _NothingWritten
            video.finish()
        finally:
            video.release()
    if ending is not None:
        raise ending


@contextlib.contextmanager
def recording_sink(path: Path, *, on_event: EventHandler = ignore) -> Iterator[VideoFile]:
    """Record live pictures: whatever ends the program, all can be played but a quarter of a second and a frame.

    Other videos of sfpp appear under their name when they are complete. This one does not wait for that, on purpose:
    where a program is killed or crashes, nobody is left to complete anything, and hours would be lost for a rule. The
    file is therefore written under its own name from the first frame on, in fragments (MP4) or clusters (Matroska) of a
    quarter of a second, each of which goes to the operating system as it is done. Whatever ends the block, also an
    error, completes the file with what was written until then: an MP4 gets the index of an ordinary one. What survives
    a power cut is up to the file system: on Linux mostly all but the last half minute. The price: the file is half as
    large again, since the encoder must not look ahead; and an MP4 keeps 78 bytes a frame in memory for its index, at 30
    frames a second 200 MB in a day, where Matroska keeps none.

    A file of this name from an earlier run is renamed, not overwritten. Every frame has its own time, from 0 for the
    first. A picture of another size than the first one's is scaled to it, with black bars where it needs them. Without
    a frame there is no file.

    Args:
        path: ends in .mp4, .mov or .mkv.
        on_event: told of changes of size, and of an older file's new name.

    Raises as :func:`video_sink`.
    """
    # In place and not in one step, so a link has to be followed here, and what is no file cannot be one that grows.
    place = ordinary_place(path)
    recording = VideoFile(place, place, live=True, on_event=on_event)
    with made_folder(place.parent):
        try:
            yield recording
        except BaseException:
            with contextlib.suppress(MediaError):
                recording.finish()
            raise
        recording.finish()


class VideoFile:
    """Encodes frames into a file; use it through :func:`video_sink` or :func:`recording_sink`.

    Args:
        path: of which messages speak.
        file: what is written; it is opened with the first frame.
        frames_per_second: about as many as will come.
        live: write small pieces that are complete in themselves.
        origin: the file that the frames are of, whose sound is copied.
        on_event: told of changes of size, of an older file's new name, and of sound that is left out.

    Attributes:
        failed: the writing itself has.
    """

    def __init__(
        self,
        path: Path,
        file: Path,
        *,
        frames_per_second: Fraction | None = None,
        live: bool = False,
        origin: Origin | None = None,
        on_event: EventHandler = ignore,
    ) -> None:
        import_av(purpose=f"writing {path.name}")
        self.path = path
        self.frames_written = 0
        self.failed = False
        self._file = file
        self._rate = frames_per_second or _NOMINAL_RATE
        self._live = live
        self._origin = origin
        self._on_event = on_event
        self._fitting = FirstSize(path.name, on_event)
        self._base = MILLISECOND if live or frames_per_second is None else fine_base(frames_per_second)
        self._stamps = Stamps(self._base) if live else Stamps(self._base, start_s=0.0, step_s=float(1 / self._rate))
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._sound: Sound | None = None

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Encode ``image``, (H, W, 3) uint8 BGR; an odd height or width grows by one repeated row or column.

        Live, it is in the file with the first frame that is 0.25 s younger, and can be played whatever fails later.

        Raises:
            MediaError: the encoder failed.
            OSError: the disk is full, or similar; live, that is a MediaError too.
        """
        picture = picture_from_bgr(self._fitting.fit(bgr_from_frame(image)))
        with self._errors_named():
            if self._stream is None:
                self._stream = self._opened()
            stamp, key = self._stamps.of(frame.time_s)
            if self._sound is not None:
                self._sound.copy_until(float(stamp * self._base))
            encode(self._stream, picture, stamp, key=key and self._live)
        self.frames_written += 1

    def finish(self) -> None:
        """Write what the encoder still holds, and the index; raises as :meth:`write`."""
        with self._errors_named():
            try:
                if self._stream is not None:
                    encode(self._stream, None)
                if self._sound is not None:
                    # What goes on when the pictures have ended belongs to them, but not where only a part was run.
                    ended = self._origin is not None and self._origin.ended
                    self._sound.copy_until(math.inf if ended else self._stamps.last_s + float(1 / self._rate))
            finally:
                if self._container is not None:
                    self._container.close()
                    if not self.frames_written:
                        self._file.unlink(missing_ok=True)

    def release(self) -> None:
        """Close the file whatever its state; the caller has removed it, or finished it, or is about to remove it."""
        import av

        if self._sound is not None:
            self._sound.close()
        with contextlib.suppress(av.FFmpegError):
            if self._container is not None:
                self._container.close()

    def _opened(self) -> VideoStream:
        import av

        if self._live:
            keep_older(self._file, self._on_event)
        # An absolute path, since a relative one with a colon would be taken for the name of a protocol.
        container = av.open(str(self._file.absolute()), mode="w", options=self._container_options())
        self._container = container
        if self._live:
            now = datetime.datetime.now(datetime.timezone.utc)
            container.metadata["creation_time"] = now.isoformat(timespec="milliseconds")
        options = LIVE_OPTIONS if self._live else None
        stream = add_h264(
            container, self._fitting.size_hw, crf=_CRF, rate=self._rate, time_base=self._base, options=options
        )
        if self._origin is not None:
            if self._origin.path.is_file():
                self._sound = Sound(self._origin, container, say=self._note)
            else:
                self._note("sound, if there is any, is left out, since a pipe can be read once only")
        return stream

    def _note(self, text: str) -> None:
        self._on_event(Event("note", self.path.name, text))

    def _container_options(self) -> dict[str, str]:
        """Return what puts the index in front, or of live video writes small complete pieces, each at once."""
        import av

        matroska = self.path.suffix.lower() == ".mkv"
        if not self._live:
            # With the index in front, a browser plays the file while it still loads. Matroska has no such option.
            return {} if matroska else {"movflags": "+faststart"}
        if matroska:
            return {"cluster_time_limit": _CLUSTER_MILLISECONDS, "flush_packets": "1"}
        # When it is closed, a hybrid file hides the fragments and becomes an ordinary one, which every player can seek
        # in.
        hybrid = "+hybrid_fragmented" if av.library_versions["libavformat"] >= _HYBRID_SINCE else ""
        return {"movflags": _FRAGMENTS + hybrid, "frag_duration": _FRAGMENT_MICROSECONDS, "flush_packets": "1"}

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        import av

        try:
            yield
        except (OSError, av.FFmpegError) as error:
            self.failed = True
            if self._live:
                kept = "; what was written before can be played" if self.frames_written else ""
                raise MediaError(
                    f"cannot record to {self.path} ({error.strerror}){kept}. Make room, or give another place"
                ) from error
            if isinstance(error, OSError):
                raise  # PyAV's own OSErrors included: the writer of whole files explains them
            raise MediaError(
                f"cannot encode {self.path}: {error.strerror}; try another suffix, such as .mp4"
            ) from error


def fine_base(rate: Fraction) -> Fraction:
    """Return a clock for video of a rate: each frame is at a whole number of it, and each other time nearly so."""
    ticks = rate.numerator
    while ticks < _TICKS_PER_SECOND:
        ticks *= 2
    return Fraction(1, ticks)


def add_h264(
    container: OutputContainer,
    size_hw: tuple[int, ...],
    *,
    crf: int,
    rate: Fraction = _NOMINAL_RATE,
    time_base: Fraction = MILLISECOND,
    options: Mapping[str, str] | None = None,
) -> VideoStream:
    """Add the stream of pictures to a container.

    Args:
        container: PyAV's, opened for writing; the caller closes it.
        size_hw: height and width of the pictures before :func:`picture_from_bgr`; odd sides grow by one.
        crf: quality of libx264; lower is better.
        rate: about as many frames a second as will come, a hint to the encoder: every frame has its own time.
        time_base: what time stamps count.
        options: more of libx264's own options.
    """
    stream: VideoStream = container.add_stream(
        "libx264", rate=rate, options={"crf": str(crf), "preset": _PRESET, **(options or {})}
    )
    stream.height, stream.width = (side + side % 2 for side in size_hw)
    stream.pix_fmt = "yuv420p"
    # Without these notes players guess the colors by the size of the picture, and guess differently.
    context: Any = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = _LIMITED_RANGE
    context.time_base = time_base
    return stream


def encode(stream: VideoStream, picture: VideoFrame | None, stamp: int = 0, *, key: bool = False) -> None:
    """Encode a picture of :func:`picture_from_bgr`, or with None write what the encoder still holds.

    Args:
        stream: of :func:`add_h264`.
        picture: the picture.
        stamp: its time stamp.
        key: makes it one that decoding can begin with.

    Raises:
        av.FFmpegError: the encoder failed, or what is written to did; often an OSError too.
    """
    from av.video.frame import PictureType

    if picture is not None:
        picture.pts, picture.time_base = stamp, stream.codec_context.time_base
        if key:
            picture.pict_type = PictureType.I
    cast("OutputContainer", stream.container).mux(stream.encode(picture))


class Stamps:
    """Time stamps that rise with the frames' own times, and which frames are key frames of live video.

    A key frame each second of time, rather than each so many frames: frames come at whatever rate the model makes them.

    Args:
        time_base: what they count, in seconds.
        start_s: the frames' time that is 0; None takes the first frame's.
        step_s: how far behind the last one a frame is put whose time does not rise; None puts it at the next stamp.
    """

    def __init__(
        self, time_base: Fraction = MILLISECOND, *, start_s: float | None = None, step_s: float | None = None
    ) -> None:
        self._base = time_base
        self._start_s = start_s
        self._step = 1 if step_s is None else max(1, round(step_s / time_base))
        self._last, self._last_time_s = -1, -math.inf
        self._key_s = -_KEY_INTERVAL_S

    @property
    def last_s(self) -> float:
        """The last stamp, in seconds."""
        return float(self._last * self._base)

    def of(self, time_s: float) -> tuple[int, bool]:
        """Return the stamp of the frame at ``time_s`` seconds, and whether it is to be a key frame."""
        if self._start_s is None:
            self._start_s = time_s
        stamp = round((time_s - self._start_s) / self._base)
        # Stamps must rise even if two frames arrive within a tick, or a source's clock is set back.
        least = self._last + (1 if time_s > self._last_time_s else self._step)
        self._last, self._last_time_s = max(stamp, least), time_s
        key = self.last_s - self._key_s >= _KEY_INTERVAL_S
        if key:
            self._key_s = self.last_s
        return self._last, key


def keep_older(path: Path, on_event: EventHandler) -> None:
    """Give an existing file of this name another one, ``out.mp4`` -> ``out-1.mp4``, and tell of it; the first free.

    Raises:
        SfppError: it cannot be renamed.
    """
    if not path.is_file() or open_number(path) is not None:
        return
    path = ordinary_place(path)  # the file that a link leads to, and not the link
    kept = free_path(path, first=1)
    try:
        path.rename(kept)
    except OSError as error:
        raise SfppError(
            f"cannot rename the older file {path} to {kept.name} ({error.strerror}); move it away"
        ) from error
    on_event(Event("note", path.name, f"the older file of this name is {kept.name} now"))
