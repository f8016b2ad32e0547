import dataclasses

import cv2
import numpy as np
import pytest

from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.images import batch_from_frames, bgr_from_frame, input_from_frame, place_frame, with_even_sides

SPEC = InputSpec(name="frame", height=48, width=64)
FLOAT_SPEC = dataclasses.replace(SPEC, name="image", layout="NCHW", dtype="float32", normalized_in_graph=False)


def random_frame(height, width, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("frame_hw", "expected"),
    [
        ((48, 64), (0, 0, 48, 64)),
        ((96, 128), (0, 0, 48, 64)),
        ((48, 32), (0, 16, 48, 32)),  # narrower: bars left and right
        ((20, 64), (14, 0, 20, 64)),  # flatter: bars above and below
        ((100, 50), (0, 20, 48, 24)),
        ((1, 5000), (23, 0, 1, 64)),  # at least one row stays
    ],
)
def test_letterbox_keeps_the_aspect_ratio_and_centers(frame_hw, expected):
    placement = place_frame(frame_hw, SPEC)
    assert (placement.top, placement.left, placement.height, placement.width) == expected
    assert placement.scale_yx == (expected[2] / frame_hw[0], expected[3] / frame_hw[1])


@pytest.mark.parametrize(("frame_hw", "expected"), [((100, 100), (0, 0, 48, 48)), ((100, 50), (0, 0, 48, 24))])
def test_padding_is_at_the_right_and_below(frame_hw, expected):
    spec = dataclasses.replace(SPEC, resize="pad")
    placement = place_frame(frame_hw, spec)
    assert (placement.top, placement.left, placement.height, placement.width) == expected
    tensor, _ = input_from_frame(np.full((*frame_hw, 3), 255, np.uint8), spec)
    assert (tensor[0, :, : expected[3]] == 255).all()
    assert (tensor[0, :, expected[3] :] == np.rint(spec.mean)).all()


def test_stretch_fills_the_input():
    placement = place_frame((10, 500), dataclasses.replace(SPEC, resize="stretch"))
    assert (placement.top, placement.left, placement.height, placement.width) == (0, 0, 48, 64)


def test_region_is_in_cells_of_the_output():
    placement = place_frame((48, 32), SPEC)
    assert placement.region((12, 16), model_size_hw=SPEC.size_hw) == (0, 4, 12, 8)
    # A stride that does not divide the input: the 13 cells still stand for all of its 50 rows.
    odd = dataclasses.replace(SPEC, height=50, resize="stretch")
    assert place_frame((10, 10), odd).region((13, 16), model_size_hw=odd.size_hw) == (0, 0, 13, 16)


def test_region_between_aligned_corners_is_counted_from_the_first_cell():
    placement = place_frame((48, 32), SPEC)  # columns 16 to 47 of 64
    region = placement.region((12, 16), model_size_hw=SPEC.size_hw, align_corners=True)
    assert region == pytest.approx((0, 16 * 15 / 63, 11, 31 * 15 / 63))
    one_pixel = InputSpec("frame", 1, 1)
    assert place_frame((5, 5), one_pixel).region((1, 1), model_size_hw=(1, 1), align_corners=True) == (0, 0, 0, 0)


def test_frame_of_the_models_size_is_not_resampled():
    frame = random_frame(48, 64)
    tensor, placement = input_from_frame(frame, SPEC)
    assert tensor.shape == SPEC.shape
    assert tensor.dtype == np.uint8
    assert placement.scale_yx == (1, 1)
    np.testing.assert_array_equal(tensor[0], frame[..., ::-1])


def test_bgr_models_get_the_channels_as_they_are():
    frame = random_frame(48, 64)[:, ::-1]
    tensor, _ = input_from_frame(frame, dataclasses.replace(SPEC, color_order="BGR"))
    np.testing.assert_array_equal(tensor[0], frame)
    assert tensor.flags.c_contiguous


@pytest.mark.parametrize("color_order", ["RGB", "BGR"])
def test_float_input_is_normalized_by_the_formula(color_order):
    spec = dataclasses.replace(FLOAT_SPEC, color_order=color_order, mean=(10, 20, 30), std=(2, 4, 8))
    frame = random_frame(48, 64)
    tensor, _ = input_from_frame(frame, spec)
    assert tensor.shape == (1, 3, 48, 64)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    channels = frame[..., ::-1] if color_order == "RGB" else frame
    expected = (channels.astype(np.float64) - (10, 20, 30)) / (2, 4, 8)
    np.testing.assert_allclose(tensor[0], expected.transpose(2, 0, 1), rtol=1e-6)


def test_float_input_stays_raw_when_the_graph_normalizes():
    frame = random_frame(48, 64)
    tensor, _ = input_from_frame(frame, dataclasses.replace(FLOAT_SPEC, normalized_in_graph=True, layout="NHWC"))
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor[0], frame[..., ::-1])


def test_letterbox_bars_hold_the_mean_color():
    frame = random_frame(48, 32)
    tensor, placement = input_from_frame(frame, SPEC)
    inside = slice(placement.left, placement.left + placement.width)
    np.testing.assert_array_equal(tensor[0, :, inside], frame[..., ::-1])
    bars = np.delete(tensor[0], np.arange(64)[inside], axis=1)
    assert bars.shape == (48, 32, 3)
    assert (bars == (124, 116, 104)).all()
    normalized, _ = input_from_frame(frame, FLOAT_SPEC)
    assert np.abs(normalized[0, :, :, :16]).max() < 0.01


@pytest.mark.parametrize(
    ("frame_hw", "interpolation"),
    [
        ((96, 128), cv2.INTER_AREA),  # half the size: area
        ((150, 200), cv2.INTER_AREA),
        ((90, 120), cv2.INTER_LINEAR),  # less than half
        ((24, 32), cv2.INTER_LINEAR),  # enlarged
    ],
)
def test_area_averaging_from_half_the_size_on(frame_hw, interpolation):
    frame = random_frame(*frame_hw)
    tensor, _ = input_from_frame(frame, SPEC)
    expected = cv2.resize(frame, (64, 48), interpolation=interpolation)
    np.testing.assert_array_equal(tensor[0], expected[..., ::-1])


def test_linear_when_only_one_axis_shrinks_by_two():
    frame = random_frame(48, 256)
    tensor, _ = input_from_frame(frame, dataclasses.replace(SPEC, resize="stretch"))
    expected = cv2.resize(frame, (64, 48), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(tensor[0], expected[..., ::-1])


@pytest.mark.parametrize("frame_hw", [(96, 128), (150, 200), (90, 120), (24, 32)])
def test_linear_at_every_size_where_the_contract_says_so(frame_hw):
    frame = random_frame(*frame_hw)
    tensor, _ = input_from_frame(frame, dataclasses.replace(SPEC, interpolation="linear"))
    expected = cv2.resize(frame, (64, 48), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(tensor[0], expected[..., ::-1])


@pytest.mark.parametrize(
    "frame_hw",
    [
        (1080, 1920),
        (97, 131),  # no whole factor
        (48, 200),  # one axis alone
        (300, 64),
        (48, 64),  # none
        (24, 200),  # one shrinks, one grows
        (20, 30),  # both grow
        (1, 1),
        (1, 997),
        (47, 63),
        (49, 65),
    ],
)
def test_antialias_is_pillows_filter_to_the_bit(frame_hw):
    image_module = pytest.importorskip("PIL.Image")
    frame = random_frame(*frame_hw)
    frame[: frame_hw[0] // 3] = frame[: frame_hw[0] // 3] // 128 * 255  # values at both ends
    spec = dataclasses.replace(SPEC, interpolation="antialias", resize="stretch")
    tensor, _ = input_from_frame(frame, spec)
    expected = image_module.fromarray(frame).resize((64, 48), image_module.Resampling.BILINEAR)
    np.testing.assert_array_equal(tensor[0], np.asarray(expected)[..., ::-1])


def test_antialias_is_the_triangle_filter_written_out():
    """Each pass as a sum over all pixels in its reach; at most one of 255 apart from a filter without roundings."""
    frame = random_frame(53, 151)
    tensor, _ = input_from_frame(frame, dataclasses.replace(SPEC, interpolation="antialias", resize="stretch"))
    image = frame[..., ::-1].astype(np.float64)
    for axis, count in ((1, 64), (0, 48)):
        scale = image.shape[axis] / count
        centers = (np.arange(count)[:, np.newaxis] + 0.5) * scale
        distance = np.abs(np.arange(image.shape[axis]) + 0.5 - centers) / max(scale, 1)
        weights = np.maximum(0, 1 - distance)
        weights /= weights.sum(axis=1, keepdims=True)
        image = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
    assert np.abs(tensor[0] - image).max() <= 1


def test_antialias_keeps_to_the_letterbox():
    frame = random_frame(200, 100)
    spec = dataclasses.replace(SPEC, interpolation="antialias")
    tensor, placement = input_from_frame(frame, spec)
    inner = dataclasses.replace(spec, height=placement.height, width=placement.width, resize="stretch")
    inside = tensor[0, :, placement.left : placement.left + placement.width]
    np.testing.assert_array_equal(inside, input_from_frame(frame, inner)[0][0])
    assert (tensor[0, :, : placement.left] == (124, 116, 104)).all()


@pytest.mark.parametrize("interpolation", ["area", "antialias"])
def test_one_channel_is_the_grey_picture(interpolation):
    spec = dataclasses.replace(FLOAT_SPEC, channels=1, mean=(100,), std=(50,), interpolation=interpolation)
    frame = random_frame(96, 64)
    tensor, placement = input_from_frame(frame, spec)
    assert (tensor.shape, tensor.dtype) == ((1, 1, 48, 64), np.float32)
    colors, _ = input_from_frame(frame, dataclasses.replace(SPEC, color_order="BGR", interpolation=interpolation))
    grey = cv2.cvtColor(colors[0], cv2.COLOR_BGR2GRAY)
    inside = slice(placement.left, placement.left + placement.width)
    np.testing.assert_allclose(tensor[0, 0, :, inside], (grey[:, inside] - 100.0) / 50, rtol=1e-6)
    assert (tensor[0, 0, :, : inside.start] == 0).all()
    raw = dataclasses.replace(spec, normalized_in_graph=True, batch=2)
    assert batch_from_frames([frame], raw)[0].shape == (2, 1, 48, 64)


def test_other_channels_are_fed_by_the_program():
    spec = dataclasses.replace(FLOAT_SPEC, channels=4, mean=(0,) * 4, std=(1,) * 4)
    with pytest.raises(UsageError, match=r"takes 4 channels, .* 1x4x48x64 float32, with model\.infer"):
        input_from_frame(random_frame(48, 64), spec)


def test_non_contiguous_frames_give_what_their_copies_give():
    frame = random_frame(96, 128)
    for view in (frame[:, ::-1], frame[::2, ::2], frame[..., ::-1], frame.transpose(1, 0, 2)):
        from_view, _ = input_from_frame(view, SPEC)
        from_copy, _ = input_from_frame(view.copy(), SPEC)
        np.testing.assert_array_equal(from_view, from_copy)


def test_grey_and_bgra_frames_become_bgr():
    frame = random_frame(8, 6)
    np.testing.assert_array_equal(bgr_from_frame(frame[..., 0]), np.repeat(frame[..., :1], 3, axis=2))
    with_alpha = np.dstack([frame, np.full((8, 6), 7, np.uint8)])
    np.testing.assert_array_equal(bgr_from_frame(with_alpha), frame)


@pytest.mark.parametrize(
    "frame",
    [
        None,
        [[1, 2], [3, 4]],
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_anything_else_is_refused_with_what_was_given(frame):
    with pytest.raises(MediaError, match=r"the frame is a \w+ of shape .* and type .*; expected \(H, W, 3\) BGR"):
        input_from_frame(frame, SPEC)


def test_batch_equals_singles_and_repeats_the_last_frame():
    spec = dataclasses.replace(SPEC, batch=4)
    frames = [random_frame(30, 40, seed=1), random_frame(50, 20, seed=2)]
    tensor, placements = batch_from_frames(frames, spec)
    assert tensor.shape == spec.shape
    singles = [input_from_frame(frame, spec) for frame in frames]
    for index, single in enumerate([singles[0], singles[1], singles[1], singles[1]]):
        np.testing.assert_array_equal(tensor[index], single[0][0])
    assert placements == (singles[0][1], singles[1][1])


@pytest.mark.parametrize("count", [0, 3])
def test_batch_of_no_frame_or_too_many_is_refused(count):
    with pytest.raises(UsageError, match=f"{count} frames given, but the model takes 1 to 2"):
        batch_from_frames([random_frame(4, 4)] * count, dataclasses.replace(SPEC, batch=2))


@pytest.mark.parametrize("size_hw", [(3, 4), (4, 3), (3, 5), (4, 4), (1, 1)])
def test_odd_sides_grow_by_their_last_row_or_column(size_hw):
    image = np.random.default_rng(1).integers(0, 256, (*size_hw, 3), np.uint8)
    grown = with_even_sides(image)
    height, width = size_hw
    assert grown.shape[:2] == (height + height % 2, width + width % 2)
    np.testing.assert_array_equal(grown[:height, :width], image)
    np.testing.assert_array_equal(grown[-1, :width], image[-1])
    np.testing.assert_array_equal(grown[:height, -1], image[:, -1])
