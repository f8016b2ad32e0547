import math

import cv2
import numpy as np
import pytest

from sfpp.runtime.errors import UsageError
from sfpp.tooling.metrics import (
    ConfusionMatrix,
    KeypointHits,
    boundary_counts,
    boundary_f_score,
    f_score_from_counts,
    mean_iou_from_counts,
)


def slow_iou(labels, truth, classes, ignore):
    ious = []
    for index in range(classes):
        both = either = 0
        for label, true in zip(labels.ravel(), truth.ravel(), strict=True):
            if true == ignore:
                continue
            both += label == index and true == index
            either += label == index or true == index
        ious.append(both / either if either else math.nan)
    return ious


@pytest.mark.parametrize("ignore", [None, 5])
def test_confusion_matrix_against_counting_by_hand(ignore):
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 4 if ignore is None else 6, size=(20, 30))
    truth[truth == 4] = 0
    labels = rng.integers(0, 4, size=(20, 30)).astype(np.uint8)
    matrix = ConfusionMatrix(5, ignore=ignore)
    for half in (slice(0, 7), slice(7, 20)):  # two updates add up
        matrix.update(labels[half], truth[half])
    expected = slow_iou(labels, truth, 5, ignore)
    np.testing.assert_allclose(matrix.iou(), expected)
    assert math.isnan(expected[4])
    assert matrix.mean_iou() == pytest.approx(np.mean(expected[:4]))
    counted = truth != ignore
    assert matrix.pixel_accuracy() == pytest.approx((labels == truth)[counted].mean())


def test_class_predicted_but_never_true_counts_as_zero():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([0, 0, 1]), np.array([0, 0, 0]))
    np.testing.assert_allclose(matrix.iou(), [2 / 3, 0, np.nan])
    assert matrix.mean_iou() == pytest.approx(1 / 3)
    assert matrix.counts.tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_before_any_pixel_there_is_no_accuracy():
    matrix = ConfusionMatrix(2, ignore=255)
    matrix.update(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    assert math.isnan(matrix.mean_iou())
    assert math.isnan(matrix.pixel_accuracy())


def test_values_that_are_no_class_are_named():
    matrix = ConfusionMatrix(11)
    with pytest.raises(UsageError, match=r"truth hold values 11\.\.11, expected 0\.\.10.*ignore="):
        matrix.update(np.array([0]), np.array([11]))
    with pytest.raises(UsageError, match="labels hold"):
        matrix.update(np.array([12]), np.array([1]))
    with pytest.raises(UsageError, match="at least 1"):
        ConfusionMatrix(0)


def slow_boundary_f(labels, reference, radius, ignore):
    """The definition, pixel by pixel: a disc is what OpenCV's ellipse of this radius covers on a pixel."""
    height, width = labels.shape
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    offsets = np.argwhere(disc) - radius

    def boundary(picture):
        found = set()
        for row, column in np.ndindex(height, width):
            beside = [(row, column + 1), (row + 1, column)]
            if any(r < height and c < width and picture[r, c] != picture[row, column] for r, c in beside):
                around = [(row + r, column + c) for r, c in offsets]
                inside = [(r, c) for r, c in around if 0 <= r < height and 0 <= c < width]
                if ignore is None or all(reference[each] != ignore for each in inside):
                    found.add((row, column))
        return found

    def near(points, others):
        hits = [any((row + r, column + c) in others for r, c in offsets) for row, column in points]
        return sum(hits) / len(hits)

    own, other = boundary(labels), boundary(reference)
    precision, recall = near(own, other), near(other, own)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("ignore", [None, 3])
def test_boundary_score_is_that_of_the_definition(ignore):
    rng = np.random.default_rng(0)
    reference = np.kron(rng.integers(0, 4, (3, 4)), np.ones((12, 12), int)).astype(np.uint8)
    labels = np.roll(np.where(reference == 3, 0, reference), 2, axis=1)
    score = boundary_f_score(labels, reference, ignore=ignore, tolerance=1 / 60)  # the diagonal is 60
    assert score == pytest.approx(slow_boundary_f(labels, reference, 1, ignore))
    assert 0 < score < 1


def test_boundary_score_allows_for_the_tolerance_and_no_more():
    reference = np.zeros((60, 80), np.uint8)
    reference[:, 40:] = 1
    for shift, expected in ((0, 1), (1, 1), (2, 0)):
        assert boundary_f_score(np.roll(reference, shift, 1)[:, 5:75], reference[:, 5:75], tolerance=0.01) == expected
    assert boundary_f_score(np.zeros_like(reference), np.zeros_like(reference)) == 1
    assert boundary_f_score(np.zeros_like(reference), reference) == 0


def test_boundaries_of_several_pictures_add_up():
    reference = np.zeros((60, 80), np.uint8)
    reference[:, 40:] = 1
    empty, far = np.zeros_like(reference), np.roll(reference, 9, axis=1)
    counts = [boundary_counts(labels, reference, tolerance=0.01) for labels in (reference, far, empty)]
    # The column where the picture wraps around is a boundary too.
    assert [each.tolist() for each in counts] == [[60, 60, 60, 60], [0, 120, 0, 60], [0, 0, 0, 60]]
    precision, recall = 60 / 180, 60 / 180
    assert f_score_from_counts(sum(counts)) == pytest.approx(2 * precision * recall / (precision + recall))
    assert f_score_from_counts(np.stack([*counts, np.zeros(4, int)])).tolist() == [1, 0, 0, 1]


def test_many_matrices_are_scored_at_once():
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 9, (5, 4, 4))
    counts[1, 2] = counts[1, :, 2] = 0  # one class occurs nowhere, and then none does
    counts[2] = 0
    scores = mean_iou_from_counts(counts)
    for each, score in zip(counts, scores, strict=True):
        truth, labels = np.repeat(np.indices((4, 4)).reshape(2, 16), each.ravel(), axis=1)
        np.testing.assert_allclose(score, np.nanmean(slow_iou(labels, truth, 4, None)) if each.any() else np.nan)


NAMES = ("left shoulder", "right hip", "nose")


def test_keypoints_count_within_a_fifth_of_the_torso():
    truth = np.array([[0, 0, 1], [0, 100, 1], [50, 50, 1]], np.float32)
    hits = KeypointHits(NAMES)
    hits.update(truth[:, :2] + [[20, 0], [0, 21], [0, 0]], truth)
    assert hits.by_keypoint() == {"left shoulder": 1, "right hip": 0, "nose": 1}
    truth[2, 2] = 0  # not annotated: does not count
    hits.update(truth[:, :2], truth)
    assert hits.pck() == pytest.approx(4 / 5)
    truth[0, 2] = 0  # no torso: the person does not count
    hits.update(truth[:, :2], truth)
    assert hits.pck() == pytest.approx(4 / 5)


def test_keypoint_sets_without_a_torso_go_by_the_persons_size():
    truth = np.array([[0, 0, 1], [60, 80, 1], [500, 500, 0]], np.float32)  # a diagonal of 100, half a torso is 10
    hits = KeypointHits(("a", "b", "c"))
    hits.update(truth[:, :2] + [[3, 0], [5, 0], [0, 0]], truth)
    assert hits.by_keypoint()["a"] == 1
    assert hits.by_keypoint()["b"] == 0
    assert math.isnan(hits.by_keypoint()["c"])
    assert math.isnan(KeypointHits(("a",)).pck())
    with pytest.raises(UsageError, match=r"shapes \(2, 2\) and \(3, 3\)"):
        hits.update(truth[:2, :2], truth)
