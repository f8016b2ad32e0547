import numpy as np
import pytest

from sfpp.runtime import UsageError
from sfpp.runtime.people import Detections, Follower
from sfpp.runtime.people.tracking import followed_box

FRAME = np.zeros((200, 300, 3), np.uint8)


class Found:
    """A finder that gives the same boxes whenever it is asked, and counts."""

    description = "a list"

    def __init__(self, *boxes_xywh):
        self.boxes_xywh = np.array(boxes_xywh, np.float32).reshape(-1, 4)
        self.asked = []

    def find(self, frame_bgr, *, index=0, name=""):
        self.asked.append((index, name))
        return Detections(self.boxes_xywh, np.ones(len(self.boxes_xywh), np.float32))

    def close(self):
        pass


def keypoints(*corners_xy, size=40):
    """Five keypoints a person: the corners and the middle of a square."""
    shape = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]]) * size
    return np.array([shape + corner for corner in corners_xy], np.float32).reshape(-1, 5, 2)


def step(follower, points, scores=None, **frame):
    people = follower.find(FRAME, **frame) if follower.finds_next else follower.follow(FRAME)
    count = len(people.ids)
    follower.learn(people, points[:count], np.full((count, 5), 0.9, np.float32) if scores is None else scores)
    return people


@pytest.mark.parametrize("detect_every", [1, 2, 3, 10])
def test_the_finder_is_asked_every_nth_time(detect_every):
    finder = Found([10, 10, 45, 45])
    follower = Follower(finder, detect_every=detect_every)
    for index in range(12):
        step(follower, keypoints([12, 12]), index=index, name=f"f{index}")
    assert finder.asked == [(index, f"f{index}") for index in range(0, 12, detect_every)]


def test_people_are_followed_by_their_keypoints():
    finder = Found([10, 10, 45, 45], [100, 100, 45, 45])
    follower = Follower(finder, detect_every=5)
    for index in range(5):
        people = step(follower, keypoints([12 + 6 * index, 12], [104, 104]))
        assert people.ids.tolist() == [1, 2]
        if index:
            followed = [[12 + 6 * (index - 1) - 4, 8, 48, 48], [100, 100, 48, 48]]  # the last keypoints, grown
            np.testing.assert_allclose(people.boxes_xywh, followed)
    # The first one is far from where the finder saw them last, but near to where they were followed to.
    finder.boxes_xywh = np.array([[100, 100, 45, 45], [40, 10, 45, 45]], np.float32)
    people = step(follower, keypoints([104, 104], [42, 12]))
    assert people.ids.tolist() == [2, 1]
    np.testing.assert_array_equal(people.boxes_xywh, finder.boxes_xywh)


def test_people_keep_their_order_whoever_is_surer():
    follower = Follower(Found([10, 10, 45, 45], [100, 100, 45, 45]), detect_every=9)
    step(follower, keypoints([12, 12], [104, 104]), np.array([[0.5] * 5, [0.8] * 5], np.float32))
    assert step(follower, keypoints([12, 12], [104, 104])).ids.tolist() == [1, 2]


def test_who_vanishes_is_left_out_until_found_again():
    follower = Follower(Found([10, 10, 45, 45], [100, 100, 45, 45]), detect_every=3)
    points = keypoints([12, 12], [104, 104])
    few = np.array([[0.9, 0.9, 0.1, 0.1, 0.29], [0.9, 0.9, 0.3, 0.1, 0.1]], np.float32)
    assert step(follower, points, few).ids.tolist() == [1, 2]
    people = step(follower, points[1:])
    assert people.ids.tolist() == [2]
    np.testing.assert_allclose(people.boxes_xywh, [[100, 100, 48, 48]])  # around the three that are seen
    assert step(follower, points[1:]).ids.tolist() == [2]
    assert step(follower, points).ids.tolist() == [1, 2]


def test_two_boxes_that_end_on_one_person_become_one():
    follower = Follower(Found([10, 10, 45, 45], [100, 100, 45, 45]), detect_every=9)
    scores = np.array([[0.5] * 5, [0.8] * 5], np.float32)
    step(follower, keypoints([12, 12], [14, 12]), scores)
    assert step(follower, keypoints([14, 12])).ids.tolist() == [2]


def test_boxes_outside_of_the_frame_hold_nobody():
    follower = Follower(
        Found([-60, 10, 45, 45], [10, 10, 45, 45], [300, 0, 20, 20], [290, 190, 45, 45]), detect_every=2
    )
    people = step(follower, keypoints([12, 12], [310, 195]))
    np.testing.assert_array_equal(people.boxes_xywh, [[10, 10, 45, 45], [290, 190, 45, 45]])
    assert people.ids.tolist() == [1, 2]
    assert step(follower, keypoints([12, 12])).ids.tolist() == [1]  # the second has left


def test_nobody():
    follower = Follower(Found(), detect_every=2)
    for _ in range(4):
        people = step(follower, keypoints())
        assert people.boxes_xywh.shape == (0, 4)
        assert people.ids.shape == (0,)


def test_a_followed_box_grows_by_the_longer_side():
    points = np.array([[10, 20], [12, 120], [11, 50]], np.float32)
    last = np.array([0, 0, 5, 5], np.float32)
    np.testing.assert_allclose(followed_box(last, points), [0, 10, 22, 120])
    assert followed_box(last, points).dtype == np.float32


def test_a_followed_box_shrinks_slowly_around_the_keypoints():
    points = np.array([[10, 20], [12, 120], [11, 50]], np.float32)
    last = np.array([7, 7, 100, 100], np.float32)
    np.testing.assert_allclose(followed_box(last, points), [11 - 48.5, 10, 97, 120])


def test_a_setting_that_cannot_be_meant():
    with pytest.raises(UsageError, match="detect_every is 0, expected 1"):
        Follower(Found(), detect_every=0)
