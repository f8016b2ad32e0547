"""Pictures from elsewhere: those that are segmented, and those that hold labels."""

import io
import struct

import numpy as np
from hypothesis import example, strategies as st
from PIL import Image

from sfpp.runtime.imports import import_cv2
from sfpp.runtime.pixels.pictures import read_picture
from sfpp.tooling.label_images import LabelFolder
from tests.fuzz.inputs import changed_bytes, chunk, png, pngs
from tests.fuzz.judging import fuzzed

PIXELS = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
HEIC = struct.pack(">I8sI8s", 24, b"ftypheic", 0, b"mif1heic") + bytes(60)
AVIF = struct.pack(">I8sI8s", 24, b"ftypavif", 0, b"mif1avif") + chunk(b"meta", bytes(40))


def encoded():
    """A picture in each format that OpenCV writes, and some that it only reads."""
    cv2 = import_cv2(purpose="making pictures")
    suffixes = (".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm", ".jp2", ".gif", ".avif")
    made = [cv2.imencode(suffix, PIXELS) for suffix in suffixes if cv2.haveImageWriter(suffix)]
    files = [data.tobytes() for is_made, data in made if is_made]
    deep = cv2.imencode(".tiff", PIXELS.astype(np.uint16) * 16)[1].tobytes()
    exif = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 274, 3, 1, 6, 0, 0)
    turned = png(8, 6, data=bytes(150), before=[(b"eXIf", exif)])
    return [*files, deep, turned, HEIC, AVIF]


def labels():
    """Label pictures in Pillow's modes: grey, two colors, a palette, 16 bits, colors."""
    files = []
    for mode in ("L", "1", "P", "I;16", "RGB", "RGBA", "LA", "PA", "I", "F"):
        for kind in ("PNG", "TIFF", "GIF", "BMP"):
            stream = io.BytesIO()
            try:
                Image.new(mode, (4, 4)).save(stream, kind)
            except (OSError, KeyError, ValueError):
                continue
            files.append(stream.getvalue())
    return files


@fuzzed(4.0, data=st.one_of(changed_bytes(*encoded()), pngs()))
@example(png(30_000, 30_000))
@example(png(2**31 - 1, 1))
@example(png(4, 4)[:8] + struct.pack(">I4s", 2**32 - 1, b"IDAT"))
@example(png(4, 4, before=[(b"eXIf", struct.pack(">2sHI", b"MM", 42, 2**32 - 1))], data=bytes(52)))
@example(HEIC[:12] + b"\xff" * 40)
@example(b"\xff\xff\xff\xffftypavif" + b"\0" * 40)
@example(b"\0\0\0\0ftypheic" + b"\0" * 40)
def test_picture(folder, data):
    path = folder / "picture"
    path.write_bytes(data)
    image_bgr, _ = read_picture(path)
    assert image_bgr.dtype == np.uint8
    assert image_bgr.ndim == 3
    assert image_bgr.shape[2] == 3
    assert image_bgr.size


@fuzzed(4.0, data=st.one_of(changed_bytes(*labels()), pngs()), suffix=st.sampled_from((".png", ".tif", ".gif", ".bmp")))
@example(png(4, 4, 0, 3, data=bytes(20)), ".png")
@example(png(60_000, 60_000, 8, 0, data=bytes(20)), ".png")
@example(png(60_000, 60_000, 8, 3, data=bytes(20)), ".png")
@example(png(4, 4, 8, 3, data=bytes(20), before=[(b"PLTE", b"\1\2")]), ".png")
@example(png(4, 4, 8, 0, data=bytes(20), before=[(b"zTXt", b"a\0\0" + bytes(9))]), ".png")
def test_labels(folder, data, suffix):
    place = folder / "labels"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    (place / f"a{suffix}").write_bytes(data)
    classes = LabelFolder(place, classes=("a", "b", "c"), palette=((0, 0, 0), (1, 1, 1), (9, 9, 9)))
    classes.fit(["a"])
    found = classes.find("a", (4, 4))
    assert found.shape == (4, 4)
    assert -1 <= found.min() <= found.max() <= 2
    assert classes.summary(["a"]).text()
