"""The sparse label map against the obvious one: interpolate every class at every pixel, take the argmax."""

import numpy as np
import pytest

from sfpp.runtime import labels as labels_module
from sfpp.runtime.errors import BackendError, UsageError
from sfpp.runtime.labels import labels_from_logits, labels_resized


def slow_labels(logits, size_hw, region=None, *, align_corners=False):
    _, h, w = logits.shape
    top, left, height, width = region or ((0, 0, h - 1, w - 1) if align_corners else (0, 0, h, w))
    wide = logits.astype(np.float64)
    labels = np.zeros(size_hw, np.uint8)
    for y in range(size_hw[0]):
        for x in range(size_hw[1]):
            row = min(max(top + (y + 0.5) * height / size_hw[0] - 0.5, 0), h - 1)
            column = min(max(left + (x + 0.5) * width / size_hw[1] - 0.5, 0), w - 1)
            if align_corners:
                row = top + y * height / max(1, size_hw[0] - 1)
                column = left + x * width / max(1, size_hw[1] - 1)
            i, j = int(row), int(column)
            below, beside = min(i + 1, h - 1), min(j + 1, w - 1)
            fy, fx = row - i, column - j
            upper = wide[:, i, j] * (1 - fx) + wide[:, i, beside] * fx
            lower = wide[:, below, j] * (1 - fx) + wide[:, below, beside] * fx
            labels[y, x] = np.argmax(upper * (1 - fy) + lower * fy)
    return labels


SIZES = pytest.mark.parametrize(
    ("shape", "size_hw"),
    [
        ((5, 12, 16), (48, 64)),  # the usual factor 4
        ((5, 12, 16), (37, 71)),  # no whole factor
        ((19, 9, 7), (50, 13)),  # one axis much more than the other
        ((4, 30, 40), (11, 17)),  # a frame smaller than the logits
        ((4, 8, 40), (30, 10)),  # larger on one axis, smaller on the other
        ((4, 10, 10), (10, 10)),  # the same size
        ((3, 1, 9), (20, 30)),  # one row
        ((3, 9, 1), (20, 30)),  # one column
        ((3, 1, 1), (5, 4)),
        ((1, 6, 6), (20, 20)),
        ((3, 2, 2), (90, 90)),  # one cell larger than a chunk of the test below
        ((6, 7, 9), (1, 1)),
    ],
)


@SIZES
def test_labels_equal_the_dense_argmax(shape, size_hw):
    logits = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    found = labels_from_logits(logits, size_hw)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, slow_labels(logits, size_hw))


@SIZES
def test_labels_with_aligned_corners_equal_the_dense_argmax(shape, size_hw):
    logits = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    found = labels_from_logits(logits, size_hw, align_corners=True)
    np.testing.assert_array_equal(found, slow_labels(logits, size_hw, align_corners=True))
    winners = logits.argmax(axis=0)
    assert found[0, 0] == winners[0, 0]
    if min(size_hw) > 1:
        assert (found[0, -1], found[-1, 0], found[-1, -1]) == (winners[0, -1], winners[-1, 0], winners[-1, -1])


@pytest.mark.parametrize("region", [(2.0, 0.0, 8.0, 15.0), (0.0, 3.25, 11.0, 9.5), (1.3, 2.7, 3.1, 0.0)])
def test_region_between_aligned_corners(region):
    logits = np.random.default_rng(7).normal(size=(6, 12, 16)).astype(np.float32)
    found = labels_from_logits(logits, (33, 41), region=region, align_corners=True)
    np.testing.assert_array_equal(found, slow_labels(logits, (33, 41), region, align_corners=True))


def test_smooth_map_with_most_cells_filled_by_look_up(monkeypatch):
    coarse = np.random.default_rng(5).normal(size=(4, 5, 6)).astype(np.float32)
    logits = coarse.repeat(6, axis=1).repeat(6, axis=2)
    expected = slow_labels(logits, (75, 100))
    np.testing.assert_array_equal(labels_from_logits(logits, (75, 100)), expected)
    # Many chunks give what one chunk gives.
    monkeypatch.setattr(labels_module, "_CHUNK_PIXELS", 50)
    np.testing.assert_array_equal(labels_from_logits(logits, (75, 100)), expected)


@pytest.mark.parametrize("region", [(2.0, 0.0, 8.0, 16.0), (0.0, 3.25, 12.0, 9.5), (1.3, 2.7, 3.1, 4.9)])
def test_region_samples_only_the_rectangle_that_the_frame_covers(region):
    logits = np.random.default_rng(7).normal(size=(6, 12, 16)).astype(np.float32)
    found = labels_from_logits(logits, (33, 41), region=region)
    np.testing.assert_array_equal(found, slow_labels(logits, (33, 41), region))


def test_first_class_wins_ties():
    # Small integers at a factor of 4 interpolate without rounding, so that ties are real in both versions.
    logits = np.random.default_rng(11).integers(-2, 3, size=(5, 14, 15)).astype(np.float32)
    np.testing.assert_array_equal(labels_from_logits(logits, (56, 60)), slow_labels(logits, (56, 60)))


def test_class_that_wins_at_no_corner_can_win_between_them():
    logits = np.array([[[10, -10]], [[-10, 10]], [[9, 9]]], np.float32)
    assert labels_from_logits(logits, (1, 8))[0].tolist() == [0, 0, 2, 2, 2, 2, 1, 1]


def test_all_256_classes_and_no_more():
    logits = np.zeros((256, 2, 2), np.float32)
    logits[255, 0] = 1
    logits[254, 1] = 1
    assert labels_from_logits(logits, (4, 1))[:, 0].tolist() == [255, 255, 254, 254]
    with pytest.raises(UsageError, match=r"257 classes.*at most 256"):
        labels_from_logits(np.zeros((257, 2, 2), np.float32), (4, 4))


def test_half_precision_and_infinite_logits():
    logits = np.random.default_rng(13).normal(size=(4, 6, 6)).astype(np.float16)
    np.testing.assert_array_equal(labels_from_logits(logits, (20, 20)), slow_labels(logits, (20, 20)))
    overflowed = np.array([[[np.inf, -np.inf]], [[-np.inf, np.inf]]], np.float16)
    assert labels_from_logits(overflowed, (1, 4))[0].tolist() == [0, 0, 1, 1]


def test_extreme_finite_logits_do_not_overflow():
    logits = np.array([[[3e38, -3e38]], [[-3e38, 3e38]]], np.float32)
    assert labels_from_logits(logits, (1, 4))[0].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("chunk", [1, 8, 1 << 16])
@pytest.mark.parametrize("channel", [0, 2])
def test_nan_is_an_error_rather_than_a_label(monkeypatch, channel, chunk):
    monkeypatch.setattr(labels_module, "_CHUNK_PIXELS", chunk)
    logits = np.zeros((3, 4, 4), np.float32)
    logits[channel, 2, 1] = np.nan
    with pytest.raises(BackendError, match=r"NaN.*FP32"):
        labels_from_logits(logits, (8, 8))


def test_logits_of_any_memory_layout():
    logits = np.random.default_rng(17).normal(size=(6, 7, 3)).astype(np.float32).transpose(2, 0, 1)
    np.testing.assert_array_equal(labels_from_logits(logits, (25, 25)), slow_labels(logits, (25, 25)))


@pytest.mark.parametrize(("shape", "size_hw"), [((4, 5), (8, 8)), ((3, 0, 5), (8, 8)), ((3, 4, 5), (0, 8))])
def test_malformed_arguments_are_named(shape, size_hw):
    with pytest.raises(UsageError, match=r"expected|positive"):
        labels_from_logits(np.zeros(shape, np.float32), size_hw)


@pytest.mark.parametrize("size_hw", [(12, 16), (29, 50), (5, 3)])
@pytest.mark.parametrize("region", [None, (2.0, 1.0, 8.0, 12.0)])
def test_nearest_neighbour_takes_the_cell_under_each_pixel_center(size_hw, region):
    labels = np.random.default_rng(19).integers(0, 255, size=(12, 16)).astype(np.uint8)
    top, left, height, width = region or (0, 0, 12, 16)
    expected = [
        [
            labels[int(top + (y + 0.5) * height / size_hw[0]), int(left + (x + 0.5) * width / size_hw[1])]
            for x in range(size_hw[1])
        ]
        for y in range(size_hw[0])
    ]
    np.testing.assert_array_equal(labels_resized(labels, size_hw, region=region), expected)


@pytest.mark.parametrize("size_hw", [(12, 16), (29, 50), (5, 3), (1, 1)])
@pytest.mark.parametrize("region", [None, (2.0, 1.0, 8.0, 12.0)])
def test_nearest_neighbour_between_aligned_corners(size_hw, region):
    labels = np.random.default_rng(19).integers(0, 255, size=(12, 16)).astype(np.uint8)
    top, left, height, width = region or (0, 0, 11, 15)
    steps = height / max(1, size_hw[0] - 1), width / max(1, size_hw[1] - 1)
    expected = [
        [labels[int(top + y * steps[0] + 0.5), int(left + x * steps[1] + 0.5)] for x in range(size_hw[1])]
        for y in range(size_hw[0])
    ]
    np.testing.assert_array_equal(labels_resized(labels, size_hw, region=region, align_corners=True), expected)
