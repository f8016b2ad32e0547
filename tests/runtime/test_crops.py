import numpy as np
import pytest

from sfpp.runtime.crops import (
    box_of_crop,
    checked_boxes,
    crop_from_box,
    frame_from_heatmap,
    region_from_box,
    warp_from_box,
)
from sfpp.runtime.errors import UsageError

FRAME_HW = (480, 640)
BOXES = [(100, 80, 50, 200), (300, 100, 250, 60), (-60, -90, 200, 300), (600, 400, 120, 160), (10.5, 20.25, 33.3, 44.4)]
SIZES = [(256, 192), (384, 288), (640, 480), (192, 256)]


def slow_center_and_scale(box, size_hw, padding):
    """MMPose's words: center and padded scale, then the aspect ratio fixed by enlarging the smaller side."""
    x, y, w, h = box
    center, scale = (x + w / 2, y + h / 2), (w * padding, h * padding)
    aspect = size_hw[1] / size_hw[0]
    if scale[0] > scale[1] * aspect:
        return center, (scale[0], scale[0] / aspect)
    return center, (scale[1] * aspect, scale[1])


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("box", BOXES)
def test_warp_brings_the_grown_boxs_corners_to_the_crops(box, size_hw):
    (cx, cy), (w, h) = slow_center_and_scale(box, size_hw, 1.25)
    matrix = warp_from_box(box, size_hw, padding=1.25)
    for across in (0, 0.5, 1):
        for down in (0, 0.5, 1):
            point = cx + (across - 0.5) * w, cy + (down - 0.5) * h, 1
            np.testing.assert_allclose(matrix @ point, (across * size_hw[1], down * size_hw[0]), atol=1e-9)
    assert matrix[0, 0] == matrix[1, 1]  # nobody is squeezed
    np.testing.assert_allclose(region_from_box(box, size_hw, padding=1.25), [cx - w / 2, cy - h / 2, w, h])


def test_box_of_the_inputs_size_is_copied_pixel_by_pixel():
    frame = np.random.default_rng(1).integers(0, 256, size=(*FRAME_HW, 3), dtype=np.uint8)
    crop = crop_from_box(frame, np.array([40, 30, 192, 256], np.float32), (256, 192), padding=1)
    np.testing.assert_array_equal(crop, frame[30:286, 40:232])


def test_crop_interpolates_linearly_and_is_black_outside():
    y, x = np.mgrid[:100, :120]
    frame = np.stack([2 * x, 2 * y, np.full_like(x, 90)], axis=-1).astype(
        np.uint8
    )  # the picture tells its own coordinates
    crop = crop_from_box(frame, np.array([-20, 10, 60, 80], np.float32), (160, 120), padding=1)
    rows, columns = np.mgrid[:160, :120]
    inside = columns / 2 - 20 >= 0
    expected = np.stack([columns - 40, rows + 20, np.full_like(rows, 90)], axis=-1)
    assert np.abs(crop[inside] - expected[inside]).max() <= 0.51
    assert not crop[columns / 2 - 20 <= -1].any()


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("stride", [4, 8])
def test_heatmap_to_frame_is_the_warps_inverse(size_hw, stride):
    cells_hw = size_hw[0] // stride, size_hw[1] // stride
    boxes = np.array(BOXES, np.float32)
    cells = np.random.default_rng(2).uniform(0, cells_hw[::-1], size=(len(boxes), 7, 2))
    keypoints_xy = frame_from_heatmap(cells, boxes, cells_hw, size_hw, padding=1.25)
    assert keypoints_xy.dtype == np.float32
    for box, points, expected in zip(boxes, keypoints_xy, cells, strict=True):
        crop_xy = np.column_stack([points, np.ones(7)]) @ warp_from_box(box, size_hw, padding=1.25).T
        np.testing.assert_allclose(crop_xy, stride * expected, atol=1e-2)


def test_heatmap_to_frame_follows_mmpose():
    (cx, cy), (w, h) = slow_center_and_scale(BOXES[1], (256, 192), 1.25)
    (point,) = frame_from_heatmap(np.array([[[10.25, 20.0]]]), np.array(BOXES[1:2]), (64, 48), (256, 192))[0]
    np.testing.assert_allclose(point, (10.25 / 48 * w + cx - w / 2, 20 / 64 * h + cy - h / 2), rtol=1e-6)


def test_nobody_has_no_keypoints():
    empty = checked_boxes([], FRAME_HW)
    assert (empty.shape, empty.dtype) == ((0, 4), np.float32)
    assert frame_from_heatmap(np.zeros((0, 17, 2)), empty, (64, 48), (256, 192)).shape == (0, 17, 2)
    assert checked_boxes(np.zeros((0, 4)), FRAME_HW).shape == (0, 4)


def test_boxes_are_copied():
    boxes = np.array(BOXES, np.float32)
    checked = checked_boxes(boxes, FRAME_HW)
    checked[:] = 0
    np.testing.assert_array_equal(boxes, np.array(BOXES, np.float32))
    np.testing.assert_array_equal(checked_boxes(BOXES, FRAME_HW), boxes)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((np.nan, 0, 5, 5), "expected finite numbers"),
        ((0, 0, np.inf, 5), "expected finite numbers"),
        ((0, 0, 1e300, 5), "expected finite numbers"),
        ((0, 0, 0, 5), "expected a positive width and height"),
        ((0, 0, 5, -5), "expected a positive width and height"),
        ((640, 0, 5, 5), r"does not touch the frame of 640x480 \(width x height\)"),
        ((0, 480, 5, 5), "does not touch"),
        ((-5, 0, 5, 5), "does not touch"),
        ((0, -50, 5, 5), "does not touch"),
    ],
)
def test_bad_box_is_named_by_its_index(box, message):
    with pytest.raises(UsageError, match=rf"box 2 is \(.*\).*{message}"):
        checked_boxes([BOXES[0], BOXES[1], box], FRAME_HW)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 3, 4], r"have shape \(4,\), expected \(people, 4\)"),
        ([[1, 2, 3]], r"have shape \(1, 3\)"),
        ([[1, 2, 3, 4], [1, 2]], "cannot be read as numbers"),
        ([["a", "b", "c", "d"]], "cannot be read as numbers"),
        (None, "shape"),
        (np.zeros((0, 4, 2)), r"have shape \(0, 4, 2\)"),
    ],
)
def test_what_is_no_list_of_boxes(boxes, message):
    with pytest.raises(UsageError, match=message):
        checked_boxes(boxes, FRAME_HW)


@pytest.mark.parametrize("box", [(0, 0, 1e-30, 1e-30), (-1e30, -1e30, 3e30, 3e30), (639.5, 479.5, 1e6, 1e-6)])
def test_absurd_sizes_are_cropped_without_a_crash(box):
    boxes = checked_boxes([box], FRAME_HW)
    crop = crop_from_box(np.full((*FRAME_HW, 3), 9, np.uint8), boxes[0], (64, 48))
    assert crop.shape == (64, 48, 3)
    assert np.isfinite(frame_from_heatmap(np.ones((1, 2, 2)), boxes, (16, 12), (64, 48))).all()


@pytest.mark.parametrize("padding", [1.0, 1.25, 1.5])
def test_the_box_of_a_crop_grows_to_the_whole_of_it(padding):
    (box,) = box_of_crop((256, 192), padding=padding)
    assert region_from_box(box, (256, 192), padding=padding) == pytest.approx([0, 0, 192, 256], abs=1e-4)
    assert box[2] == pytest.approx(192 / padding)
