"""Measures of steadiness against slow versions that follow their definitions pixel by pixel."""

import itertools

import numpy as np
import pytest

from benchmarks.motion.drive import Drive
from benchmarks.motion.scores import Judge, Scores, added, came_from, cells, flow_between, moved
from sfpp.tooling.label_rules import IGNORED

CLASSES = ("road", "tree", "sky")
SIZE_HW = 20, 28


def smooth_texture(seed, height, width):
    """A gray picture whose motion can be found."""
    import cv2

    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def random_drive(frames=12, seed=0):
    """Frames and truth with little change from one to the next, so that windows hold pixels that stay."""
    rng = np.random.default_rng(seed)
    truth = [rng.integers(-1, 3, SIZE_HW).astype(np.int16)]
    for _ in range(frames - 1):
        changed = rng.random(SIZE_HW) < 0.05
        truth.append(np.where(changed, rng.integers(-1, 3, SIZE_HW), truth[-1]).astype(np.int16))
    pictures = [np.repeat(smooth_texture(seed + each // 6, *SIZE_HW)[..., np.newaxis], 3, 2) for each in range(frames)]
    return Drive(pictures, truth)


def random_labels(frames=12, seed=5):
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, 3, SIZE_HW).astype(np.uint8)]
    for _ in range(frames - 1):
        changed = rng.random(SIZE_HW) < 0.1
        labels.append(np.where(changed, rng.integers(0, 3, SIZE_HW), labels[-1]).astype(np.uint8))
    return labels


def pixels():
    return itertools.product(*map(range, SIZE_HW))


def slow_flicker(labels, truth):
    changed = steady = 0
    for now in range(1, len(labels)):
        for at in pixels():
            if truth[now][at] == truth[now - 1][at] != IGNORED:
                steady += 1
                changed += labels[now][at] != labels[now - 1][at]
    return changed / steady


def slow_vc8(labels, truth):
    shares = []
    for first in range(len(labels) - 7):
        window = range(first, first + 8)
        stays = [at for at in pixels() if len({truth[i][at] for i in window}) == 1 and truth[first][at] != IGNORED]
        if stays:
            shares.append(np.mean([len({labels[i][at] for i in window}) == 1 for at in stays]))
    return np.mean(shares)


def slow_tc(labels, frames_bgr):
    both, either = np.zeros(3), np.zeros(3)
    height, width = SIZE_HW
    for now in range(1, len(labels)):
        flow = flow_between(frames_bgr[now][..., 0].copy(), frames_bgr[now - 1][..., 0].copy())
        for y, x in pixels():
            from_x, from_y = round(float(x + flow[y, x, 0])), round(float(y + flow[y, x, 1]))
            if not (0 <= from_x < width and 0 <= from_y < height):
                continue
            own, before = labels[now][y, x], labels[now - 1][from_y, from_x]
            for each in range(3):
                both[each] += own == before == each
                either[each] += each in (own, before)
    return np.mean(both / either)


@pytest.fixture(scope="module")
def drive():
    return random_drive()


@pytest.fixture(scope="module")
def judge(drive):
    return Judge(drive, CLASSES)


def test_measures_are_as_their_definitions_say(drive, judge):
    labels = random_labels()
    scores = judge.scores(judge.counts(labels))
    assert scores["flicker"] == pytest.approx(slow_flicker(labels, drive.truth))
    assert scores["vc8"] == pytest.approx(slow_vc8(labels, drive.truth))
    assert scores["tc"] == pytest.approx(slow_tc(labels, drive.frames_bgr), abs=1e-3)
    right = [labels[i][at] == drive.truth[i][at] for i in range(12) for at in pixels() if drive.truth[i][at] >= 0]
    assert scores["pixel_accuracy"] == pytest.approx(np.mean(right))
    assert 0.02 < scores["flicker"] < 1 - scores["vc8"] < 0.98


def test_boundaries_may_be_three_pixels_away():
    split = [np.arange(480) * np.ones((360, 1)) >= column for column in (240, 243, 244)]
    truth, near, far = (each.astype(np.uint8) for each in split)
    judge = Judge(Drive([np.zeros((360, 480, 3), np.uint8)], [np.int16(truth)]), CLASSES)
    found = [judge.counts([labels])["boundaries"][0].tolist() for labels in (truth, near, far)]
    assert found == [[360] * 4, [360] * 4, [0, 360, 0, 360]]


def test_frames_without_labels_count_for_nothing(drive, judge):
    labels = random_labels()
    late = judge.scores(judge.counts([None, None, None, *labels[3:]]))
    assert late["flicker"] == pytest.approx(slow_flicker(labels[3:], drive.truth[3:]))
    assert late["vc8"] == pytest.approx(slow_vc8(labels[3:], drive.truth[3:]))
    counts = judge.counts([*labels[:5], None, *labels[6:]])
    assert not counts["confusion"][5].any()
    assert not counts["kept"][5:7].any()
    assert not counts["moved"][5:7].any()
    assert not counts["windows"].any()  # 8 frames in a row are nowhere


def test_runs_are_added_up_frame_by_frame(judge):
    one, other = judge.counts(random_labels(seed=1)), judge.counts([None, *random_labels(seed=2)[1:]])
    both = added([one, other])
    assert np.array_equal(both["confusion"][0], one["confusion"][0])
    assert np.array_equal(both["confusion"][1], one["confusion"][1] + other["confusion"][1])
    assert both["windows"][:, 1].sum() == 5 + 4


def test_labels_that_move_with_the_picture_are_consistent_and_frozen_ones_are_not():
    large = smooth_texture(3, 120, 200)
    labels = (np.indices((120, 200)).sum(axis=0) // 12 % 3).astype(np.uint8)
    views = [np.s_[20:100, 20 + 2 * i : 140 + 2 * i] for i in range(9)]
    drive = Drive([np.repeat(large[view][..., np.newaxis], 3, 2) for view in views], [np.int16(labels[views[0]])] * 9)
    judge = Judge(drive, CLASSES)
    moving = judge.scores(judge.counts([labels[view] for view in views]))
    frozen = judge.scores(judge.counts([labels[views[0]]] * 9))
    assert moving["tc"] > 0.97
    assert frozen["tc"] < 0.85
    assert frozen["vc8"] == 1
    assert frozen["flicker"] == 0


def test_what_comes_from_outside_has_no_label():
    flow = np.zeros((3, 4, 2), np.float32)
    flow[..., 0] = 1.4  # to the right, to the nearest pixel
    flow[0, :, 1] = -1
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert moved(labels, came_from(flow)).tolist() == [[255] * 4, [5, 6, 7, 255], [9, 10, 11, 255]]


def test_all_measures_stand_together():
    assert cells(Scores(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, {})) == [
        "10.00%",
        "20.00%",
        "30.00%",
        "40.00%",
        "50.00%",
        "60.00%",
    ]
