import numpy as np
import pytest

from sfpp.runtime import UsageError
from sfpp.runtime.people import Tracker

LEFT, RIGHT = [10, 10, 20, 40], [50, 10, 20, 40]


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_ids_stay_while_people_move_and_change_their_order():
    tracker = Tracker()
    assert tracker.update(boxes(LEFT, RIGHT)).tolist() == [1, 2]
    for step in range(1, 11):
        left, right = [10 + 4 * step, 10, 20, 40], [50 + 4 * step, 10, 20, 40]
        assert tracker.update(boxes(right, left)).tolist() == [2, 1]


def test_the_best_overlap_chooses_first():
    tracker = Tracker(min_iou=0.1)
    tracker.update(boxes([0, 0, 10, 10], [6, 0, 10, 10]))
    # The first box overlaps with both, the second with the second most: whoever comes first must not take it.
    assert tracker.update(boxes([4, 0, 10, 10], [6, 0, 10, 10])).tolist() == [1, 2]
    assert tracker.update(boxes([6, 0, 10, 10], [4, 0, 10, 10])).tolist() == [2, 1]


def test_greedy_like_a_slow_one():
    generator = np.random.default_rng(0)
    tracker, known, next_id = Tracker(min_iou=0.2, max_lost=0), {}, 1
    for _ in range(30):
        now = boxes(*np.concatenate([generator.uniform(0, 40, (8, 2)), generator.uniform(10, 30, (8, 2))], axis=1))
        expected = {}
        while pairs := [
            (overlap(box, other), row, identity)
            for row, box in enumerate(now)
            for identity, other in known.items()
            if row not in expected and identity not in expected.values() and overlap(box, other) >= 0.2
        ]:
            _, row, identity = max(pairs)
            expected[row] = identity
        for row in range(8):
            if row not in expected:
                expected[row], next_id = next_id, next_id + 1
        assert tracker.update(now).tolist() == [expected[row] for row in range(8)]
        known = {expected[row]: box for row, box in enumerate(now)}


def overlap(a, b):
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(0, wide) * max(0, high)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


@pytest.mark.parametrize("max_lost", [0, 1, 5])
def test_who_is_away_for_too_long_is_forgotten(max_lost):
    for away, returns_as in [(max_lost, 1), (max_lost + 1, 2)]:
        tracker = Tracker(max_lost=max_lost)
        tracker.update(boxes(LEFT))
        for _ in range(away):
            assert tracker.update(boxes()).shape == (0,)
        assert tracker.update(boxes(LEFT)).tolist() == [returns_as]


def test_following_moves_a_person_and_ages_the_others():
    tracker = Tracker(max_lost=1)
    ids = tracker.update(boxes(LEFT, RIGHT))
    far = [200, 10, 20, 40]
    tracker.follow(ids[:1], boxes(far))
    assert tracker.update(boxes(RIGHT, far)).tolist() == [2, 1]
    for _ in range(2):
        tracker.follow(ids[:1], boxes(far))
    assert tracker.update(boxes(RIGHT, far)).tolist() == [3, 1]


def test_too_little_overlap_is_somebody_else():
    tracker = Tracker(min_iou=0.5)
    tracker.update(boxes([0, 0, 10, 10]))
    assert tracker.update(boxes([4, 0, 10, 10])).tolist() == [2]
    assert tracker.update(boxes([6, 0, 10, 10])).tolist() == [2]


@pytest.mark.parametrize("options", [{"min_iou": 0}, {"min_iou": 1.5}, {"max_lost": -1}])
def test_settings_that_cannot_be_meant(options):
    with pytest.raises(UsageError, match=r"min_iou is .* max_lost is"):
        Tracker(**options)
