import dataclasses

import cv2
import numpy as np
import pytest

from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import MediaError
from sfpp.runtime.images import input_from_frame
from sfpp.runtime.pixels.nv12 import BITS, FIXED_POINT, bgr_from_nv12, nv12_from_bgr, size_of_nv12

SPEC = InputSpec(name="frame", height=48, width=64, layout="NV12", matrix="bt601")
ALL = np.arange(256)
MATRICES = ("bt601", "bt709")


def every_color(v):
    """Return NV12 of 512x512 that has each Y with each U, and one V."""
    luma = np.tile(np.repeat(ALL, 2), (512, 1))
    pairs = np.stack(np.broadcast_arrays(ALL[:, np.newaxis], np.full((1, 256), v)), axis=-1)
    return np.concatenate([luma, pairs.reshape(256, 512)]).astype(np.uint8)


def random_picture(height, width, *, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("v", [0, 1, 77, 127, 128, 129, 200, 255])
def test_every_color_is_computed_in_fixed_point(matrix, v):
    frame, numbers = every_color(v), FIXED_POINT[matrix]
    y, u = (np.repeat(np.repeat(each, 2, 0), 2, 1) for each in np.meshgrid(ALL, ALL))
    expected = [
        np.clip((np.maximum(y, 16) * numbers.luma + u * of_u + v * of_v + constant) >> BITS, 0, 255)
        for of_u, of_v, constant in zip(numbers.u, numbers.v, numbers.constant, strict=True)
    ]
    np.testing.assert_array_equal(bgr_from_nv12(frame, matrix), np.stack(expected[::-1], axis=-1))


@pytest.mark.parametrize(("matrix", "kr", "kb"), [("bt601", 0.299, 0.114), ("bt709", 0.2126, 0.0722)])
def test_the_numbers_are_the_standards(matrix, kr, kb):
    """Of the weights of red and blue in luma all other numbers follow."""
    numbers, kg = FIXED_POINT[matrix], 1 - kr - kb
    chroma = 2 * 255 / 224
    expected_u = (0, -chroma * (1 - kb) * kb / kg, chroma * (1 - kb))
    expected_v = (chroma * (1 - kr), -chroma * (1 - kr) * kr / kg, 0)
    assert numbers.luma / 2**BITS == pytest.approx(255 / 219, abs=5e-4)
    np.testing.assert_allclose(np.array(numbers.u) / 2**BITS, expected_u, atol=2e-3)
    np.testing.assert_allclose(np.array(numbers.v) / 2**BITS, expected_v, atol=2e-3)


@pytest.mark.parametrize("matrix", MATRICES)
def test_there_and_back(matrix):
    picture = cv2.GaussianBlur(random_picture(40, 60), (0, 0), 6)
    again = bgr_from_nv12(nv12_from_bgr(picture, matrix), matrix)
    assert np.abs(again.astype(int) - picture).mean() < 2
    other = next(each for each in MATRICES if each != matrix)
    assert np.abs(bgr_from_nv12(nv12_from_bgr(picture, matrix), other).astype(int) - picture).mean() > 3
    gray = np.full((4, 6, 3), 100, np.uint8)
    np.testing.assert_allclose(bgr_from_nv12(nv12_from_bgr(gray, matrix), matrix), gray, atol=1)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((48, 63), np.uint8),
        np.zeros((49, 64), np.uint8),
        np.zeros((0, 64), np.uint8),
        np.zeros((48, 64), np.float32),
        np.zeros((48, 64, 1), np.uint8),
    ],
    ids=lambda frame: f"{frame.dtype} {frame.shape}",
)
def test_what_is_no_nv12_is_refused(frame):
    with pytest.raises(MediaError, match=r"expected NV12 in uint8, \(H \* 3 / 2, W\) with even H and W"):
        size_of_nv12(frame)


def test_nv12_of_the_models_size_is_fed_as_it_is():
    frame = nv12_from_bgr(random_picture(48, 64), "bt601")
    tensor, placement = input_from_frame(frame, SPEC)
    assert tensor.shape == SPEC.shape == (1, 72, 64)
    assert np.shares_memory(tensor, frame)
    assert placement.frame_size_hw == (48, 64)


@pytest.mark.parametrize("matrix", MATRICES)
def test_bgr_is_converted_once_at_the_models_size(matrix):
    spec = dataclasses.replace(SPEC, matrix=matrix)
    picture = random_picture(96, 128)
    tensor, _ = input_from_frame(picture, spec)
    small = cv2.resize(picture, (64, 48), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(tensor[0], nv12_from_bgr(small, matrix))


@pytest.mark.parametrize("resize", ["letterbox", "pad", "stretch"])
@pytest.mark.parametrize("frame_hw", [(30, 64), (62, 50), (200, 150), (24, 32)])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_nv12_of_another_size_is_resized_plane_by_plane(resize, frame_hw, order):
    """To nearly what its colors would be, with the mean's color where it is not."""
    spec = dataclasses.replace(SPEC, resize=resize, color_order=order)
    picture = cv2.GaussianBlur(random_picture(*frame_hw), (0, 0), 8)
    tensor, placement = input_from_frame(nv12_from_bgr(picture, "bt601"), spec)
    assert tensor.shape == spec.shape
    assert placement.frame_size_hw == frame_hw
    assert not any(side % 2 for side in (placement.top, placement.left, placement.height, placement.width))
    top, left, height, width = placement.top, placement.left, placement.height, placement.width
    image = bgr_from_nv12(tensor[0], "bt601").astype(int)
    inside = image[top : top + height, left : left + width]
    assert np.abs(inside - cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)).mean() < 4
    border = np.ones(image.shape[:2], bool)
    border[top : top + height, left : left + width] = False
    mean = np.rint(spec.mean)[:: 1 if order == "BGR" else -1]
    assert border.any() == (resize != "stretch" and frame_hw != (24, 32))
    assert not border.any() or np.abs(image[border] - mean).max() <= 2


def test_another_layout_with_a_matrix_has_the_same_pixels():
    """By which PyTorch is given what a graph makes of NV12."""
    picture = random_picture(48, 64)
    plain = InputSpec(name="image", height=48, width=64)
    tensor, _ = input_from_frame(picture, dataclasses.replace(plain, matrix="bt601"))
    pixels = bgr_from_nv12(input_from_frame(picture, SPEC)[0][0], "bt601")
    np.testing.assert_array_equal(tensor, input_from_frame(pixels, plain)[0])
