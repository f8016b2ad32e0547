"""Frames from a video file through OpenCV: for devices whose system OpenCV is the only decoder."""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import Any

from sfpp.runtime.errors import MediaError
from sfpp.runtime.opencv import cv2_text, import_cv2
from sfpp.runtime.video.frames import Decoded, Source

_FALLBACK_RATE = Fraction(25)
_LARGEST_DENOMINATOR = 1001  # that of the NTSC rates: 30000/1001, 24000/1001


def open_video_with_opencv(path: Path) -> Source:
    """Open a video file; OpenCV turns the frames upright itself.

    Raises:
        MediaError: the file is no video that this OpenCV decodes.
        MissingDependencyError: OpenCV is not installed.
    """
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
    rate = Fraction(reported).limit_denominator(_LARGEST_DENOMINATOR) if 0 < reported <= 1000 else _FALLBACK_RATE
    # Some backends report a negative number for "unknown".
    count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))) or None
    warnings: list[str] = []
    frames = _decode(capture, path, rate=rate, count=count, warnings=warnings)
    return Source(
        frames,
        kind="video",
        name=path.stem,
        frames_per_second=rate,
        count=count,
        paths=(path,),
        warnings=warnings,
    )


def _decode(
    capture: Any, path: Path, *, rate: Fraction, count: int | None, warnings: list[str]
) -> Generator[Decoded, None, None]:
    """Yield to the end. OpenCV says only that there is no next frame, not why."""
    index = 0
    try:
        while True:
            arrived, image_bgr = capture.read()
            if not arrived:
                break
            yield Decoded(image_bgr, float(index / rate), f"{path.stem}-{index:06d}")
            index += 1
        # The count is computed from duration and rate, so the last frame or two may never have existed.
        if count is not None and index < count - 2:
            warnings.append(f"{path.name}: the video breaks off after {index} of {count} frames; kept what was decoded")
    finally:
        capture.release()
