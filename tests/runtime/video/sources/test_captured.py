import cv2
import numpy as np
import pytest

from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.pixels.nv12 import bgr_from_nv12, nv12_from_bgr
from sfpp.runtime.video.sources.captured import CapturedFormat, captured_format
from tests.runtime.video.clips import picture


@pytest.mark.parametrize(
    ("pipeline", "name", "matrix"),
    [
        ("v4l2src ! video/x-raw,format=NV12 ! appsink", "NV12", None),
        ("v4l2src ! video/x-raw, width=64, format=(string)YUY2 ! queue leaky=2 ! appsink drop=1", "YUY2", None),
        ("a ! video/x-raw,format=I420,colorimetry=bt709 ! identity ! appsink", "I420", "bt709"),
        ('a ! appsink caps="video/x-raw,format=UYVY,colorimetry=bt601"', "UYVY", "bt601"),
        ("a ! video/x-raw,format=BGR ! appsink", "BGR", None),
        ("a ! video/x-raw,format=NV12 ! videoconvert ! appsink", "", None),  # which may give anything
        ("a ! video/x-raw(memory:NVMM),format=NV12 ! nvvidconv ! appsink", "", None),
        ("a ! video/x-raw,width=64 ! appsink", "", None),
        ("a ! appsink", "", None),
        ('a ! "video/x-raw, format=(string)NV12" ! appsink', "NV12", None),
        ("a ! capsfilter caps=video/x-raw,format=I420 ! appsink", "I420", None),
        ("a ! video/x-raw,format=NV12;video/x-raw,format=I420 ! appsink", "", None),  # either of them
        ("a ! video/x-raw,width=64;video/x-raw,format=NV12 ! appsink", "", None),
        ("a ! video/x-raw,format={NV12,I420} ! appsink", "", None),
        ("a ! video/x-raw( memory:NVMM ),format=NV12 ! appsink", "", None),
        ("filesrc location=/clips/video/x-raw,format=I420.yuv", "", None),  # a file of this name
        ("a ! image/jpeg ! appsink", "", None),
    ],
)
def test_the_last_caps_say_the_form(pipeline, name, matrix):
    assert captured_format(pipeline) == CapturedFormat(name, matrix)


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        ("format=P010_10LE", "gives P010_10LE, expected one of BGR, .*; write video/x-raw,format=NV12 or format=BGR"),
        ("format=NV12,colorimetry=1:4:7:1", "NV12 in the colorimetry 1:4:7:1, expected bt601 or bt709; let GStreamer"),
    ],
)
def test_forms_that_are_not_known(caps, words):
    with pytest.raises(UsageError, match=words):
        captured_format(f"a ! video/x-raw,{caps} ! appsink")


def forms(matrix):
    """Return one picture in every form of YUV, with chroma that is the same over two by two pixels."""
    planes = nv12_from_bgr(picture(0), matrix)
    luma, pairs = planes[:48], planes[48:].reshape(24, 32, 2)
    u, v = np.ascontiguousarray(pairs[..., 0]), np.ascontiguousarray(pairs[..., 1])
    rows = {"NV12": pairs, "NV21": pairs[..., ::-1], "I420": np.stack([u, v]), "YV12": np.stack([v, u])}
    found = {name: np.concatenate([luma, chroma.reshape(24, 64)]) for name, chroma in rows.items()}
    halves = np.repeat(u, 2, axis=0), np.repeat(v, 2, axis=0)
    for name, order in {"YUY2": (0, 2, 1, 3), "UYVY": (1, 3, 0, 2), "YVYU": (0, 2, 3, 1)}.items():
        packed = np.empty((48, 32, 4), np.uint8)
        for place, plane in zip(order, (luma[:, ::2], luma[:, 1::2], *halves), strict=True):
            packed[..., place] = plane
        found[name] = packed.reshape(48, 64, 2)
    return planes, found


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("name", ["NV12", "NV21", "I420", "YV12", "YUY2", "UYVY", "YVYU"])
def test_every_form_of_yuv_is_the_same_picture(matrix, name):
    planes, found = forms(matrix)
    image = CapturedFormat(name, matrix).to_bgr(found[name], 48)
    np.testing.assert_array_equal(image, bgr_from_nv12(planes, matrix))
    assert np.abs(image.astype(int) - picture(0)).mean() < 40


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("name", ["NV12", "NV21", "I420", "YV12", "YUY2", "UYVY", "YVYU"])
def test_odd_sides_of_yuv_are_refused(matrix, name):
    """Where OpenCV, or NumPy, would fail with an error of its own."""
    wide, high = ((48, 65, 2), None) if name in ("YUY2", "UYVY", "YVYU") else ((72, 65), (73, 64))
    for shape in filter(None, (wide, high, (0, *wide[1:]))):
        with pytest.raises(MediaError, match=f"its caps say {name}"):
            CapturedFormat(name, matrix).to_bgr(np.zeros(shape, np.uint8))


def test_without_a_matrix_the_size_says_it():
    """As players and GStreamer guess it."""
    planes = np.random.default_rng(0).integers(0, 256, (1080, 1280), np.uint8)
    np.testing.assert_array_equal(CapturedFormat("NV12").to_bgr(planes, 720), bgr_from_nv12(planes, "bt709"))
    small = np.ascontiguousarray(planes[:720, :640])
    np.testing.assert_array_equal(CapturedFormat("NV12").to_bgr(small, 480), bgr_from_nv12(small, "bt601"))


def test_colors_and_gray():
    image = picture(0)
    assert CapturedFormat().to_bgr(image, 48) is image
    for name, code in (("BGRx", cv2.COLOR_BGR2BGRA), ("RGBA", cv2.COLOR_BGR2RGBA)):
        np.testing.assert_array_equal(CapturedFormat(name).to_bgr(cv2.cvtColor(image, code), 48), image)
    np.testing.assert_array_equal(CapturedFormat().to_bgr(cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)), image)
    gray = np.ascontiguousarray(image[..., 0])
    np.testing.assert_array_equal(CapturedFormat().to_bgr(gray, 48), np.repeat(gray[..., np.newaxis], 3, 2))


@pytest.mark.parametrize(
    ("form", "array", "height"),
    [
        (CapturedFormat(), np.zeros((72, 64), np.uint8), 48),  # planes of a form that nothing tells
        (CapturedFormat(), np.zeros((48, 64, 2), np.uint8), 48),
        (CapturedFormat(), np.zeros((1, 999), np.uint8), 48),  # a JPEG
        (CapturedFormat(), np.zeros((48, 64), np.uint16), 48),
        (CapturedFormat("NV12"), np.zeros((48, 64), np.uint8), 48),
        (CapturedFormat("NV12"), np.zeros((48, 64, 3), np.uint8), 48),
        (CapturedFormat("YUY2"), np.zeros((48, 64, 3), np.uint8), 48),
    ],
    ids=str,
)
def test_another_array_than_the_caps_say_is_refused(form, array, height):
    with pytest.raises(MediaError, match=r"the pipeline gives .* of shape .*; write video/x-raw,format=NV12 or"):
        form.to_bgr(array, height)
