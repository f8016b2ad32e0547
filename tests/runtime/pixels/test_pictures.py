"""Files of pictures, read and written."""

import os
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from sfpp.runtime.errors import MediaError, MissingDependencyError
from sfpp.runtime.pixels.pictures import read_image, read_picture, write_image
from tests.runtime.test_images import random_frame


def test_picture_survives_a_round_trip_under_a_name_in_any_script(tmp_path):
    path = tmp_path / "Straße 道.png"
    frame = random_frame(20, 30)
    write_image(path, frame)
    np.testing.assert_array_equal(read_image(path), frame)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_grey_and_16_bit_pictures_are_read_as_8_bit_bgr(tmp_path):
    grey = random_frame(6, 5)[..., 0]
    write_image(tmp_path / "grey.png", grey)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., np.newaxis], 3, axis=2))
    (tmp_path / "deep.png").write_bytes(cv2.imencode(".png", grey.astype(np.uint16) * 256)[1].tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png")[..., 1], grey)


def test_exif_orientation_is_honoured(tmp_path):
    frame = np.zeros((16, 32, 3), np.uint8)
    frame[:, :16] = 255
    encoded = cv2.imencode(".jpg", frame)[1].tobytes()
    # A TIFF header with the one tag 0x0112: orientation 6, to be turned by 90 degrees clockwise.
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    app1 = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
    (tmp_path / "turned.jpg").write_bytes(encoded[:2] + app1 + encoded[2:])
    upright = read_image(tmp_path / "turned.jpg")
    assert upright.shape == (32, 16, 3)
    assert upright[:12].mean() > 250  # the left half has become the upper half
    assert upright[20:].mean() < 5


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", r"not a picture \(0 bytes\)"),
        (b"no picture", r"not a picture \(10 bytes\)"),
        (b"\xff\xd8\xff\xe0", "a damaged JPEG file, or one of a newer kind"),
        (b"\xff\x0a" + bytes(50), "a damaged JPEG XL file, or one of a newer kind"),
    ],
)
def test_file_that_is_no_picture(tmp_path, content, what):
    (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(MediaError, match=rf"broken\.jpg is {what}: OpenCV \S+ cannot decode it; give a JPEG or a PNG"):
        read_image(tmp_path / "broken.jpg")


def test_missing_picture_and_folder(tmp_path):
    with pytest.raises(MediaError, match=r"cannot read .*nothing\.png: No such file"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(MediaError, match="cannot read"):
        read_image(tmp_path)


@pytest.mark.parametrize("name", ["mask", "mask.xyz"])
def test_format_that_opencv_does_not_write(tmp_path, name):
    with pytest.raises(MediaError, match=r"cannot write .*mask.*\.png or \.jpg"):
        write_image(tmp_path / name, np.zeros((4, 4), np.uint8))
    assert not list(tmp_path.iterdir())


def test_write_refuses_other_types_and_makes_missing_folders(tmp_path):
    with pytest.raises(MediaError, match="float32"):
        write_image(tmp_path / "a.png", np.zeros((4, 4), np.float32))
    write_image(tmp_path / "new" / "a.png", np.zeros((4, 4), np.uint8))
    assert read_image(tmp_path / "new" / "a.png").shape == (4, 4, 3)


def assert_alike(image, expected, *, levels=4):
    assert image.shape == expected.shape
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).mean() < levels


def test_heic_of_tiles_is_the_whole_picture(shared):
    pytest.importorskip("pillow_heif")
    folder = shared / "field-reports/runtime/02-heic-tile-grid"
    image, note = read_picture(folder / "iphone.heic")
    assert_alike(image, read_image(folder / "picture.jpg"))
    assert note is None


@pytest.mark.parametrize("turn", range(4))
def test_heic_is_upright_and_drops_alpha(tmp_path, turn):
    pillow_heif = pytest.importorskip("pillow_heif")
    image = np.zeros((64, 96, 4), np.uint8)
    image[:32, :48], image[32:] = (30, 60, 200, 255), (90, 90, 90, 0)
    path = tmp_path / "photo.heic"
    if not pillow_heif.libheif_info()["HEIF"]:
        pytest.skip("this libheif writes no HEIC")
    heif = pillow_heif.from_bytes("RGBA", (96, 64), image.tobytes())
    tag = bytes([0x12, 1, 3, 0, 1, 0, 0, 0, (1, 6, 3, 8)[turn], 0, 0, 0])
    heif.save(path, quality=90, exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0" + tag + bytes(4))
    assert_alike(read_image(path), np.rot90(image[..., 2::-1], -turn))


def test_heic_without_its_reader_says_what_to_install(shared, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = shared / "field-reports/runtime/02-heic-tile-grid/iphone.heic"
    with pytest.raises(
        MissingDependencyError,
        match=r"reading iphone\.heic, which is HEIC as phones write it, needs pillow-heif.*pip install 'sfpp\[heic\]'",
    ):
        read_image(path)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_deep_pictures_are_read_by_the_bits_that_they_use(tmp_path, bits, suffix):
    color = np.linspace(0, 255, 64 * 96 * 3).reshape(64, 96, 3)
    deep = np.rint(color / 255 * (2**bits - 1)).astype(np.uint16)
    path = tmp_path / f"deep{suffix}"
    path.write_bytes(cv2.imencode(suffix, deep)[1].tobytes())
    image, note = read_picture(path)
    assert_alike(image, color, levels=1)
    said = f"its 16-bit values go up to {2**bits - 1}, so they are taken for {bits} bits"
    assert note == (said if bits < 16 else None)


def test_a_black_picture_of_16_bits_is_black(tmp_path):
    path = tmp_path / "black.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint16))[1].tobytes())
    image, note = read_picture(path)
    assert (int(image.max()), note) == (0, None)


@pytest.mark.parametrize("name", ["anim.png", "multi.tiff"])
def test_a_file_of_several_pictures_is_called_so(shared, name):
    _, note = read_picture(shared / "field-reports/runtime/20-animated-first-page-only" / name)
    assert note == "the file holds several pictures; the first is read"


def test_several_pictures_of_one_kind_of_file(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    pictures = [image_module.fromarray(np.full((32, 48, 3), level, np.uint8)) for level in (40, 200)]
    for name in ("many.webp", "many.tif"):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
        image, note = read_picture(tmp_path / name)
        assert_alike(image, np.full((32, 48, 3), 40, np.uint8))
        assert note == "the file holds several pictures; the first is read"
        pictures[0].save(tmp_path / f"one-{name}")
        assert read_picture(tmp_path / f"one-{name}")[1] is None


@pytest.mark.parametrize("pages", [1, 2])
@pytest.mark.parametrize("suffix", ["png", "webp", "avif", "tiff"])
def test_files_of_any_format_and_of_several_pictures_are_turned_upright(tmp_path, suffix, pages):
    pillow = pytest.importorskip("PIL.Image")
    if suffix == "avif" and (pages > 1 or not pytest.importorskip("PIL.features").check("avif")):
        pytest.skip("a moving AVIF is a video, or this Pillow writes none")
    image = np.zeros((32, 48, 3), np.uint8)
    image[:12, :16], image[20:, 30:] = (40, 40, 200), (200, 180, 60)
    first, exif = pillow.fromarray(image[..., ::-1]), pillow.Exif()
    exif[0x0112] = 6
    more = {"save_all": True, "append_images": [first.rotate(180)]} if pages > 1 else {}
    options = {"lossless": True} if suffix == "webp" else {"quality": 95} if suffix == "avif" else {}
    first.save(tmp_path / f"turned.{suffix}", exif=exif.tobytes(), **more, **options)
    assert_alike(read_image(tmp_path / f"turned.{suffix}"), np.rot90(image, -1))


def png_of(width, height, *, claims=None):
    """A PNG of a few bytes: its header says a size, and a part of it how long it is."""

    def part(kind, data, length=None):
        told = len(data) if length is None else length
        return struct.pack(">I", told) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    middle = part(b"tEXt", b"x" * 8, claims)
    return b"\x89PNG\r\n\x1a\n" + header + middle + part(b"IDAT", zlib.compress(bytes(52))) + part(b"IEND", b"")


@pytest.mark.parametrize("claims", [10**8, 0x7FFFFFFF, 0xFFFFFFF0])
def test_a_small_file_that_claims_gigabytes_takes_none(tmp_path, claims):
    path = tmp_path / "claims.png"
    path.write_bytes(png_of(4, 4, claims=claims))
    with pytest.raises(MediaError, match=rf"claims\.png is a damaged PNG file: a part of it claims {claims} bytes"):
        read_image(path)
    path.write_bytes(png_of(4, 4))
    assert read_image(path).shape == (4, 4, 3)


@pytest.mark.parametrize(("allowed", "refused"), [(None, True), ("1000000000", False)])
def test_pictures_have_a_most_of_pixels(tmp_path, allowed, refused):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(20000, 20000))
    program = f"from sfpp.runtime import read_image\nread_image({str(path)!r})"
    environment = {name: value for name, value in os.environ.items() if name != "OPENCV_IO_MAX_IMAGE_PIXELS"}
    environment |= {} if allowed is None else {"SFPP_MAX_PIXELS": allowed}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    words = "it has more pixels than 268435456; set SFPP_MAX_PIXELS to more if it is meant"
    assert (words in done.stderr) == refused
