"""How PNG, WebP and AVIF files say that they are to be turned: Exif's orientation, and AVIF's own boxes.

OpenCV obeys it in JPEG and TIFF, but not in AVIF and in files of several pictures, and old versions neither in PNG nor
in WebP.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.imports import import_cv2

_ORIENTATION_TAG, _SHORT = 0x0112, 3
_INSIDE = {b"meta": 4, b"iprp": 0, b"ipco": 0}  # boxes of boxes, and how many bytes stand before the first
# Exif's number for AVIF's quarters counter-clockwise, and what exchanges its sides then: nothing, top and bottom, left
# and right.
_EXIF_OF_AVIF = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip


def orientation_of(kind: str | None, data: bytes) -> int | None:
    """Return Exif's number for how a picture is to be turned, 1 (it is upright) to 8; None where OpenCV knows better.

    Args:
        kind: as :func:`.picture_format` names it.
        data: the file.
    """
    try:
        if kind == "PNG":
            return _of_exif(next((block for name, block in _png_chunks(data) if name == b"eXIf"), b""))
        if kind == "WebP":
            exif = next((block for name, block in _webp_chunks(data) if name == b"EXIF"), b"")
            return _of_exif(exif.removeprefix(b"Exif\0\0"))
        if kind == "AVIF":
            found = dict(_avif_properties(data))
            quarters, sides = found.get(b"irot", b"\0"), found.get(b"imir")
            return _EXIF_OF_AVIF[quarters[0] & 3, None if sides is None else sides[0] & 1]
    except (struct.error, IndexError):  # it ends too early, of which the decoder tells
        pass
    return None


def turned_upright(image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Return an image, (H, W) or (H, W, C), as Exif's orientation says."""
    if number == 1:
        return image
    cv2 = import_cv2(purpose="turning pictures upright")
    if number >= 5:
        image = cv2.transpose(image)
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    return cv2.flip(image, flips[number]) if number in flips else image


def _of_exif(data: bytes) -> int:
    """Exif is a TIFF's table of numbers, without a picture."""
    if data[:2] not in (b"II", b"MM"):
        return 1
    order = "<" if data[:2] == b"II" else ">"
    (first,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, first)
    for entry in range(first + 2, first + 2 + 12 * count, 12):
        tag, form, _, number = struct.unpack_from(order + "HHIH", data, entry)
        if tag == _ORIENTATION_TAG and form == _SHORT and 1 <= number <= 8:
            return int(number)
    return 1


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place < len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        yield name, data[place + 8 : place + 8 + length]
        place += 12 + length


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 12
    while place < len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        yield name, data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2


def _avif_properties(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the boxes that describe the pictures; those for transparency say the same as the picture itself."""
    place = 0
    while place < len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if length < 8:  # it reaches to the end, or is longer than 4 GB
            return
        if name in _INSIDE:
            yield from _avif_properties(data[place + 8 + _INSIDE[name] : place + length])
        else:
            yield name, data[place + 8 : place + length]
        place += length
