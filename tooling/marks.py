"""What differs between two predictions, marked on the frame dimmed to grey."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import UsageError
from sfpp.runtime.images import Image, bgr_from_frame
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.labels import labels_of_masks
from sfpp.runtime.overlay import Palette, color_mask

_PURPOSE = "drawing on frames"
# Okabe and Ito's yellow as (B, G, R). By its brightness alone, 213 of 255, it stands out of the dimmed frame, whatever
# hues a reader can tell apart.
MARK_BGR = (66, 228, 240)
# The frame keeps half of its contrast, above a grey in which something is still to be seen in its shadows.
_CONTRAST, _BLACK = 0.48, 25
# So much of the classes' colors tells regions apart, and keeps the brightest pixel at 169.
_TINT = 0.2


def marked_labels(
    frame_bgr: NDArray[Any], labels: NDArray[np.uint8], reference: NDArray[np.uint8], palette: Palette
) -> Image:
    """Return the frame dimmed to grey, with yellow pixels where the labels differ from the reference's.

    Elsewhere it is faintly tinted with the colors of the reference's classes.

    Args:
        frame_bgr: (H, W, 3) uint8 BGR, or grey or BGRA.
        labels: (H, W) uint8, of the frame's size; or masks (K, H, W) uint8.
        reference: the same, what they are compared with.
        palette: an (R, G, B) color, 0..255, for each class.

    Raises:
        UsageError: sizes that differ.
        MediaError: the frame is not an image.
    """
    dimmed = _dimmed(frame_bgr)
    for name, each in (("labels", labels), ("reference", reference)):
        if each.shape[-2:] != dimmed.shape[:2]:
            raise UsageError(
                f"the frame is {dimmed.shape[0]}x{dimmed.shape[1]} (height x width) and the {name} are "
                f"{'x'.join(map(str, each.shape))}; compare labels at the frame's own size"
            )
    cv2 = import_cv2(purpose=_PURPOSE)
    differs = labels != reference
    if reference.ndim == 3:
        differs, reference = differs.any(axis=0), labels_of_masks(reference)
    marked: Image = cv2.addWeighted(dimmed, 1 - _TINT, color_mask(reference, palette), _TINT, 0)
    marked[differs] = MARK_BGR
    return marked


def marked_keypoints(
    frame_bgr: NDArray[Any], keypoints_xy: NDArray[Any], reference_xy: NDArray[Any], moved: NDArray[np.bool_]
) -> Image:
    """Return the frame dimmed to grey: a yellow disc where a keypoint is, a white ring where the reference has it.

    Args:
        frame_bgr: (H, W, 3) uint8 BGR, or grey or BGRA.
        keypoints_xy: (P, K, 2), x then y in frame pixels.
        reference_xy: (P, K, 2).
        moved: (P, K), which to mark.

    Raises:
        MediaError: the frame is not an image.
    """
    marked = _dimmed(frame_bgr)
    cv2 = import_cv2(purpose=_PURPOSE)
    radius = max(2, round(min(marked.shape[:2]) / 60))
    for found, before in zip(keypoints_xy[moved], reference_xy[moved], strict=True):
        ends = [tuple(map(int, np.rint(point))) for point in (found, before)]
        cv2.line(marked, *ends, MARK_BGR, 1, cv2.LINE_AA)
        cv2.circle(marked, ends[0], radius, MARK_BGR, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(marked, ends[1], radius + 1, (255, 255, 255), 1, cv2.LINE_AA)
    return marked


def _dimmed(frame_bgr: NDArray[Any]) -> Image:
    cv2 = import_cv2(purpose=_PURPOSE)
    grey = cv2.cvtColor(bgr_from_frame(frame_bgr), cv2.COLOR_BGR2GRAY)
    dimmed: Image = cv2.cvtColor(cv2.convertScaleAbs(grey, alpha=_CONTRAST, beta=_BLACK), cv2.COLOR_GRAY2BGR)
    return dimmed
