"""Optical flow between neighboring frames, on the grid of a network's scores: where each cell was, how far to trust it.

Every offset is in cells, as (across, down), and points backward: what is at a cell of one frame was, or will be, at the
cell plus its offset in the other frame. Looking values up backward leaves no holes, as moving them forward would.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.images import Image
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.labels import Region

Values = NDArray[np.float32]
Picture = NDArray[np.uint8]  # gray, (h, w): what the flow needs of a frame

# The flow is solved at the grid: finer gains 0.1 to 0.3 points of mIoU for three times the time, and half of it loses
# 0.6 (CamVid, 480x360, a key frame every 4th). Wider than this only costs time; narrower nothing is left to match.
WIDEST = 240
_NARROWEST = 96
# DIS takes its coarsest picture by the width alone: of one that is much wider than high nothing is left there, and the
# process ends (OpenCV 4.14 at 128x16). So the picture of a strip is stretched, lying or standing.
_LONGEST_SHAPE = 3
_LOWEST = 24
# Of a large frame rows are left out, as long as so many stay for one of the picture. Rows, since OpenCV takes what is
# left without copying it.
_SAMPLED = 2
# Gray levels: a difference of so many between a cell and where it is said to come from keeps 1/e of the trust.
_TOLERANCE = 8.0
# Cells that are believed less than this fit nowhere. Of neighboring frames in clips 18 % do at most (CamVid; elsewhere
# 6 %), across cuts 45 % and more, and where half of the picture is another, as many.
_FITS = 0.3
_CUT = 1 / 3
_PURPOSE = "following motion"


class Step(NamedTuple):
    """The way from one frame to a neighboring one.

    ``offset`` is (h, w, 2) float32 in cells, ``belief`` (h, w) float32, 0..1: how well the two frames fit along it.
    """

    offset: Values
    belief: Values

    @property
    def is_cut(self) -> bool:
        """Whether the two frames show different scenes, in a good part of the picture at least."""
        return float(np.mean(self.belief < _FITS)) > _CUT


class Flow:
    """Optical flow of one source, by dense inverse search (DIS) as OpenCV has it.

    Args:
        cells_hw: rows and columns of the grid.
        frame_hw: height and width of the frames.
        region: where the frame lies in the grid, as :func:`sfpp.runtime.labels.labels_from_logits` takes it: with bars
            at the frame's sides it is less than the grid. None is all of it.
        align_corners: as there.
        widest: how many columns the picture has at most that the flow is solved on.
    """

    def __init__(
        self,
        cells_hw: tuple[int, int],
        frame_hw: tuple[int, int],
        region: Region | None = None,
        *,
        align_corners: bool = False,
        widest: int = WIDEST,
    ) -> None:
        self._cv2 = import_cv2(purpose=_PURPOSE)
        rows, columns = frame_hw
        less = 1.0 if align_corners else 0.0
        top, left, height, width = region or (0.0, 0.0, cells_hw[0] - less, cells_hw[1] - less)
        across = round(width + less)
        picture_width = min(max(across, _NARROWEST), widest)
        as_frame = min(round(rows * picture_width / columns), _LONGEST_SHAPE * picture_width)
        picture_height = max(_LOWEST, picture_width // _LONGEST_SHAPE, as_frame)
        self._picture_wh = picture_width, picture_height
        self._rows = _Axis(cells_hw[0], rows, picture_height, top, height, align_corners=align_corners)
        self._columns = _Axis(cells_hw[1], columns, picture_width, left, width, align_corners=align_corners)
        covered = self._rows.is_covered and self._columns.is_covered
        self._places = None if covered else np.dstack(np.meshgrid(self._columns.places, self._rows.places))
        self._solver = self._cv2.DISOpticalFlow_create(self._cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._solver.setFinestScale(0)
        # Half a millisecond of two a frame, and no better labels.
        self._solver.setUseSpatialPropagation(False)
        self._latest: Values | None = None

    def picture(self, frame_bgr: Image) -> Picture:
        """Return what the flow needs of a frame, (H, W, 3) uint8 BGR."""
        cv2 = self._cv2
        step = max(1, frame_bgr.shape[0] // (_SAMPLED * self._picture_wh[1]))
        some = frame_bgr[step // 2 :: step]
        small = cv2.resize(some, self._picture_wh, interpolation=self._way(some, self._picture_wh))
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)

    def back(self, now: Picture, before: Picture) -> Step:
        """Return the way from a frame back to the one before."""
        return self.both(now, before, forth=False)[0]

    def both(self, now: Picture, before: Picture, *, forth: bool = True) -> tuple[Step, Step | None]:
        """Return the way from a frame back to the one before, and with ``forth`` the one from there to this one.

        The way forth is the way back turned around: a flow of its own would take two milliseconds more, and gives the
        same labels.
        """
        # The third argument is read: only the library's own results go in there, for it ends the process at a NaN.
        flow = self._latest = self._solver.calc(now, before, self._latest)
        back = self._step(now, before, flow)
        if back.is_cut:
            self._latest = None  # else the next one begins with this one, since motion goes on
        if not forth:
            return back, None
        # What came to x was at x + flow(x): so what was at y goes to y - flow(x), and x is about y - flow(y).
        return back, self._step(before, now, -looked_up(flow, cells(now.shape) - flow))

    def _step(self, one: Picture, other: Picture, flow: Values) -> Step:
        """Return the step along a flow, (h, w, 2) in pixels of the picture, with how well it fits."""
        there = looked_up(other, cells(one.shape) + flow).astype(np.float32)
        belief = np.exp(-np.square((one - there) / np.float32(_TOLERANCE)))
        scale = np.array([self._columns.cells_per_pixel, self._rows.cells_per_pixel], np.float32)
        return Step(self._on_grid(flow * scale), self._on_grid(belief))

    def _on_grid(self, values: Values) -> Values:
        """Bring (h, w) or (h, w, 2) of the picture to the cells; bars get what is beside them."""
        cv2, rows, columns = self._cv2, self._rows, self._columns
        size = columns.covered, rows.covered
        if size != values.shape[1::-1]:
            values = np.asarray(cv2.resize(values, size, interpolation=self._way(values, size)), np.float32)
        return values if self._places is None else looked_up(values, self._places)

    def _way(self, values: NDArray[Any], size_wh: tuple[int, int]) -> int:
        """Return how to resize: by area, unless it grows, of which that would make blocks."""
        grows = size_wh[0] > values.shape[1] or size_wh[1] > values.shape[0]
        return int(self._cv2.INTER_LINEAR if grows else self._cv2.INTER_AREA)


class Path:
    """The way from the newest frame to an older one, or from a frame to a later key frame.

    Offsets add up and beliefs multiply, so that scores are resampled once, however long the way is.

    Attributes:
        offset: (h, w, 2) float32, in cells.
        belief: (h, w) float32, 0..1; 0 where the way leads out of the picture.
    """

    def __init__(self, cells_hw: tuple[int, int]) -> None:
        self.offset: Values = np.zeros((*cells_hw, 2), np.float32)
        self.belief: Values = np.ones(cells_hw, np.float32)

    def extend(self, step: Step) -> None:
        """Begin the way one frame further: at the frame from which ``step`` leads to where it began so far."""
        places = step.offset + cells(self.belief.shape)
        self.offset = step.offset + looked_up(self.offset, places)
        # What was outside of the picture is believed by nobody.
        self.belief = step.belief * looked_up(self.belief, places, outside=0.0)


class Cuts:
    """Tells with which frames of a source another scene begins, or another size."""

    _CELLS_HW = 27, 48  # enough to tell scenes apart

    def __init__(self) -> None:
        self._flow: Flow | None = None
        self._frame_hw = (0, 0)
        self._before: Picture | None = None

    def begins(self, frame_bgr: Image) -> bool:
        """Whether the next frame, (H, W, 3) uint8 BGR, begins another scene; the first one does."""
        height, width = frame_bgr.shape[:2]
        if self._flow is None or self._frame_hw != (height, width):
            self._flow, self._frame_hw, self._before = Flow(self._CELLS_HW, (height, width)), (height, width), None
        before, self._before = self._before, self._flow.picture(frame_bgr)
        return before is None or self._flow.back(self._before, before).is_cut


def looked_up(
    values: NDArray[Any], places: Values, *, outside: float | None = None, into: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return values at places, (h, w, 2) as (across, down) in cells or pixels, interpolated bilinearly.

    Args:
        values: (h, w) or (h, w, C) of at most 4 channels, uint8 or float32.
        places: of any size; offsets to be added to :func:`cells`.
        outside: what lies beyond the border; None goes on with the outermost values.
        into: where to write them; None makes an array.
    """
    cv2 = import_cv2(purpose=_PURPOSE)
    border = cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT
    found: NDArray[Any] = cv2.remap(
        values, places, None, cv2.INTER_LINEAR, dst=into, borderMode=border, borderValue=outside or 0.0
    )
    return found


@functools.lru_cache(maxsize=8)  # of each source's grid; making it takes longer than to move scores along it
def cells(shape_hw: tuple[int, ...]) -> Values:
    """Return each cell's own place, (h, w, 2) float32 as (across, down); not to be written into."""
    rows, columns = shape_hw
    places = np.empty((rows, columns, 2), np.float32)
    places[..., 0] = np.arange(columns, dtype=np.float32)
    places[..., 1] = np.arange(rows, dtype=np.float32)[:, np.newaxis]
    places.flags.writeable = False
    return places


class _Axis:
    """Where the picture's pixels of one axis lie among the cells: at ``cells_per_pixel * pixel + shift``.

    ``covered`` is about as many cells as the frame covers; a picture of that size is looked up at ``places``.
    """

    def __init__(
        self, cell_count: int, frame_side: int, picture_side: int, start: float, extent: float, *, align_corners: bool
    ) -> None:
        per_frame_pixel = extent / (max(1, frame_side - 1) if align_corners else frame_side)
        first = start if align_corners else start + 0.5 * per_frame_pixel - 0.5
        self.cells_per_pixel = per_frame_pixel * frame_side / picture_side
        shift = first + 0.5 * self.cells_per_pixel - 0.5 * per_frame_pixel
        self.covered = max(1, round(per_frame_pixel * frame_side))
        scale = self.cells_per_pixel * picture_side / self.covered
        begin = shift + 0.5 * scale - 0.5 * self.cells_per_pixel
        self.places = ((np.arange(cell_count) - begin) / scale).astype(np.float32)
        self.is_covered = self.covered == cell_count and np.allclose(self.places, np.arange(cell_count), atol=1e-3)
