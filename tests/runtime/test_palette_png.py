import struct
import zlib

import cv2
import numpy as np
import pytest

from sfpp.runtime import MediaError
from sfpp.runtime.palette_png import as_grey
from sfpp.runtime.truth import LabelFolder


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def palette_png(indices, *, bits=8):
    """A PNG as image editors write label pictures: indices, and a color for each that says nothing of its number."""
    height, width = indices.shape
    planes = np.unpackbits(indices[..., np.newaxis], axis=2)[..., 8 - bits :].reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in planes)
    colors = np.random.default_rng(0).integers(0, 256, (2**bits, 3), np.uint8)
    header = struct.pack(">IIBBBBB", width, height, bits, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", colors.tobytes()), (b"tRNS", b"\0"), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in [*chunks, (b"IEND", b"")])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_label_pictures_with_a_palette_give_their_indices(tmp_path, bits):
    indices = np.random.default_rng(1).integers(0, min(2**bits, 19), (5, 7), np.uint8)
    (tmp_path / "frame.png").write_bytes(palette_png(indices, bits=bits))
    found = LabelFolder(tmp_path, classes=19).find("frame", (5, 7))
    np.testing.assert_array_equal(found, indices)


def test_what_is_no_palette_png_stays_as_it_is():
    for extension, image in ((".png", np.eye(4, dtype=np.uint8)), (".png", np.ones((3, 4, 3), np.uint8))):
        data = cv2.imencode(extension, image)[1].tobytes()
        assert as_grey(data) == (data, 1)
    for data in (b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" * 20):
        assert as_grey(data) == (data, 1)


def test_a_damaged_one_is_an_error_and_not_labels(tmp_path):
    whole = palette_png(np.zeros((50, 50), np.uint8))
    for length in (30, 40, 60, len(whole) - 20):
        (tmp_path / "frame.png").write_bytes(whole[:length])
        with pytest.raises(MediaError, match="is not a picture that OpenCV can decode"):
            LabelFolder(tmp_path, classes=3).find("frame", (50, 50))
