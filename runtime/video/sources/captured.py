"""What OpenCV captures from a GStreamer pipeline: the form of the pixels, which its caps say, and BGR made of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.contract import Matrix
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.pixels.nv12 import bgr_from_nv12, bgr_from_planes, usual_matrix

Bytes = NDArray[np.uint8]
# By GStreamer's names: OpenCV's conversion, how many times as many rows as the picture an array has, and its channels.
_CONVERSIONS = {
    "BGR": ("", 1, 3),
    "BGRx": ("COLOR_BGRA2BGR", 1, 4),
    "BGRA": ("COLOR_BGRA2BGR", 1, 4),
    "RGBx": ("COLOR_RGBA2BGR", 1, 4),
    "RGBA": ("COLOR_RGBA2BGR", 1, 4),
    "GRAY8": ("COLOR_GRAY2BGR", 1, 1),
    "NV12": ("COLOR_YUV2BGR_NV12", 1.5, 1),
    "NV21": ("COLOR_YUV2BGR_NV21", 1.5, 1),
    "I420": ("COLOR_YUV2BGR_I420", 1.5, 1),
    "YV12": ("COLOR_YUV2BGR_YV12", 1.5, 1),
    "YUY2": ("COLOR_YUV2BGR_YUY2", 1, 2),
    "UYVY": ("COLOR_YUV2BGR_UYVY", 1, 2),
    "YVYU": ("COLOR_YUV2BGR_YVYU", 1, 2),
}
_PACKED = {"YUY2": (0, 1, 3), "UYVY": (1, 0, 2), "YVYU": (0, 3, 1)}  # where Y, U and V are in the bytes of two pixels
_FIELD = r"\b{}\s*=\s*(?:\(\w+\)\s*)?[\"']?([\w:-]+)"
_FORMAT, _COLORIMETRY = (re.compile(_FIELD.format(name)) for name in ("format", "colorimetry"))
_RAW = re.compile(r"(?:^|\bcaps\s*=)\s*[\"']?\s*video/x-raw\b(?!\s*\(\s*memory:NVMM)")
# What passes pictures on as they are.
_PASSING = re.compile(r"\s*(?:queue2?|identity|tee|videorate|capsfilter)\b")
_ADVICE = "write video/x-raw,format=NV12 or format=BGR directly before the appsink"


@dataclass(frozen=True)
class CapturedFormat:
    """The form of a pipeline's pictures.

    ``name`` is GStreamer's, and empty where its caps do not say it; ``matrix`` that of YUV, None where it is guessed by
    the size.
    """

    name: str = ""
    matrix: Matrix | None = None

    @property
    def is_known(self) -> bool:
        """Whether caps say it."""
        return bool(self.name)

    def to_bgr(self, image: Bytes, height: int = 0) -> Bytes:
        """Return (H, W, 3) BGR of what OpenCV gives.

        Args:
            image: (H, W), (H * 3 / 2, W) or (H, W, 2, 3 or 4) uint8.
            height: the pictures', in pixels; 0 where it is not known.

        Raises:
            MediaError: the array has another form than the caps say, or one that does not tell what it is.
        """
        channels = 1 if image.ndim == 2 else image.shape[2]
        name = self.name or {4: "BGRx", 3: "BGR", 1: "GRAY8"}.get(channels, "")
        conversion, rows, expected = _CONVERSIONS.get(name, ("", 1, 0))
        fits = channels == expected and image.size > 0 and image.dtype == np.uint8
        if "YUV" in conversion:  # two pixels share a color, and with 1.5 times as many rows two by two
            fits = fits and not image.shape[1] % 2 and (rows == 1 or not image.shape[0] % 3)
        if not fits or (height and image.shape[0] != height * rows):
            said = f"its caps say {self.name}" if self.name else "its caps do not say what that is"
            raise MediaError(f"the pipeline gives {image.dtype} of shape {image.shape}, and {said}; {_ADVICE}")
        if not conversion:
            return image
        if expected == 1:
            image = image.reshape(image.shape[:2])
        if "YUV" in conversion and self._matrix(image, rows) == "bt709":
            return _bgr_in_bt709(image, name)
        cv2 = import_cv2(purpose=f"converting {name}")
        converted: Bytes = cv2.cvtColor(image, getattr(cv2, conversion))
        return converted

    def _matrix(self, image: Bytes, rows: float) -> Matrix:
        return self.matrix or usual_matrix((int(image.shape[0] / rows), image.shape[1]))


def captured_format(pipeline: str) -> CapturedFormat:
    """Return the form that a pipeline's last caps say, where nothing behind them may change it.

    Raises:
        UsageError: a form or a colorimetry that is not known here.
    """
    parts = [part.strip() for part in pipeline.split("!")]
    for part in reversed(parts):
        caps = _RAW.search(part)
        if caps is not None or (part.startswith("appsink") and "caps" in part):
            return _format_of(part)
        if not part.startswith("appsink") and not _PASSING.match(part):
            break
    return CapturedFormat()


def _format_of(caps: str) -> CapturedFormat:
    found, colors = _FORMAT.search(caps), _COLORIMETRY.search(caps)
    if found is None or ";" in caps:  # of several alternatives nobody knows which one it became
        return CapturedFormat()
    name, colorimetry = found.group(1), colors.group(1) if colors else None
    if name not in _CONVERSIONS:
        raise UsageError(f"the pipeline gives {name}, expected one of {', '.join(_CONVERSIONS)}; {_ADVICE}")
    is_yuv = "YUV" in _CONVERSIONS[name][0]
    if is_yuv and colorimetry is not None and colorimetry not in get_args(Matrix):
        raise UsageError(
            f"the pipeline gives {name} in the colorimetry {colorimetry}, expected bt601 or bt709; let GStreamer "
            "convert it: write videoconvert ! video/x-raw,format=BGR before the appsink"
        )
    matrix: Any = colorimetry if is_yuv else None
    return CapturedFormat(name, matrix)


def _bgr_in_bt709(image: Bytes, name: str) -> Bytes:
    if name in _PACKED:
        of_luma, of_u, of_v = _PACKED[name]
        pairs = image.reshape(image.shape[0], -1, 4)
        return bgr_from_planes(image[..., of_luma % 2], pairs[..., of_u], pairs[..., of_v], "bt709")
    if name == "NV12":
        return bgr_from_nv12(image, "bt709")
    height, width = image.shape[0] * 2 // 3, image.shape[1]
    if name == "NV21":
        pairs = image[height:].reshape(height // 2, -1, 2)
        return bgr_from_planes(image[:height], pairs[..., 1], pairs[..., 0], "bt709")
    first, second = image[height:].reshape(2, height // 2, width // 2)
    u, v = (first, second) if name == "I420" else (second, first)
    return bgr_from_planes(image[:height], u, v, "bt709")
