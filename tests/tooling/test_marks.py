"""What differs is marked, and nothing else."""

import numpy as np
import pytest

from sfpp.runtime.errors import UsageError
from sfpp.tooling.marks import MARK_BGR, marked_keypoints, marked_labels


def test_pixels_that_differ_are_bright_and_all_others_dark():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (20, 30, 3), np.uint8)
    reference = rng.integers(0, 6, (20, 30), np.uint8)
    labels = reference.copy()
    labels[3:5, 7:9] = 5 - labels[3:5, 7:9]
    differs = labels != reference
    marked = marked_labels(frame, labels, reference, [(255, 255, 255)] * 6)
    assert marked.shape == frame.shape
    assert marked.dtype == np.uint8
    assert (marked[differs] == (66, 228, 240)).all()
    brightness = marked @ np.array([0.114, 0.587, 0.299])
    assert brightness[differs].min() > brightness[~differs].max() + 40


def test_a_frame_is_dimmed_grey_with_a_tint_of_its_classes():
    frame = np.zeros((2, 3, 3), np.uint8)
    frame[:] = (0, 0, 200)  # red, which is a grey of 60
    reference = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
    marked = marked_labels(frame, reference, reference, [(0, 0, 0), (0, 0, 255)])
    grey = 0.8 * (0.48 * 60 + 25)
    np.testing.assert_allclose(marked[reference == 0], grey, atol=1)
    np.testing.assert_allclose(marked[reference == 1] - np.array([51, 0, 0]), grey, atol=1)
    assert (frame == (0, 0, 200)).all()


@pytest.mark.parametrize(("labels", "reference"), [((4, 5), (4, 6)), ((4, 6), (5, 6))])
def test_labels_of_another_size_cannot_be_marked(labels, reference):
    frame = np.zeros((4, 6, 3), np.uint8)
    with pytest.raises(UsageError, match=r"the frame is 4x6 .* compare labels at the frame's own size"):
        marked_labels(frame, np.zeros(labels, np.uint8), np.zeros(reference, np.uint8), [(0, 0, 0)])


def test_only_keypoints_that_moved_are_marked():
    frame = np.full((120, 120, 3), 90, np.uint8)
    found = np.array([[[30, 30], [90, 90]]], np.float32)
    before = np.array([[[30, 50], [90, 60]]], np.float32)
    marked = marked_keypoints(frame, found, before, np.array([[True, False]]))
    assert tuple(marked[30, 30]) == MARK_BGR
    assert marked[47:54, 24:37].min(axis=2).max() > 100  # the white ring around where it was
    assert np.ptp(marked[60:]) == 0
    np.testing.assert_array_equal(frame, 90)
