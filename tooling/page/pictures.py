"""Pictures inside the page itself."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, Literal

from numpy.typing import NDArray

from sfpp.runtime.errors import MediaError
from sfpp.runtime.images import Image, bgr_from_frame
from sfpp.runtime.imports import import_cv2
from sfpp.tooling.page.markup import Html, element

# Marks of single pixels survive this quality; of a photograph it makes a tenth of a PNG's size.
_JPEG_QUALITY = 88
_PURPOSE = "writing pictures into a page"


def picture(
    image_bgr: NDArray[Any],
    caption: Html | str,
    *,
    alt: str,
    encoding: Literal["jpeg", "png"] = "jpeg",
    longest_side: int = 1920,
) -> Html:
    """Return a picture with a caption.

    Args:
        image_bgr: (H, W, 3) uint8 BGR, or grey or BGRA.
        caption: shown below it.
        alt: what is to be seen, for those who do not see it.
        encoding: ``png`` for drawings, which JPEG blurs.
        longest_side: in pixels; a larger picture is shrunk, as a page of pictures in 4K is too large to be mailed.

    Raises:
        MediaError: not an image, or OpenCV fails to encode it.
    """
    image = _shrunk(bgr_from_frame(image_bgr), longest_side)
    source = f"data:image/{encoding};base64,{base64.b64encode(_encoded(image, encoding)).decode('ascii')}"
    shown = element("img", src=source, alt=alt, width=image.shape[1], height=image.shape[0])
    return element("figure", shown, element("figcaption", caption))


def gallery(pictures: Iterable[Html]) -> Html:
    """Return pictures or charts side by side, as many as there is room for."""
    return element("div", *pictures, class_="gallery")


def _shrunk(image: Image, longest_side: int) -> Image:
    height, width = image.shape[:2]
    if max(height, width) <= longest_side:
        return image
    cv2 = import_cv2(purpose=_PURPOSE)
    scale = longest_side / max(height, width)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    shrunk: Image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)  # averages, so thin marks stay visible
    return shrunk


def _encoded(image: Image, encoding: str) -> bytes:
    cv2 = import_cv2(purpose=_PURPOSE)
    written, data = cv2.imencode(f".{encoding}", image, _jpeg_options(cv2) if encoding == "jpeg" else [])
    if not written:
        raise MediaError(f"OpenCV failed to encode a picture of {image.shape[1]}x{image.shape[0]} pixels as {encoding}")
    encoded: bytes = data.tobytes()
    return encoded


def _jpeg_options(cv2: Any) -> list[int]:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    if hasattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR_444"):
        # By default color has half the resolution, which washes out marks of single pixels; OpenCV knows it since 4.6.
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return options
