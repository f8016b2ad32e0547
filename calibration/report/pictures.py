"""Pictures of what changed: numbers say how much, and these say where."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.calibration.report.words import SPACE, number, words
from sfpp.calibration.results import CalibrationReport, Picture
from sfpp.runtime.errors import UsageError
from sfpp.runtime.images import Image, bgr_from_frame
from sfpp.runtime.opencv import import_cv2
from sfpp.runtime.overlay import Palette, color_mask
from sfpp.runtime.page import Html, Page, element, gallery, joined, paragraph, picture

# Okabe and Ito's yellow as (B, G, R). By its brightness alone, 213 of 255, it stands out of the dimmed frame, whatever
# hues a reader can tell apart.
MARK_BGR = (66, 228, 240)
# The frame keeps half of its contrast, above a grey in which something is still to be seen in its shadows.
_CONTRAST, _BLACK = 0.48, 25
# So much of the classes' colors tells regions apart, and keeps the brightest pixel at 169.
_TINT = 0.2


def marked_disagreement(
    frame_bgr: NDArray[Any], labels: NDArray[np.uint8], reference: NDArray[np.uint8], palette: Palette
) -> Image:
    """Return the frame dimmed to grey, with yellow pixels where the labels differ from the reference's.

    Elsewhere it is faintly tinted with the colors of the reference's classes.

    Args:
        frame_bgr: (H, W, 3) uint8 BGR, or grey or BGRA.
        labels: (H, W) uint8, of the frame's size.
        reference: (H, W) uint8, what they are compared with.
        palette: an (R, G, B) color, 0..255, for each class.

    Raises:
        UsageError: sizes that differ.
        MediaError: the frame is not an image.
    """
    frame = bgr_from_frame(frame_bgr)
    for name, each in (("labels", labels), ("reference", reference)):
        if each.shape != frame.shape[:2]:
            raise UsageError(
                f"the frame is {frame.shape[0]}x{frame.shape[1]} (height x width) and the {name} are "
                f"{'x'.join(map(str, each.shape))}; compare labels at the frame's own size"
            )
    cv2 = import_cv2(purpose="drawing on frames")
    grey = cv2.convertScaleAbs(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), alpha=_CONTRAST, beta=_BLACK)
    dimmed: Image = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    marked: Image = cv2.addWeighted(dimmed, 1 - _TINT, color_mask(reference, palette), _TINT, 0)
    marked[labels != reference] = MARK_BGR
    return marked


def add_pictures(page: Page, report: CalibrationReport) -> None:
    """Add the pictures of frames with what changed."""
    if not report.pictures:
        return
    answers = words(report).answers
    section = page.section("Where answers change")
    section.add(
        paragraph(
            "Yellow pixels have another label than FP32 gives them. The frame is dimmed to grey and tinted with the "
            "colors of FP32's classes."
            if answers == "labels"
            else "A ring is where FP32 sees a keypoint that has moved, and a yellow disc is where this file sees it."
        )
    )
    section.add(gallery(_figure(each, answers) for each in report.pictures))


def _figure(shown: Picture, answers: str) -> Html:
    share = f"{number(shown.disagreement)}{SPACE}% of the {answers} differ"
    caption = joined([f"{shown.precision.upper()}: {share}", shown.name], separator=element("br"))
    return picture(shown.image_bgr, caption, alt=f"Frame {shown.name} with marks: {shown.precision.upper()}, {share}")
