"""H.264 files that can be played whenever writing stops, even by a crash."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError
from sfpp.runtime.files import ordinary_place
from sfpp.runtime.images import bgr_from_frame
from sfpp.runtime.video.encoder import DEFAULT_CRF, MILLISECOND, H264Stream
from sfpp.runtime.video.events import EventHandler, ignore
from sfpp.runtime.video.frames import Frame
from sfpp.runtime.video.outlets.fitting import FirstSize
from sfpp.runtime.video.outlets.live_encoding import LIVE_OPTIONS, LiveStamps
from sfpp.runtime.video.outlets.older_files import keep_older
from sfpp.runtime.video.pyav import import_av, picture_from_bgr

_FRAGMENTS = "frag_keyframe+empty_moov+default_base_moof"
_FRAGMENT_MICROSECONDS = "250000"
_CLUSTER_MILLISECONDS = "250"
_HYBRID_SINCE = (61, 7)  # libavformat of FFmpeg 7.1


@contextlib.contextmanager
def recording_sink(path: Path, *, crf: int = DEFAULT_CRF, on_event: EventHandler = ignore) -> Iterator[Recording]:
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
        crf: quality of libx264; 18 cannot be told from the original, 23 is its default, 6 more halve the size.
        on_event: told of changes of size, and of an older file's new name.

    Raises:
        MissingDependencyError: PyAV is not installed.
        SfppError: the folder does not exist, the disk is full, or the encoder failed.
    """
    import_av(purpose=f"writing {path.name}")
    # In place and not in one step, so a link has to be followed here, and what is no file cannot be one that grows.
    recording = Recording(ordinary_place(path), crf=crf, on_event=on_event)
    try:
        yield recording
    except BaseException:
        with contextlib.suppress(MediaError):
            recording.close()
        raise
    recording.close()


class Recording:
    """Encodes frames into a file in pieces that are complete in themselves; use it through :func:`recording_sink`."""

    def __init__(self, path: Path, *, crf: int, on_event: EventHandler) -> None:
        self.path = path
        self.frames_written = 0
        self._crf = crf
        self._on_event = on_event
        self._fitting = FirstSize(path.name, on_event)
        self._stamps = LiveStamps()
        self._container: Any = None
        self._stream: H264Stream | None = None

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Encode ``image``, (H, W, 3) uint8 BGR; it is in the file with the first frame that is 0.25 s younger.

        Raises:
            MediaError: the disk is full, or the encoder failed; what was written before can be played.
        """
        fitted = self._fitting.fit(bgr_from_frame(image))
        if self._stream is None:
            keep_older(self.path, self._on_event)
        with self._errors_named():
            if self._stream is None:
                self._stream = self._open()
            stamp_ms, key = self._stamps.of(frame.time_s)
            self._stream.write(picture_from_bgr(fitted), stamp_ms, key=key)
        self.frames_written += 1

    def close(self) -> None:
        """Complete the file.

        Raises:
            MediaError: the disk is full; what was written before can be played.
        """
        container, stream = self._container, self._stream
        self._container = None
        if container is None:
            return
        with self._errors_named():
            try:
                if stream is not None:
                    stream.finish()
            finally:
                container.close()
                if not self.frames_written:
                    self.path.unlink(missing_ok=True)

    def _open(self) -> H264Stream:
        import av

        # An absolute path, since a relative one with a colon would be taken for the name of a protocol.
        self._container = av.open(str(self.path.absolute()), mode="w", options=_options(self.path.suffix.lower()))
        now = datetime.datetime.now(datetime.timezone.utc)
        self._container.metadata["creation_time"] = now.isoformat(timespec="milliseconds")
        return H264Stream(
            self._container,
            self._fitting.size_hw,
            time_base=MILLISECOND,
            rate=None,
            crf=self._crf,
            options=LIVE_OPTIONS,
        )

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        import av

        try:
            yield
        except (OSError, av.FFmpegError) as error:
            kept = "; what was written before can be played" if self.frames_written else ""
            raise MediaError(
                f"cannot record to {self.path} ({error.strerror}){kept}. Make room, or give another place"
            ) from error


def _options(suffix: str) -> dict[str, str]:
    """Return what makes the container write small complete pieces, each at once."""
    import av

    if suffix == ".mkv":
        return {"cluster_time_limit": _CLUSTER_MILLISECONDS, "flush_packets": "1"}
    # When it is closed, a hybrid file hides the fragments and becomes an ordinary one, which every player can seek in.
    hybrid = "+hybrid_fragmented" if av.library_versions["libavformat"] >= _HYBRID_SINCE else ""
    return {"movflags": _FRAGMENTS + hybrid, "frag_duration": _FRAGMENT_MICROSECONDS, "flush_packets": "1"}
