"""From a frame to a model's input and back: the only home of pre-processing.

Calibration and benchmarks prepare frames through this module too; a second copy of these rules would sooner or later
differ and spoil accuracy in silence.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.contract import InputSpec, Interpolation, Matrix
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.pixels.nv12 import bgr_from_nv12, nv12_from_bgr, size_of_nv12

Image = NDArray[np.uint8]

_PURPOSE = "preparing images"
# Rows that are resized by one product of matrices: more would multiply by more zeros, fewer would read pixels anew.
_ROWS_AT_ONCE = 4


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in the model's input, in model pixels: ``height`` x ``width`` at ``top``, ``left``."""

    frame_size_hw: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    @property
    def scale_yx(self) -> tuple[float, float]:
        """Model pixels per frame pixel, down and across."""
        return self.height / self.frame_size_hw[0], self.width / self.frame_size_hw[1]

    def region(
        self, cells_hw: tuple[int, int], *, model_size_hw: tuple[int, int], align_corners: bool = False
    ) -> tuple[float, float, float, float]:
        """Return the frame's (top, left, height, width) in cells of an output of size ``cells_hw``.

        With ``align_corners`` from the center of its first pixel to that of its last one, where the center of the
        output's first cell lies at 0 and on that of the input's first pixel, and the last ones on each other, too.
        """
        # The ratio of sizes rather than the stride: they differ where the stride does not divide the input, and
        # training upsamples by the ratio.
        less = 1 if align_corners else 0
        per_row, per_column = (
            (cells - less) / max(1, size - less) for cells, size in zip(cells_hw, model_size_hw, strict=True)
        )
        height, width = self.height - less, self.width - less
        return self.top * per_row, self.left * per_column, height * per_row, width * per_column


def place_frame(frame_size_hw: tuple[int, int], spec: InputSpec) -> Placement:
    """Decide where a frame of ``frame_size_hw`` goes in the model's input.

    ``letterbox`` keeps the aspect ratio and centers the frame, ``pad`` puts it into the upper left corner; ``stretch``
    fills the input.

    Raises:
        MediaError: the frame is empty.
    """
    if min(frame_size_hw) < 1:
        raise MediaError(f"the frame is empty: {frame_size_hw[0]}x{frame_size_hw[1]} (height x width)")
    if spec.resize == "stretch":
        return Placement(frame_size_hw, top=0, left=0, height=spec.height, width=spec.width)
    scale = min(spec.height / frame_size_hw[0], spec.width / frame_size_hw[1])
    height, width = (
        min(limit, max(1, round(side * scale))) for side, limit in zip(frame_size_hw, spec.size_hw, strict=True)
    )
    top, left = (0, 0) if spec.resize == "pad" else ((spec.height - height) // 2, (spec.width - width) // 2)
    return Placement(frame_size_hw, top=top, left=left, height=height, width=width)


def input_from_frame(
    frame_bgr: NDArray[Any], spec: InputSpec, out: NDArray[Any] | None = None
) -> tuple[NDArray[Any], Placement]:
    """Make the model's input from one frame.

    Args:
        frame_bgr: (H, W, 3) uint8 BGR, or (H, W) grey, or (H, W, 4) BGRA; any memory layout. For a spec with a matrix,
            two dimensions are no grey but NV12, (H * 3 / 2, W) uint8.
        spec: what the model takes.
        out: where to make it, contiguous; None makes a new array.

    Returns:
        (1, height, width, 3) or (1, 3, height, width), of a model of one channel (1, 1, height, width), in the spec's
        type and color order: uint8 or float32 in 0..255, or float32 normalized to (x - mean) / std when the graph does
        not do that itself; or NV12, (1, height * 3 / 2, width) uint8, which for a frame of NV12 of the model's size is
        the frame itself. And where the frame lies.

    Raises:
        MediaError: not an image of one of these kinds.
        UsageError: the model takes channels that a frame does not have.
    """
    require_frames(spec)
    if spec.matrix is not None:
        return _input_by_nv12(frame_bgr, spec, spec.matrix, out)
    image = bgr_from_frame(frame_bgr)
    height, width = image.shape[:2]
    placement = place_frame((height, width), spec)
    made = np.empty((1, *spec.shape[1:]), spec.dtype) if out is None else out
    # One picture of the input's size, its channels last; of one channel without an axis for it.
    channels_last = made[0] if spec.layout == "NHWC" else made[0].transpose(1, 2, 0)
    target = channels_last[..., 0] if spec.channels == 1 else channels_last
    resized = _resized(image, placement, spec.interpolation)
    if spec.dtype == "uint8" and target.flags.c_contiguous:
        _place(resized, placement, spec, target)
    else:
        pixels = np.empty(target.shape, np.uint8)
        _place(resized, placement, spec, pixels)
        _write_values(pixels, spec, target)
    return made, placement


def bgr_for(frame: NDArray[Any], spec: InputSpec) -> Image:
    """Return :func:`bgr_from_frame`, or for a spec with a matrix that of NV12, (H * 3 / 2, W) uint8.

    Raises:
        MediaError: not an image of these kinds.
    """
    if spec.matrix is None or not isinstance(frame, np.ndarray) or frame.ndim != 2:
        return bgr_from_frame(frame)
    size_of_nv12(frame)
    return bgr_from_nv12(frame, spec.matrix)


def _input_by_nv12(
    frame: NDArray[Any], spec: InputSpec, matrix: Matrix, out: NDArray[Any] | None
) -> tuple[NDArray[Any], Placement]:
    """Make an input whose colors are NV12's, whatever its layout, as :func:`input_from_frame`."""
    if isinstance(frame, np.ndarray) and frame.ndim == 2:
        placement = _even(place_frame(size_of_nv12(frame), spec))
        planes = _placed_nv12(frame, placement, spec, matrix)
    else:
        image = bgr_from_frame(frame)
        placement = place_frame((image.shape[0], image.shape[1]), spec)
        resized = _resized(image, placement, spec.interpolation)
        planes = nv12_from_bgr(padded(resized, placement, spec.size_hw, color=_mean_bgr(spec)), matrix)
    if spec.layout != "NV12":
        plain = dataclasses.replace(spec, matrix=None)
        return input_from_frame(bgr_from_nv12(planes, matrix), plain, out)[0], placement
    if out is None:
        return planes[np.newaxis], placement
    out[0] = planes
    return out, placement


def _even(placement: Placement) -> Placement:
    """Return the nearest place that begins and ends between colors, of which NV12 has one for two by two pixels."""
    top, left, height, width = (
        side // 2 * 2 for side in (placement.top, placement.left, placement.height + 1, placement.width + 1)
    )
    return Placement(placement.frame_size_hw, top=top, left=left, height=height, width=width)


def _placed_nv12(frame: Image, placement: Placement, spec: InputSpec, matrix: Matrix) -> Image:
    """Return NV12 of the spec's size with a frame of NV12 in its place, resized plane by plane."""
    height, width = placement.frame_size_hw
    if (height, width) == spec.size_hw:
        return np.ascontiguousarray(frame)
    luma = _resized(frame[:height], placement, spec.interpolation)
    pairs = np.ascontiguousarray(frame[height:]).reshape(height // 2, width // 2, 2)
    half = Placement((height // 2, width // 2), *(side // 2 for side in dataclasses.astuple(placement)[1:]))
    chroma = _resized(pairs, half, spec.interpolation)
    if (placement.height, placement.width) == spec.size_hw:
        return np.concatenate([luma, chroma.reshape(-1, spec.width)])
    empty = nv12_from_bgr(np.full((2, 2, 3), _mean_bgr(spec), np.uint8), matrix)
    rows = padded(luma, placement, spec.size_hw, color=empty[0, 0])
    colors = padded(chroma, half, (spec.height // 2, spec.width // 2), color=empty[2])
    return np.concatenate([rows, colors.reshape(-1, spec.width)])


def _mean_bgr(spec: InputSpec) -> Image:
    """Return the color that normalizes to about 0, (3,) uint8 BGR."""
    mean = _mean_color(spec)
    return mean if spec.color_order == "BGR" else mean[::-1]


def _mean_color(spec: InputSpec) -> Image:
    """Return the color that normalizes to about 0, where to the network nothing is, in the spec's channels."""
    color: Image = np.clip(np.rint(spec.mean), 0, 255).astype(np.uint8)
    return color


def takes_frames(spec: InputSpec) -> bool:
    """Whether a model's input can be made of frames: it has three channels, or one, which is fed their grey."""
    return spec.channels in (1, 3)


def require_frames(spec: InputSpec) -> None:
    """Raise unless a model's input can be made of frames.

    Raises:
        UsageError: it cannot.
    """
    if not takes_frames(spec):
        shape = "x".join(map(str, spec.shape))
        raise UsageError(
            f"the model takes {spec.channels} channels, and frames have the three of a color or one of grey: feed it "
            f"from a program of your own, {shape} float32, with model.infer (docs/model-file.md)"
        )


def batch_from_frames(
    frames_bgr: Sequence[NDArray[Any]], spec: InputSpec, out: NDArray[Any] | None = None
) -> tuple[NDArray[Any], tuple[Placement, ...]]:
    """Make one batch from 1 to ``spec.batch`` frames, filled up by repeating the last one where it is fixed.

    Args:
        frames_bgr: as for :func:`input_from_frame`, each of its own size.
        spec: what the model takes.
        out: where to make it, contiguous and of the batch's shape and type, such as memory that a backend lends; None
            makes a new array.

    Returns:
        The array in ``spec.shape``, with an open batch of as many rows as frames, and one placement for each frame.

    Raises:
        UsageError: no frame, or more frames than the batch holds.
        MediaError: a frame is not an image.
    """
    if not 1 <= len(frames_bgr) <= spec.batch:
        raise UsageError(f"{len(frames_bgr)} frames given, but the model takes 1 to {spec.batch} at a time")
    require_frames(spec)
    rows = spec.rows(len(frames_bgr))
    batch = np.empty((rows, *spec.shape[1:]), spec.dtype) if out is None else out
    made = (input_from_frame(frame, spec, batch[row : row + 1]) for row, frame in enumerate(frames_bgr))
    placements = tuple(placement for _, placement in made)
    batch[len(placements) :] = batch[len(placements) - 1]
    return batch, placements


def bgr_from_frame(frame: NDArray[Any]) -> Image:
    """Return (H, W, 3) uint8 BGR, contiguous, from BGR, grey (H, W) or BGRA (whose alpha is dropped).

    Raises:
        MediaError: another shape or type, or an empty frame.
    """
    if isinstance(frame, str | os.PathLike):
        name = os.fspath(frame)
        raise MediaError(
            f"the frame is the name {name!r}, expected its pixels; read an image with sfpp.read_image({name!r}), or "
            f"take the frames of a video from model.stream({name!r})"
        )
    if isinstance(frame, list | tuple) and any(isinstance(each, np.ndarray) for each in frame):
        raise MediaError(
            f"the frame is a {type(frame).__name__} of {len(frame)}, expected one frame; call the model for each of "
            "them, or take the frames of files and cameras from model.stream(...)"
        )
    kind = f"{type(frame).__name__} of shape {getattr(frame, 'shape', None)} and type {getattr(frame, 'dtype', None)}"
    expected = "expected (H, W, 3) BGR, (H, W, 4) BGRA or (H, W) grey in uint8, 0..255"
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        raise MediaError(f"the frame is a {kind}; {expected}")
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] not in (3, 4)) or frame.size == 0:
        raise MediaError(f"the frame is a {kind}; {expected}, with at least one pixel")
    image: Image = np.ascontiguousarray(frame)  # flipped and cropped views are common; backends want one block
    if frame.ndim == 3 and frame.shape[2] == 3:
        return image
    cv2 = import_cv2(purpose=_PURPOSE)
    converted: Image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if frame.ndim == 2 else cv2.COLOR_BGRA2BGR)
    return converted


def _resized(image: Image, placement: Placement, interpolation: Interpolation) -> Image:
    size_hw = placement.height, placement.width
    if size_hw == placement.frame_size_hw:
        return image
    if interpolation == "antialias":
        return _antialiased(image, size_hw)
    cv2 = import_cv2(purpose=_PURPOSE)
    # Linear interpolation reads 2x2 pixels: from half the size on it skips some, and fine structure turns into
    # aliasing. Area averaging reads all of them, but is blocky when it enlarges and no better in between.
    averages = interpolation == "area" and max(placement.scale_yx) <= 0.5
    filter_kind = cv2.INTER_AREA if averages else cv2.INTER_LINEAR
    resized: Image = cv2.resize(image, size_hw[::-1], interpolation=filter_kind)
    return resized


def _antialiased(image: Image, size_hw: tuple[int, int]) -> Image:
    """Resize (H, W, 3) to the bit as Pillow's BILINEAR does: across, then down, each rounded to uint8."""
    if image.shape[1] != size_hw[1]:
        cv2 = import_cv2(purpose=_PURPOSE)
        # Turned, since a row is one block of memory and a column is not.
        image = cv2.transpose(_with_rows(cv2.transpose(image), size_hw[1]))
    return image if image.shape[0] == size_hw[0] else _with_rows(image, size_hw[0])


def _with_rows(image: Image, count: int) -> Image:
    flat = image.reshape(len(image), -1)
    resized = np.empty((count, flat.shape[1]), np.uint8)
    start = 0
    for first, weights in _triangles(len(image), count):
        # In float64 these sums are exact, in whatever order: 22 bits of a weight, 8 of a pixel.
        sums = weights @ flat[first : first + weights.shape[1]].astype(np.float64)
        sums += 0.5
        resized[start : start + len(weights)] = sums
        start += len(weights)
    return resized.reshape(count, *image.shape[1:])


@functools.lru_cache(maxsize=8)  # of a video each frame needs the same two
def _triangles(size: int, count: int) -> tuple[tuple[int, NDArray[np.float64]], ...]:
    """Return the weights by which ``size`` rows become ``count``, some new rows at a time.

    A row weighs less the farther it is from the new one's center, and nothing from one new row, or one old one where
    there are fewer, on. Weights are rounded to 22 bits behind the point, as Pillow does.

    Returns:
        For every few new rows the first old row that they are made of, and their weights, (new rows, old rows).
    """
    scale = size / count
    reach = max(scale, 1.0)
    centers = (np.arange(count) + 0.5) * scale
    lowest = np.maximum(0, centers - reach + 0.5).astype(int)
    behind = np.minimum(size, centers + reach + 0.5).astype(int)
    blocks = []
    for start in range(0, count, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        first, end = int(lowest[part][0]), int(behind[part][-1])
        rows = np.arange(first, end)
        within = (rows >= lowest[part, np.newaxis]) & (rows < behind[part, np.newaxis])
        weights = np.where(within, np.maximum(0, 1 - np.abs(rows - centers[part, np.newaxis] + 0.5) / reach), 0)
        weights /= weights.sum(axis=1, keepdims=True)
        blocks.append((first, np.floor(weights * 2**22 + 0.5) / 2**22))
    return tuple(blocks)


def _place(image_bgr: Image, placement: Placement, spec: InputSpec, target: Image) -> None:
    """Fill a picture of the model's size with a frame at its place: in the spec's color order, or (H, W) grey."""
    place = target[placement.top :, placement.left :][: placement.height, : placement.width]
    if place.shape != target.shape:
        # The mean color normalizes to about 0: to the network, nothing is there.
        target[...] = _mean_color(spec)
    if spec.color_order == "BGR" and spec.channels == 3:
        place[...] = image_bgr
        return
    cv2 = import_cv2(purpose=_PURPOSE)
    # 15 times faster than a copy of [..., ::-1] at 4K; and straight to its place.
    cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB if spec.channels == 3 else cv2.COLOR_BGR2GRAY, dst=place)


def padded(image: Image, placement: Placement, size_hw: tuple[int, int], *, color: int | Image) -> Image:
    """Return an image, (h, w[, channels]) uint8, at its place in one of ``size_hw`` that is else of one color."""
    if image.shape[:2] == size_hw:
        return image
    canvas = np.full((*size_hw, *image.shape[2:]), color, np.uint8)
    canvas[placement.top :, placement.left :][: placement.height, : placement.width] = image
    return canvas


def _write_values(image: Image, spec: InputSpec, target: NDArray[Any]) -> None:
    if spec.dtype == "uint8" or spec.normalized_in_graph:
        target[...] = image
        return
    # A channel has 256 values, so a table gives the same floats without arithmetic on every pixel.
    table = (np.arange(256.0)[:, np.newaxis] - spec.mean) / spec.std
    cv2 = import_cv2(purpose=_PURPOSE)
    floats = table.astype(np.float32)[np.newaxis]
    if target.flags.c_contiguous:
        cv2.LUT(image, floats, dst=target)
    else:
        target[...] = cv2.LUT(image, floats)


def with_even_sides(image: Image) -> Image:
    """Return (H, W, 3) with an odd side grown by its last row or column; nothing is cut off.

    YUV 4:2:0 keeps one color for two by two pixels, so both sides must be even.
    """
    rows, columns = image.shape[0] % 2, image.shape[1] % 2
    if not rows and not columns:
        return np.ascontiguousarray(image)
    return np.pad(image, ((0, rows), (0, columns), (0, 0)), mode="edge")
