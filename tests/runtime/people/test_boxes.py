import numpy as np
import pytest

from sfpp.runtime.people.detections import cut_to_frame, iou_matrix, kept_by_suppression


def random_boxes(count, *, seed):
    generator = np.random.default_rng(seed)
    left_top, size = generator.uniform(0, 60, (count, 2)), generator.uniform(1, 40, (count, 2))
    return np.concatenate([left_top, size], axis=1).astype(np.float32)


def slow_iou(a, b):
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    wide = max(0, min(ax + aw, bx + bw) - max(ax, bx))
    high = max(0, min(ay + ah, by + bh) - max(ay, by))
    return wide * high / (aw * ah + bw * bh - wide * high)


def test_iou_like_the_definition():
    first, second = random_boxes(20, seed=1), random_boxes(30, seed=2)
    expected = [[slow_iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(iou_matrix(first, second), expected, atol=1e-6)
    assert iou_matrix(first, second).max() > 0.3


def test_iou_of_special_boxes():
    box = np.array([[0, 0, 10, 10]], np.float32)
    others = np.array([[0, 0, 10, 10], [10, 0, 5, 5], [5, 0, 10, 10], [3, 3, 0, 0]], np.float32)
    np.testing.assert_allclose(iou_matrix(box, others), [[1, 0, 1 / 3, 0]], atol=1e-6)
    np.testing.assert_array_equal(iou_matrix(others[3:], others[3:]), [[0]])
    assert iou_matrix(box[:0], others).shape == (0, 4)


@pytest.mark.parametrize("max_iou", [0.1, 0.3, 0.6])
def test_suppression_like_the_definition(max_iou):
    boxes = random_boxes(60, seed=3)
    scores = np.random.default_rng(4).uniform(size=60).astype(np.float32)
    expected = []
    for index in sorted(range(60), key=lambda index: -scores[index]):
        if all(slow_iou(boxes[index], boxes[other]) <= max_iou for other in expected):
            expected.append(index)
    kept = kept_by_suppression(boxes, scores, max_iou=max_iou)
    np.testing.assert_array_equal(kept, expected)
    assert 0 < len(kept) < 60


def test_suppression_of_nothing():
    kept = kept_by_suppression(np.empty((0, 4), np.float32), np.empty(0, np.float32), max_iou=0.5)
    assert kept.shape == (0,)
    assert kept.dtype.kind == "i"


def test_cutting_to_a_frame():
    boxes = np.array([[-5, -5, 20, 20], [90, 40, 20, 20], [10, 10, 5, 5], [200, 0, 9, 9], [-9, 0, 5, 5]], np.float32)
    expected = [[0, 0, 15, 15], [90, 40, 10, 10], [10, 10, 5, 5], [100, 0, 0, 9], [0, 0, 0, 5]]
    np.testing.assert_array_equal(cut_to_frame(boxes, (50, 100)), expected)
