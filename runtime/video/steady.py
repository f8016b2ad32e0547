"""Labels that flicker less: an exponential average of the logits over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.contract import ModelContract
from sfpp.runtime.errors import UsageError
from sfpp.runtime.images import Image

# A cut changes a small grey picture by 0.2 or more of the range, a fast pan at 25 frames a second by 0.05 to 0.1.
_SCENE_CHANGE = 0.15
_THUMBNAIL_ROWS = 36


def check_smoothing(amount: float, contract: ModelContract) -> None:
    """Refuse to smooth by this amount what a model gives.

    Raises:
        UsageError: an amount that cannot be meant, or a model that gives no logits.
    """
    Steady(amount)
    if contract.task != "segmentation":
        raise UsageError("smoothing is for segmentation models, and this is a pose model; leave it off")
    if not any(output.kind == "logits" for output in contract.outputs):
        kind = contract.outputs[0].kind
        raise UsageError(f"smoothing needs logits, and this model gives {kind}; export it with --output logits")


class Steady:
    """The average of a source's logits, begun anew where the scene or the size changes.

    What is returned is ``amount * before + (1 - amount) * logits``. It lags behind what moves: at 0.5 by one frame, at
    0.8 by four.

    Args:
        amount: 0, which does nothing, to below 1.

    Raises:
        UsageError: another amount.
    """

    def __init__(self, amount: float) -> None:
        if not 0 <= amount < 1:
            raise UsageError(f"smoothing by {amount} was asked for, expected 0 (none) to below 1, such as 0.5")
        self._amount = np.float32(amount)
        self._average: NDArray[np.float32] | None = None
        self._thumbnail: NDArray[np.float32] | None = None

    def smoothed(self, logits: NDArray[np.floating], frame_bgr: Image) -> NDArray[np.float32]:
        """Return the average with one more frame's logits in it.

        Args:
            logits: of any shape, float32 or float16.
            frame_bgr: (H, W, 3) uint8, the frame that they are of.
        """
        values = np.asarray(logits, np.float32)
        thumbnail = _thumbnail(frame_bgr)
        before, known = self._average, self._thumbnail
        self._thumbnail = thumbnail
        if before is None or known is None or before.shape != values.shape or _is_another_scene(known, thumbnail):
            self._average = values.copy()
        else:
            self._average = self._amount * before + (1 - self._amount) * values
        return self._average


def _thumbnail(frame_bgr: Image) -> NDArray[np.float32]:
    """Return a small grey picture, 0..1: means of pixels on a grid, which is cheap at any size."""
    rows, columns = frame_bgr.shape[:2]
    step = max(1, rows // _THUMBNAIL_ROWS)
    sampled = frame_bgr[::step, ::step].reshape(-(-rows // step), -(-columns // step), -1)
    return np.asarray(sampled.mean(axis=2, dtype=np.float32) / 255)


def _is_another_scene(known: NDArray[np.float32], now: NDArray[np.float32]) -> bool:
    return known.shape != now.shape or float(np.abs(known - now).mean()) > _SCENE_CHANGE
