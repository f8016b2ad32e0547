import numpy as np
import pytest

from sfpp.runtime.motion.carry import (
    Carrier,
    Waiting,
    between,
    logits_from_scores,
    mixed,
    moved,
    scores_from_logits,
)
from sfpp.runtime.motion.flow import Step
from tests.runtime.motion.test_flow import offset_of, slow_bilinear

SHAPE = (9, 12)


def logits(seed, classes=5):
    return np.random.default_rng(seed).normal(0, 3, (classes, *SHAPE)).astype(np.float32)


def step(seed):
    rng = np.random.default_rng(seed)
    return Step(offset_of(rng, SHAPE), rng.uniform(0.3, 1, SHAPE).astype(np.float32))


def slow_softmax(values):
    scaled = np.exp(values.astype(np.float64) / 2)
    return scaled / scaled.sum(axis=0)


def slow_moved(values, offset):
    """(C, h, w) looked up at each cell plus its offset."""
    return np.array(
        [
            [
                [slow_bilinear(each, x + offset[y, x, 0], y + offset[y, x, 1]) for x in range(SHAPE[1])]
                for y in range(SHAPE[0])
            ]
            for each in values
        ]
    )


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 19, 256])
def test_scores_are_the_softmax_at_temperature_two(classes):
    values = logits(0, classes)
    scores = scores_from_logits(values)
    assert scores.shape == (-(-classes // 4), *SHAPE, 4)
    back = logits_from_scores(scores, classes)
    np.testing.assert_allclose(back, slow_softmax(values), atol=1e-6)
    np.testing.assert_array_equal(back.argmax(axis=0), values.argmax(axis=0))


def test_infinities_of_half_precision_and_large_logits_stay_finite():
    values = logits(1).astype(np.float16)
    values[0, 0] = np.inf
    values[1, 1] = -np.inf
    values[2, 2], values[3, 2] = 60000, 59000
    scores = logits_from_scores(scores_from_logits(values), 5)
    assert np.isfinite(scores).all()
    assert (scores[0, 0] > 0.99).all()
    np.testing.assert_allclose(scores.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("bounded", [True, False])
def test_logits_far_from_zero_are_told_apart(bounded):
    values = logits(4) + np.float32(40000)
    back = logits_from_scores(scores_from_logits(values, bounded=bounded), 5)
    np.testing.assert_array_equal(back.argmax(axis=0), values.argmax(axis=0))


def test_classes_that_do_not_exclude_each_other_keep_their_logits():
    values = logits(2) * 5
    back = logits_from_scores(scores_from_logits(values, exclusive=False), 5)
    np.testing.assert_array_equal(back, np.clip(values, -8, 8))
    for exclusive in (True, False):
        back = logits_from_scores(scores_from_logits(values, exclusive=exclusive, bounded=False), 5)
        np.testing.assert_array_equal(back, values)


def test_scores_are_looked_up_where_each_cell_was():
    offset = step(3).offset
    expected = slow_moved(slow_softmax(logits(3)), offset)
    got = logits_from_scores(moved(scores_from_logits(logits(3)), offset), 5)
    np.testing.assert_allclose(got, expected, atol=0.03)  # OpenCV rounds places to 1/32 of a cell
    assert np.abs(got - slow_softmax(logits(3))).max() > 0.3


def test_the_carrier_is_as_the_formula_says():
    """Steps and answers in turn, against paths and mixing written out."""
    mix, carrier = 0.7, Carrier(0.7)
    assert carrier.now() is None
    scores = slow_softmax(logits(0))
    carrier.correct(scores_from_logits(logits(0)))
    offset, belief = np.zeros((*SHAPE, 2)), np.ones(SHAPE)
    for seed in range(1, 7):
        way = step(seed)
        carrier.step(way)
        looked_up = slow_moved(offset.transpose(2, 0, 1), way.offset)
        offset = way.offset + looked_up.transpose(1, 2, 0)
        inside = np.array(
            [
                [
                    slow_bilinear(belief, x + way.offset[y, x, 0], y + way.offset[y, x, 1], outside=0.0)
                    for x in range(SHAPE[1])
                ]
                for y in range(SHAPE[0])
            ]
        )
        belief = way.belief * inside
        now = carrier.now()
        np.testing.assert_allclose(logits_from_scores(now.scores, 5), slow_moved(scores, offset), atol=0.06)
        np.testing.assert_allclose(now.belief, belief, atol=0.06)
        if seed % 3 == 0:
            share = mix * belief
            scores = share * slow_moved(scores, offset) + (1 - share) * slow_softmax(logits(seed))
            kept = carrier.correct(scores_from_logits(logits(seed)))
            np.testing.assert_allclose(logits_from_scores(kept, 5), scores, atol=0.08)
            offset, belief = np.zeros((*SHAPE, 2)), np.ones(SHAPE)


def test_without_mixing_an_answer_is_all_there_is():
    carrier = Carrier(0.0)
    for seed in range(3):
        carrier.correct(scores_from_logits(logits(seed)))
        carrier.step(step(seed))
    carrier.correct(scores_from_logits(logits(9)))
    np.testing.assert_array_equal(carrier.now().scores, scores_from_logits(logits(9)))


@pytest.mark.parametrize("late", [0, 1, 3])
def test_a_late_answer_is_as_one_that_came_at_once(late):
    """What the network says of a frame counts for that frame, and is carried on from there."""
    at_once, delayed = Carrier(0.6), Carrier(0.6)
    for carrier in (at_once, delayed):
        carrier.correct(scores_from_logits(logits(0)))
        carrier.step(step(1))
        carrier.step(step(2))
    at_once.correct(scores_from_logits(logits(1)))
    delayed.mark(delayed.now())
    for seed in range(late):
        at_once.step(step(10 + seed))
        delayed.step(step(10 + seed))
    before = delayed.now()
    delayed.correct(scores_from_logits(logits(1)), marked=True)
    np.testing.assert_array_equal(delayed.now().scores, at_once.now().scores)
    np.testing.assert_array_equal(delayed.now().belief, at_once.now().belief)
    assert np.abs(before.scores - delayed.now().scores).max() > 0.1


def test_nothing_is_carried_into_another_scene():
    carrier = Carrier(0.9)
    carrier.correct(scores_from_logits(logits(0)))
    carrier.mark(carrier.now())
    carrier.forget()
    assert carrier.now() is None
    kept = carrier.correct(scores_from_logits(logits(1)))
    np.testing.assert_array_equal(kept, scores_from_logits(logits(1)))


def waiting_frames(count):
    frames, path = [], []
    for number in range(1, count + 1):
        back, forth = step(number), step(100 + number)
        path.append((back, forth))
        frames.append(Waiting(float(number), back.offset, back.belief, forth))
    return frames


def test_between_key_frames_the_nearer_and_the_more_believed_end_counts_more():
    frames = waiting_frames(3)
    early, late = slow_softmax(logits(0)), slow_softmax(logits(1))
    got = list(between(scores_from_logits(logits(0)), scores_from_logits(logits(1)), frames, (0.0, 4.0)))
    for index, (each, now) in enumerate(zip(frames, got, strict=True)):
        offset, belief = np.zeros((*SHAPE, 2)), np.ones(SHAPE)
        for later in reversed(frames[index:]):  # the way to the late key frame, from its end on
            looked_up = slow_moved(offset.transpose(2, 0, 1), later.forth.offset).transpose(1, 2, 0)
            belief = later.forth.belief * np.array(
                [
                    [
                        slow_bilinear(
                            belief, x + later.forth.offset[y, x, 0], y + later.forth.offset[y, x, 1], outside=0.0
                        )
                        for x in range(SHAPE[1])
                    ]
                    for y in range(SHAPE[0])
                ]
            )
            offset = later.forth.offset + looked_up
        of_late, of_early = belief * each.time, each.belief * (4.0 - each.time)
        share = of_late / (of_late + of_early)
        expected = share * slow_moved(late, offset) + (1 - share) * slow_moved(early, each.offset)
        np.testing.assert_allclose(logits_from_scores(now.scores, 5), expected, atol=0.12)
        assert np.abs(logits_from_scores(now.scores, 5) - expected).mean() < 0.01
        np.testing.assert_allclose(now.belief, np.maximum(belief, each.belief), atol=0.06)


def test_without_a_later_key_frame_the_earlier_one_counts():
    frames = waiting_frames(2)
    got = list(between(scores_from_logits(logits(0)), None, frames, (0.0, 0.0)))
    for each, now in zip(frames, got, strict=True):
        np.testing.assert_array_equal(now.scores, moved(scores_from_logits(logits(0)), each.offset))
        np.testing.assert_array_equal(now.belief, each.belief)


def test_mixing_weighs_each_cell_by_itself():
    one, other = scores_from_logits(logits(0)), scores_from_logits(logits(1))
    share = np.random.default_rng(0).uniform(0, 1, SHAPE).astype(np.float32)
    expected = share[None, ..., None] * one + (1 - share[None, ..., None]) * other
    np.testing.assert_allclose(mixed(one, other, share), expected, atol=1e-6)
