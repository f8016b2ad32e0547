"""PNGs with a palette, of which OpenCV gives the colors and never the indices."""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PALETTE, _GREY = 3, 0
_COLOR_TYPE_AT = 9  # in the header's data: width, height, bits a pixel, color type
# Others, such as PLTE and tRNS, belong to the palette, or change nothing in the pixels.
_KEPT = (b"IHDR", b"IDAT", b"IEND")


def as_grey(data: bytes) -> tuple[bytes, int]:
    """Return a PNG with a palette as a grey one of the same values, and by what decoders multiply these.

    The pixels are stored alike in both, so only the header changes. Of a grey picture with fewer than 8 bits a pixel,
    decoders stretch the values to 0..255.

    Args:
        data: the bytes of any file; what is no PNG with a palette comes back as it is.
    """
    if not data.startswith(_SIGNATURE + struct.pack(">I4s", 13, b"IHDR")) or len(data) < 33 or data[25] != _PALETTE:
        return data, 1
    parts, offset = [_SIGNATURE], len(_SIGNATURE)
    while offset + 12 <= len(data):
        (length, kind) = struct.unpack_from(">I4s", data, offset)
        body = data[offset + 8 : offset + 8 + length]
        if kind == b"IHDR":
            body = body[:_COLOR_TYPE_AT] + bytes([_GREY]) + body[_COLOR_TYPE_AT + 1 :]
        if kind in _KEPT:
            parts.append(struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body)))
        offset += 12 + length
    return b"".join(parts), 255 // (2 ** data[24] - 1)
