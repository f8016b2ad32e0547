import numpy as np
import pytest

from sfpp.runtime.agreement import UNMOVED, label_agreement, unmoved_keypoints
from sfpp.runtime.errors import UsageError


def test_label_agreement_is_the_fraction_of_equal_pixels():
    a = np.array([[0, 1], [2, 3]], np.uint8)
    assert label_agreement(a, a) == 1
    assert label_agreement(a, np.array([[0, 1], [2, 0]])) == 0.75


def test_shapes_must_be_equal_and_not_empty():
    with pytest.raises(UsageError, match=r"\(2, 3\) and \(3, 2\)"):
        label_agreement(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(UsageError, match="empty"):
        label_agreement(np.zeros((0, 3)), np.zeros((0, 3)))


def test_keypoints_are_unmoved_within_a_part_of_their_own_box():
    boxes = np.array([[5, 5, 30, 40], [0, 0, 300, 400]], np.float32)
    expected = np.zeros((2, 3, 2), np.float32)
    found = expected.copy()
    found[0] = [[0.99, 0], [0, 1.01], [0.8, 0.8]]  # of a diagonal of 50: 1 pixel
    found[1] = [[0, 9.9], [10.1, 0], [-6, 7.9]]  # of a diagonal of 500: 10 pixels
    assert UNMOVED == 0.02
    assert unmoved_keypoints(found, expected, boxes).tolist() == [[True, False, False], [True, False, True]]
