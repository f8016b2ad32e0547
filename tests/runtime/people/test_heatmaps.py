import numpy as np
import pytest

from sfpp.runtime.errors import BackendError, UsageError
from sfpp.runtime.people.heatmaps import average_with_mirrored, keypoints_from_heatmaps


def slow_keypoints(heatmaps):
    """One heatmap after the other, cell by cell."""
    people, keypoints, rows, columns = heatmaps.shape
    coordinates, scores = np.zeros((people, keypoints, 2)), np.zeros((people, keypoints))
    for n in range(people):
        for k in range(keypoints):
            heatmap = heatmaps[n, k]
            best, x, y = -np.inf, 0, 0
            for row in range(rows):
                for column in range(columns):
                    if heatmap[row, column] > best:
                        best, x, y = heatmap[row, column], column, row
            dx = np.sign(heatmap[y, x + 1] - heatmap[y, x - 1]) / 4 if 0 < x < columns - 1 else 0
            dy = np.sign(heatmap[y + 1, x] - heatmap[y - 1, x]) / 4 if 0 < y < rows - 1 else 0
            coordinates[n, k] = x + dx, y + dy
            scores[n, k] = min(1, max(0, best))
    return coordinates, scores


@pytest.mark.parametrize("size_hw", [(8, 6), (5, 9), (1, 7), (7, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("levels", [3, 1000])  # few levels: ties
def test_equals_the_slow_version(size_hw, levels):
    rng = np.random.default_rng(1)
    heatmaps = (rng.integers(-levels, 2 * levels, size=(4, 25, *size_hw)) / levels).astype(np.float32)
    coordinates, scores = keypoints_from_heatmaps(heatmaps)
    slow_coordinates, slow_scores = slow_keypoints(heatmaps)
    assert (coordinates.dtype, scores.dtype) == (np.float32, np.float32)
    np.testing.assert_array_equal(coordinates, slow_coordinates)
    np.testing.assert_allclose(scores, slow_scores, rtol=1e-7)


def gaussians(points_xy, size_hw, sigma=2.0):
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    squared = (x - points_xy[..., 0, None, None]) ** 2 + (y - points_xy[..., 1, None, None]) ** 2
    return np.exp(-squared / (2 * sigma**2)).astype(np.float32)


def test_gaussians_come_back_within_a_quarter_cell_on_each_axis():
    points = np.random.default_rng(2).uniform((1, 1), (46, 62), size=(20, 17, 2))
    coordinates, scores = keypoints_from_heatmaps(gaussians(points, (64, 48)))
    assert np.abs(coordinates - points).max() <= 0.25 + 1e-5
    assert scores.min() > 0.9
    rounded, _ = keypoints_from_heatmaps(gaussians(points.round(), (64, 48)))
    np.testing.assert_array_equal(rounded, points.round())  # a symmetric peak is not moved


def test_batch_equals_singles():
    heatmaps = np.random.default_rng(3).normal(size=(3, 5, 8, 6)).astype(np.float32)
    coordinates, scores = keypoints_from_heatmaps(heatmaps)
    for person in range(3):
        single_coordinates, single_scores = keypoints_from_heatmaps(heatmaps[person : person + 1])
        np.testing.assert_array_equal(single_coordinates[0], coordinates[person])
        np.testing.assert_array_equal(single_scores[0], scores[person])


@pytest.mark.parametrize("value", [0.0, -0.5, -1e38])
def test_nothing_above_zero_scores_zero_and_stays_finite(value):
    coordinates, scores = keypoints_from_heatmaps(np.full((1, 2, 4, 5), value, np.float32))
    assert not scores.any()
    assert np.isfinite(coordinates).all()


def test_scores_are_cut_at_one():
    heatmaps = np.zeros((1, 1, 4, 4), np.float32)
    heatmaps[0, 0, 2, 1] = 1.2
    coordinates, scores = keypoints_from_heatmaps(heatmaps)
    assert scores.item() == 1
    assert coordinates.tolist() == [[[1, 2]]]


def test_half_precision_and_other_memory_layouts():
    heatmaps = np.random.default_rng(4).integers(0, 1000, size=(2, 3, 8, 6)).astype(np.float16) / np.float16(1024)
    coordinates, scores = keypoints_from_heatmaps(heatmaps)
    again = np.asfortranarray(heatmaps.astype(np.float64))
    np.testing.assert_array_equal(keypoints_from_heatmaps(again)[0], coordinates)
    assert scores.dtype == coordinates.dtype == np.float32


def test_nobody():
    coordinates, scores = keypoints_from_heatmaps(np.zeros((0, 17, 8, 6), np.float32))
    assert (coordinates.shape, scores.shape) == ((0, 17, 2), (0, 17))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value):
    heatmaps = np.zeros((2, 3, 4, 5), np.float32)
    heatmaps[1, 2, 3, 3] = value
    with pytest.raises(BackendError, match="heatmaps contain NaN or infinity"):
        keypoints_from_heatmaps(heatmaps)


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 2, 0, 5), (1, 2, 3, 4, 5)])
def test_shapes_that_are_no_heatmaps(shape):
    with pytest.raises(UsageError, match=r"expected \(people, keypoints, rows, columns\)"):
        keypoints_from_heatmaps(np.zeros(shape, np.float32))


def slow_average(heatmaps, mirrored, flip_indices):
    people, keypoints, rows, columns = heatmaps.shape
    mean = np.zeros(heatmaps.shape)
    for n, k, y, x in np.ndindex(people, keypoints, rows, columns):
        # The first column has no cell to its left to be filled from, so it keeps its own.
        source = columns - 1 - max(x - 1, 0)
        mean[n, k, y, x] = (heatmaps[n, k, y, x] + mirrored[n, flip_indices[k], y, source]) / 2
    return mean


def test_average_equals_the_slow_version():
    rng = np.random.default_rng(5)
    heatmaps, mirrored = rng.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    before = mirrored.copy()
    averaged = average_with_mirrored(heatmaps, mirrored, (2, 1, 0, 3))
    assert averaged.dtype == np.float32
    np.testing.assert_allclose(averaged, slow_average(heatmaps, mirrored, (2, 1, 0, 3)), rtol=1e-6)
    np.testing.assert_array_equal(mirrored, before)
