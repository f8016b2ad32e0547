import math

import numpy as np
import pytest

from sfpp.runtime.agreement import ConfusionMatrix, label_agreement, max_error, mean_error
from sfpp.runtime.errors import UsageError


def test_label_agreement_is_the_fraction_of_equal_pixels():
    a = np.array([[0, 1], [2, 3]], np.uint8)
    assert label_agreement(a, a) == 1
    assert label_agreement(a, np.array([[0, 1], [2, 0]])) == 0.75


def test_errors_do_not_wrap_around():
    a, b = np.array([0, 10], np.uint8), np.array([200, 11], np.uint8)
    assert max_error(a, b) == 200
    assert mean_error(a, b) == 100.5
    assert max_error(np.array([60000], np.float16), np.array([-60000], np.float16)) == 2 * float(np.float16(60000))


def test_nan_is_not_hidden():
    assert math.isnan(max_error(np.array([1.0, np.nan]), np.array([1.0, 2.0])))
    assert math.isnan(max_error(np.array([np.inf]), np.array([np.inf])))


@pytest.mark.parametrize("compare", [label_agreement, max_error, mean_error])
def test_shapes_must_be_equal_and_not_empty(compare):
    with pytest.raises(UsageError, match=r"\(2, 3\) and \(3, 2\)"):
        compare(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(UsageError, match="empty"):
        compare(np.zeros((0, 3)), np.zeros((0, 3)))


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
