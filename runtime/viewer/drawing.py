"""One view of a frame: which picture, how large, how strong the colors are, and which classes have none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError
from sfpp.runtime.images import Image
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.labels import NO_CLASS, Labels
from sfpp.runtime.overlay import Palette, color_mask
from sfpp.runtime.viewer.update import ViewerUpdate

View = Literal["original", "overlay", "mask"]
VIEWS: tuple[View, ...] = ("original", "overlay", "mask")
PictureFormat = Literal["jpeg", "png"]

_PURPOSE = "the browser viewer"
_SNAPSHOT_JPEG_QUALITY = 95
# Stronger compression makes a 4K picture a tenth smaller and takes several times as long.
_PNG_COMPRESSION = 1


@dataclass(frozen=True)
class ViewSetting:
    """What a page looks at; two pages with equal settings share every picture.

    Attributes:
        source: a source's name.
        view: the frame as it came, with colors over it, or the colors alone (of a pose: the skeletons).
        opacity: of the colors in an overlay, in percent.
        hidden: classes whose color is not shown.
        width: the most that a picture may have, in pixels; 0 is the frame's own.
    """

    source: str = ""
    view: View = "overlay"
    opacity: int = 50
    hidden: frozenset[int] = frozenset()
    width: int = 1280


def draw_view(update: ViewerUpdate, setting: ViewSetting, palette: Palette) -> Image:
    """Return the picture, (h, w, 3) uint8 BGR, no wider than the setting says; it may be the update's own image."""
    if setting.view != "original":
        if update.labels is not None and palette:
            return _segmented(update.labels, update.image_bgr, setting, palette)
        if update.draw is not None:
            return _painted(update.draw, update.image_bgr, setting)
    return _scaled(update.image_bgr, setting.width)


def encode(image: Image, form: PictureFormat, *, quality: int = _SNAPSHOT_JPEG_QUALITY) -> bytes:
    """Return the picture as the bytes of a file.

    Raises:
        MediaError: it is too large for the format.
    """
    cv2 = import_cv2(purpose=_PURPOSE)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if form == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION]
    try:
        done, data = cv2.imencode(f".{form}", image, options)
    except cv2.error:  # in some versions of OpenCV, where others return False
        done = False
    if not done:
        height, width = image.shape[:2]
        raise MediaError(
            f"a picture of {width}x{height} (width x height) cannot be encoded as {form.upper()}; try the other format"
        )
    encoded: bytes = data.tobytes()
    return encoded


def _segmented(labels: Labels, frame_bgr: Image, setting: ViewSetting, palette: Palette) -> Image:
    cv2 = import_cv2(purpose=_PURPOSE)
    # Scaled first: blending a tenth of the pixels takes a tenth of the time, and looks the same.
    labels = _scaled(labels, setting.width, smooth=False)
    # A hidden class is black among the colors alone, and the frame itself shows through an overlay.
    shown = [(0, 0, 0) if index in setting.hidden else color for index, color in enumerate(palette)]
    colors = color_mask(labels, shown)
    if setting.view == "mask":
        return colors
    image, alpha = _scaled(frame_bgr, setting.width), setting.opacity / 100
    blended: Image = cv2.addWeighted(image, 1 - alpha, colors, alpha, 0, dst=colors)
    # A multi-label model leaves pixels without a class.
    bare = setting.hidden | frozenset({NO_CLASS} if len(palette) <= NO_CLASS and labels.max() == NO_CLASS else ())
    return cv2.copyTo(image, cv2.LUT(labels, _flags(bare)), blended) if bare else blended


def _painted(draw: Callable[[Image], Image], frame_bgr: Image, setting: ViewSetting) -> Image:
    cv2 = import_cv2(purpose=_PURPOSE)
    if setting.view == "mask":
        return _scaled(draw(np.zeros_like(frame_bgr)), setting.width)
    alpha = setting.opacity / 100
    image, painted = (_scaled(each, setting.width) for each in (frame_bgr, draw(frame_bgr)))
    blended: Image = cv2.addWeighted(image, 1 - alpha, painted, alpha, 0)
    return blended


def _scaled(image: NDArray[np.uint8], width: int, *, smooth: bool = True) -> NDArray[np.uint8]:
    """Return the image at most ``width`` pixels wide (0: as it is); labels are not to be smoothed."""
    rows, columns = image.shape[:2]
    if not 0 < width < columns:
        return image
    cv2 = import_cv2(purpose=_PURPOSE)
    # Halves are means of four pixels, and the rest is bilinear: a quarter of the time of a mean over just the right
    # area, which is most of the time of a picture.
    while smooth and image.shape[1] >= 2 * width:
        half = image.shape[1] // 2, max(1, image.shape[0] // 2)
        image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
    size = width, max(1, round(rows * width / columns))
    scaled: NDArray[np.uint8] = cv2.resize(
        image, size, interpolation=cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST_EXACT
    )
    return scaled


def _flags(hidden: frozenset[int]) -> NDArray[np.uint8]:
    """Return (256,) uint8, 255 for hidden classes and 0 for the others."""
    flags = np.zeros(256, np.uint8)
    flags[list(hidden)] = 255
    return flags
