"""The motion of one source's frames, and which of them the network sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.images import Placement, place_frame
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.motion.flow import WIDEST, Flow, Picture, Step as Way
from sfpp.runtime.motion.options import KeyFrames

if TYPE_CHECKING:
    from sfpp.runtime.segmentation import Segmenter
    from sfpp.runtime.video.frame import Frame

# Live, every frame that is shown is carried, ten for a run of the network: there the grid and the picture are kept
# small. Half a grid costs 0.8 to 1.5 points of mIoU at 960x720 and is still 1.4 above the network on every frame.
_LIVE_CELLS_HW = 270, 480
_LIVE_WIDEST = 160


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of a frame before the network has seen it, or instead.

    Attributes:
        is_key: the network shall see it.
        begins: another scene begins, or another size; nothing is carried into it.
        back: the way to the frame before; None where it begins.
        forth: the way from the frame before to this one; None where it begins, or where nobody needs it.
        placement: where the frame lies in the model's input.
        cells_hw: the grid of the ways.
    """

    is_key: bool
    begins: bool
    back: Way | None
    forth: Way | None
    placement: Placement
    cells_hw: tuple[int, int]


class Watcher:
    """Follows the motion of one source, and decides which of its frames the network sees.

    Args:
        model: the network.
        keys: decides by time and number.
        forth: find the ways forth too.
        live: keep the work of each frame small.
        still: leave the network out while nothing moves.
    """

    def __init__(
        self, model: Segmenter, keys: KeyFrames, *, forth: bool = False, live: bool = False, still: bool = False
    ) -> None:
        self._model = model
        self._keys = keys
        self._forth = forth
        self._live = live
        self._still = Still() if still else None
        self._flow: Flow | None = None
        self._before: Picture | None = None
        self._placement: Placement | None = None
        self._cells_hw = (0, 0)

    def see(self, frame: Frame, *, infer_s: float | None = None, follow: bool = True) -> Seen:
        """Take the next frame.

        Args:
            frame: of the source.
            infer_s: how long the network lately took, if known.
            follow: find the way to the frame before; else the network sees it, as if another scene began.
        """
        height, width = frame.image_bgr.shape[:2]
        if self._placement is None or self._placement.frame_size_hw != (height, width):
            self._begin((height, width))
        assert self._flow is not None
        assert self._placement is not None
        if not follow:
            return Seen(True, True, None, None, self._placement, self._cells_hw)
        picture, before = self._flow.picture(frame.image_bgr), self._before
        self._before = picture
        back, forth = (None, None) if before is None else self._flow.both(picture, before, forth=self._forth)
        begins = back is None or back.is_cut
        is_key = self._keys.is_key(frame, begins=begins, infer_s=infer_s)
        if self._still is not None:
            is_key = self._still.needs_network(picture, frame.time_s, due=is_key, begins=begins)
        if begins:
            back = forth = None
        return Seen(is_key, begins, back, forth, self._placement, self._cells_hw)

    def _begin(self, frame_hw: tuple[int, int]) -> None:
        contract, output = self._model.contract, self._model.output
        rows, columns = self._model.cells_hw
        less = min(1.0, *(most / have for most, have in zip(_LIVE_CELLS_HW, (rows, columns), strict=True)))
        # Corners that are aligned would no longer be on a smaller grid.
        if self._live and not output.align_corners:
            rows, columns = max(1, round(rows * less)), max(1, round(columns * less))
        placement = place_frame(frame_hw, contract.input)
        region = placement.region(
            (rows, columns), model_size_hw=contract.input.size_hw, align_corners=output.align_corners
        )
        self._cells_hw, self._placement, self._before = (rows, columns), placement, None
        self._flow = Flow(
            (rows, columns),
            frame_hw,
            region,
            align_corners=output.align_corners,
            widest=_LIVE_WIDEST if self._live else WIDEST,
        )


class Still:
    """Tells whether anything has moved since the network last saw a frame.

    Cells, 60 across the picture, are compared with those of the last key frame, so that what moves slowly adds up. A
    change of all of them alike, as by light, does not count.
    """

    # Gray levels. Noise of 5 gray levels, and what compression adds to it, stay below; a walker does not.
    _LEAST = 8.0
    _COLUMNS = 60
    # Something as dark as what is behind it moves unseen.
    _LONGEST_S = 2.0

    def __init__(self) -> None:
        self._key: NDArray[np.float32] | None = None
        self._key_s = 0.0

    def needs_network(self, picture: Picture, time_s: float, *, due: bool, begins: bool) -> bool:
        """Whether the network sees a frame that is ``due``; one with which another scene ``begins`` always."""
        if not due:
            return False
        cv2 = import_cv2(purpose="following motion")
        height, width = picture.shape
        size = self._COLUMNS, max(1, round(self._COLUMNS * height / width))
        cells = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        if not begins and self._key is not None and 0 <= time_s - self._key_s < self._LONGEST_S:
            change = cells - self._key
            if np.abs(change - np.median(change)).max() < self._LEAST:
                return False
        self._key, self._key_s = cells, time_s
        return True
