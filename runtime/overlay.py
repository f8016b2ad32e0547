"""Class colors and a legend on a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    layout = _layout(image_bgr.shape[:2], [_texts(entry) for entry in present])
    if layout is None:
        return
    darken(image_bgr[layout.margin :, layout.margin :][: layout.box_hw[0], : layout.box_hw[1]])
    for row, entry in enumerate(present[: layout.rows]):
        _draw_entry(image_bgr, entry, layout, top=layout.margin + layout.padding + row * layout.line)


@dataclass(frozen=True)
class _Layout:
    """Sizes of a legend in pixels; ``name_width`` and ``share_width`` are the columns of text."""

    line: int
    rows: int
    name_width: int
    share_width: int

    @property
    def margin(self) -> int:
        return self.line // 2

    @property
    def padding(self) -> int:
        return self.line // 3

    @property
    def swatch(self) -> int:
        return round(self.line * 0.62)

    @property
    def box_hw(self) -> tuple[int, int]:
        text_width = self.name_width + self.line + self.share_width
        return self.rows * self.line + 2 * self.padding, self.swatch + text_width + 3 * self.padding


def _layout(image_hw: tuple[int, ...], texts: list[tuple[str, str]]) -> _Layout | None:
    line = max(_SMALLEST_LINE, round(min(image_hw) * _LINE_SHARE))
    name_width, share_width = (max(text_width(text, line) for text in column) for column in zip(*texts, strict=True))
    whole = _Layout(line=line, rows=len(texts), name_width=name_width, share_width=share_width)
    room = image_hw[0] - 2 * whole.margin - 2 * whole.padding
    rows = min(len(texts), room // line)
    if rows < 1 or whole.box_hw[1] + 2 * whole.margin > image_hw[1]:
        return None
    return replace(whole, rows=rows)


def _texts(entry: LegendEntry) -> tuple[str, str]:
    share = f"{100 * entry.share:.1f} %" if entry.share >= 0.0005 else "<0.1 %"
    return entry.name, share


def _draw_entry(image: Image, entry: LegendEntry, layout: _Layout, *, top: int) -> None:
    cv2 = import_cv2(purpose=_PURPOSE)
    left = layout.margin + layout.padding
    inset = (layout.line - layout.swatch) // 2
    corner = left + layout.swatch - 1, top + inset + layout.swatch - 1
    cv2.rectangle(image, (left, top + inset), corner, entry.color_rgb[::-1], cv2.FILLED)
    name, share = _texts(entry)
    name_left = left + layout.swatch + layout.padding
    share_right = name_left + layout.name_width + layout.line + layout.share_width
    baseline = top + round(layout.line * 0.72)
    put_text(image, name, (name_left, baseline), layout.line)
    put_text(image, share, (share_right - text_width(share, layout.line), baseline), layout.line)


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
