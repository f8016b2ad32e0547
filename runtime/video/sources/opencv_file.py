"""Frames from a video file through OpenCV, where PyAV is not installed."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from sfpp.runtime.errors import MediaError
from sfpp.runtime.images import Image
from sfpp.runtime.imports import cv2_text, import_cv2
from sfpp.runtime.video.frame import Picture, Source
from sfpp.runtime.video.pyav import FALLBACK_RATE, HIGHEST_RATE, turned
from sfpp.runtime.video.sources.video_file import Tally, video_source

_LARGEST_DENOMINATOR = 1001  # that of the NTSC rates: 30000/1001, 24000/1001
_NOTE = (
    "read by OpenCV, since PyAV is not installed: sound, interlacing and high dynamic range are not looked at; "
    "pip install 'sfpp[video]'"
)


def open_video_with_opencv(path: Path) -> Source:
    """Open a video file, and say once what OpenCV does not look at. Raises as :func:`.open_source`."""
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
    tally = Tally(path.name, rate=rate, declared_count=count, declared_s=declared_s)
    return video_source(path, _pictures(capture, display_matrix(path)), tally, close=capture.release)


def _pictures(capture: Any, matrix: bytes | None) -> Iterator[Picture]:
    """Yield pictures upright and in square pixels, with the file's times where this OpenCV tells them.

    OpenCV says only that there is no next frame, not why.
    """
    cv2 = import_cv2(purpose="reading videos")
    # OpenCV knows turns, not in every version, and no mirroring.
    turns = matrix is not None and capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    aspect = capture.get(cv2.CAP_PROP_SAR_NUM) / (capture.get(cv2.CAP_PROP_SAR_DEN) or 1.0) or 1.0
    last_s = -1.0
    for number in itertools.count():
        arrived, image_bgr = capture.read()
        if not arrived:
            return
        height, width = image_bgr.shape[:2]
        size_wh = round(width * max(aspect, 1)), round(height / min(aspect, 1))
        image: Image = image_bgr if size_wh == (width, height) else cv2.resize(image_bgr, size_wh)
        time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        stamp_s, last_s = (time_s if time_s > last_s else None), time_s
        yield Picture(turned(image, matrix) if turns else image, stamp_s, note=None if number else _NOTE)


def display_matrix(path: Path) -> bytes | None:
    """Return the display matrix of an MP4 or MOV file's first video track, in this machine's byte order; None without.

    Nine 32-bit numbers, as FFmpeg has them: a, b, u, c, d, v, x, y, w.
    """
    with path.open("rb") as file:
        for track in _boxes(file, (0, path.stat().st_size), b"moov", b"trak"):
            header = next(_boxes(file, track, b"tkhd"), None)
            kinds = (_bytes(file, begin + 8, 4) for begin, _ in _boxes(file, track, b"mdia", b"hdlr"))
            if header is not None and b"vide" in kinds:
                # Version 1 has three of its times in 64 bits.
                long = _bytes(file, header[0], 1) == b"\1"
                matrix = _bytes(file, header[0] + (52 if long else 40), 36)
                return struct.pack("=9i", *struct.unpack(">9i", matrix)) if len(matrix) == 36 else None
    return None


def _boxes(file: BinaryIO, within: tuple[int, int], *path: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the contents of boxes of a kind begin and end, within others of the kinds before it."""
    place, end = within
    while place + 8 <= end:
        size, kind = struct.unpack(">I4s", _bytes(file, place, 8))
        begin = place + 8
        if size == 1:
            size, begin = int.from_bytes(_bytes(file, place + 8, 8), "big"), place + 16
        inside = (begin, min(end, place + size) if size else end)
        if kind == path[0]:
            yield from _boxes(file, inside, *path[1:]) if path[1:] else [inside]
        if size < 8:  # the last one, or none
            return
        place += size


def _bytes(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
