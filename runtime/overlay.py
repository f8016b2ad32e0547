"""Class colors and a legend on a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import UsageError
from sfpp.runtime.images import Image, bgr_from_frame
from sfpp.runtime.imports import cv2_text, import_cv2

Palette = Sequence[tuple[int, int, int]]

_PURPOSE = "drawing on frames"
_TEXT_COLOR = (255, 255, 255)
# A line of the legend, as a share of the image's shorter side; and never less than can be read, in pixels.
_LINE_SHARE = 0.034
_SMALLEST_LINE = 12
# Of the box's background this much is the frame beneath.
_SEE_THROUGH = 0.35


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend: a class, its (R, G, B) color, and the share of the frame that it covers, 0..1."""

    name: str
    color_rgb: tuple[int, int, int]
    share: float


def color_mask(labels: NDArray[np.uint8], palette: Palette) -> Image:
    """Return the classes' colors, (H, W, 3) uint8 BGR, for labels (H, W) uint8; a label beyond the palette is black.

    Args:
        labels: (H, W) uint8.
        palette: an (R, G, B) color, 0..255, for each class.
    """
    cv2 = import_cv2(purpose=_PURPOSE)
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(palette), 0] = np.asarray(palette, np.uint8)[:, ::-1]
    # Five times faster than indexing the table at 4K.
    mask: Image = cv2.applyColorMap(np.ascontiguousarray(labels), table)
    return mask


def draw_labels(frame_bgr: NDArray[Any], labels: NDArray[np.uint8], palette: Palette, *, alpha: float = 0.5) -> Image:
    """Return the frame with the classes' colors over it; the frame itself is left alone.

    Args:
        frame_bgr: (H, W, 3) uint8 BGR, or grey or BGRA.
        labels: (H, W) uint8, of the frame's size.
        palette: an (R, G, B) color, 0..255, for each class.
        alpha: 0 shows the frame alone, 1 the colors alone.

    Raises:
        UsageError: sizes that differ, or an alpha outside 0..1.
        MediaError: the frame is not an image.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha}, expected 0 (frame alone) to 1 (colors alone)")
    image = bgr_from_frame(frame_bgr)
    if labels.shape != image.shape[:2]:
        raise UsageError(
            f"the frame is {image.shape[0]}x{image.shape[1]} (height x width) and the labels are "
            f"{'x'.join(map(str, labels.shape))}; draw on the frame that was segmented, at its own size"
        )
    cv2 = import_cv2(purpose=_PURPOSE)
    colors = color_mask(labels, palette)
    # In place: at 3840x2160 another picture is 25 MB, and fresh pages cost as much as the arithmetic.
    blended: Image = cv2.addWeighted(image, 1 - alpha, colors, alpha, 0, dst=colors)
    return blended


def draw_legend(image_bgr: Image, entries: Sequence[LegendEntry]) -> None:
    """Draw a box with the classes' colors, names and shares into the upper left corner, in place.

    Classes that cover nothing are left out, the largest come first, and only as many are shown as fit. Text grows with
    the image. Nothing is drawn on an image too small for one line.

    Args:
        image_bgr: (H, W, 3) uint8 BGR, contiguous.
        entries: the classes, in any order.
    """
    present = sorted((entry for entry in entries if entry.share > 0), key=lambda entry: -entry.share)
    if not present:
        return
    cv2 = import_cv2(purpose=_PURPOSE)
    height, width = image_bgr.shape[:2]
    line = max(_SMALLEST_LINE, round(min(height, width) * _LINE_SHARE))
    margin, padding, swatch = line // 2, line // 3, round(line * 0.62)
    shares = [f"{100 * entry.share:.1f} %" if entry.share >= 0.0005 else "<0.1 %" for entry in present]
    name_width = max(text_width(entry.name, line) for entry in present)
    share_width = max(text_width(share, line) for share in shares)
    rows = min(len(present), (height - 2 * margin - 2 * padding) // line)
    box_width = swatch + name_width + line + share_width + 3 * padding
    if rows < 1 or box_width + 2 * margin > width:
        return
    darken(image_bgr[margin : margin + rows * line + 2 * padding, margin : margin + box_width])
    left = margin + padding
    for row, (entry, share) in enumerate(zip(present[:rows], shares, strict=False)):
        top = left + row * line
        corner = left, top + (line - swatch) // 2
        cv2.rectangle(
            image_bgr, corner, (corner[0] + swatch - 1, corner[1] + swatch - 1), entry.color_rgb[::-1], cv2.FILLED
        )
        baseline = top + round(line * 0.72)
        put_text(image_bgr, entry.name, (left + swatch + padding, baseline), line)
        put_text(image_bgr, share, (margin + box_width - padding - text_width(share, line), baseline), line)


def darken(area: Image) -> None:
    """Make a part of an image the ground of white text, in place."""
    np.multiply(area, _SEE_THROUGH, out=area, casting="unsafe")


def _font(line: int) -> tuple[float, int]:
    """Return OpenCV's font scale and stroke width for lines of ``line`` pixels; scale 1 has capitals of 22 pixels."""
    return line / 42, max(1, round(line / 24))


def text_width(text: str, line: int) -> int:
    """Return the width in pixels of a text in lines of this height."""
    cv2 = import_cv2(purpose=_PURPOSE)
    scale, thickness = _font(line)
    (width, _), _ = cv2.getTextSize(cv2_text(text), cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    return int(width)


def put_text(image: Image, text: str, left_baseline_xy: tuple[int, int], line: int) -> None:
    """Write a white text into an image, in place."""
    cv2 = import_cv2(purpose=_PURPOSE)
    scale, thickness = _font(line)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(image, cv2_text(text), left_baseline_xy, font, scale, _TEXT_COLOR, thickness, lineType=cv2.LINE_AA)
