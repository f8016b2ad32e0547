"""Colors between BGR and NV12, the form in which cameras and decoders give frames.

An NV12 frame is (H * 3 / 2, W) uint8: H rows of luma, then H / 2 rows in which U and V take turns, one of each for two
by two pixels. Values are of limited range: luma 16..235, U and V around 128.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.contract import Matrix
from sfpp.runtime.errors import MediaError
from sfpp.runtime.imports import import_cv2

Bytes = NDArray[np.uint8]
BITS = 20  # behind the point in the numbers of FixedPoint
LEAST_LUMA = 16
_HD_WIDTH, _SD_HEIGHT = 1280, 576  # from this width on, and above this height, video is usually BT.709
_PURPOSE = "converting NV12"


class FixedPoint(NamedTuple):
    """How a color is computed: ``(luma * max(Y, 16) + u * U + v * V + constant) >> BITS``, cut to 0..255.

    ``u``, ``v`` and ``constant`` are of red, green and blue.
    """

    luma: int
    u: tuple[int, int, int]
    v: tuple[int, int, int]

    @property
    def constant(self) -> tuple[int, ...]:
        """What is added: half a step, and what makes black of Y = 16 and gray of U = V = 128."""
        half = 1 << BITS - 1
        return tuple(half - LEAST_LUMA * self.luma - 128 * (u + v) for u, v in zip(self.u, self.v, strict=True))


# BT.601 in OpenCV's numbers. Those of BT.709 (ITU-R BT.709-6, sections 3.2 to 3.4) have 12 bits behind the point, so
# that float32 computes them exactly, too.
FIXED_POINT: dict[Matrix, FixedPoint] = {
    "bt601": FixedPoint(1220542, (0, -409993, 2116026), (1673527, -852492, 0)),
    "bt709": FixedPoint(4769 << 8, (0, -873 << 8, 8652 << 8), (7343 << 8, -2183 << 8, 0)),
}
# The inverse for BT.709: rows of Y, U and V, of blue, green and red and a constant, from 0..255 to limited range.
_BT709_YUV = np.array(
    [[0.06201, 0.61423, 0.18259, 16.0], [0.43922, -0.33857, -0.10064, 128.0], [-0.04027, -0.39894, 0.43922, 128.0]]
)


def size_of_nv12(frame: NDArray[Any]) -> tuple[int, int]:
    """Return height and width of the picture in an NV12 frame.

    Raises:
        MediaError: it is not (H * 3 / 2, W) uint8 with even H and W.
    """
    known = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 2 and frame.size > 0
    if not known or frame.shape[0] % 3 or frame.shape[1] % 2:
        shape, kind = getattr(frame, "shape", None), getattr(frame, "dtype", type(frame).__name__)
        raise MediaError(
            f"the frame is {kind} of shape {shape}, expected NV12 in uint8, (H * 3 / 2, W) with even H and W, or a "
            "frame of colors, (H, W, 3) BGR; make a gray one that by cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)"
        )
    return frame.shape[0] * 2 // 3, frame.shape[1]


def usual_matrix(size_hw: tuple[int, int]) -> Matrix:
    """Return how the colors of video are coded that does not say it, as players guess it: by the size."""
    return "bt709" if size_hw[1] >= _HD_WIDTH or size_hw[0] > _SD_HEIGHT else "bt601"


def bgr_from_nv12(frame: Bytes, matrix: Matrix) -> Bytes:
    """Return (H, W, 3) uint8 BGR: :data:`FIXED_POINT`'s arithmetic, where each U and V holds for two by two pixels."""
    cv2 = import_cv2(purpose=_PURPOSE)
    if matrix == "bt601":
        known: Bytes = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_YUV2BGR_NV12)
        return known
    height, _ = size_of_nv12(frame)
    pairs = frame[height:].reshape(height // 2, -1, 2)
    return bgr_from_planes(frame[:height], pairs[..., 0], pairs[..., 1], matrix)


def bgr_from_planes(luma: Bytes, u: Bytes, v: Bytes, matrix: Matrix) -> Bytes:
    """Return (H, W, 3) uint8 BGR by :data:`FIXED_POINT`'s arithmetic from (H, W) luma and smaller planes of U and V."""
    cv2 = import_cv2(purpose=_PURPOSE)
    numbers, unit = FIXED_POINT[matrix], 1 << BITS
    table = np.maximum(np.arange(256), LEAST_LUMA) * (numbers.luma / unit)
    brightness = cv2.LUT(np.ascontiguousarray(luma), table.astype(np.float32))
    u, v = u.astype(np.float32), v.astype(np.float32)
    planes = []
    for of_u, of_v, constant in zip(numbers.u, numbers.v, numbers.constant, strict=True):
        # OpenCV rounds, which is to cut what has half a step added; and a tie, to the even number.
        shift = (constant - (unit >> 1) + (unit >> 14)) / unit
        color = u * np.float32(of_u / unit) + v * np.float32(of_v / unit) + np.float32(shift)
        color = cv2.resize(color, luma.shape[::-1], interpolation=cv2.INTER_NEAREST)
        planes.append(cv2.add(brightness, color, dtype=cv2.CV_8U))
    image: Bytes = cv2.merge(planes[::-1])
    return image


def nv12_from_bgr(image_bgr: Bytes, matrix: Matrix) -> Bytes:
    """Return (H * 3 / 2, W) uint8 from (H, W, 3) BGR with even sides."""
    cv2 = import_cv2(purpose=_PURPOSE)
    height, width = image_bgr.shape[:2]
    frame = np.empty((height * 3 // 2, width), np.uint8)
    chroma = frame[height:].reshape(height // 2, width // 2, 2)
    if matrix == "bt601":
        planar = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2YUV_I420)
        frame[:height] = planar[:height]
        cv2.merge(list(planar[height:].reshape(2, height // 2, width // 2)), dst=chroma)
        return frame
    luma, u, v = cv2.split(cv2.transform(image_bgr, _BT709_YUV))
    frame[:height] = luma
    half = (width // 2, height // 2)
    cv2.merge([cv2.resize(each, half, interpolation=cv2.INTER_AREA) for each in (u, v)], dst=chroma)
    return frame
