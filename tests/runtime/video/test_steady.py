import numpy as np
import pytest

from sfpp.runtime.errors import UsageError
from sfpp.runtime.video.pipeline import Pipeline
from sfpp.runtime.video.steady import Steady
from tests.runtime.video.clips import picture, rgb_segmenter
from tests.runtime.video.scenes import camera

DARK, BRIGHT = np.full((48, 64, 3), 40, np.uint8), np.full((48, 64, 3), 200, np.uint8)


def logits(seed):
    return np.random.default_rng(seed).normal(size=(3, 6, 8)).astype(np.float32)


@pytest.mark.parametrize("amount", [0.0, 0.5, 0.8])
def test_logits_are_averaged_as_the_formula_says(amount):
    steady, expected = Steady(amount), logits(0)
    np.testing.assert_array_equal(steady.smoothed(logits(0), DARK), expected)
    for seed in range(1, 6):
        expected = amount * expected + (1 - amount) * logits(seed)
        np.testing.assert_allclose(steady.smoothed(logits(seed), DARK), expected, rtol=1e-5, atol=1e-6)


def test_a_cut_and_a_new_size_begin_anew_and_a_pan_does_not():
    steady = Steady(0.9)
    steady.smoothed(logits(0), DARK)
    np.testing.assert_array_equal(steady.smoothed(logits(1), BRIGHT), logits(1))
    np.testing.assert_array_equal(steady.smoothed(logits(2), BRIGHT[:24]), logits(2))
    larger = np.concatenate([logits(3)] * 2, axis=1)
    np.testing.assert_array_equal(steady.smoothed(larger, BRIGHT[:24]), larger)
    scene = picture(0, size_hw=(480, 640))
    steady = Steady(0.9)
    steady.smoothed(logits(0), scene)
    assert not np.array_equal(steady.smoothed(logits(1), np.roll(scene, 30, axis=1)), logits(1))


def test_what_was_given_is_left_alone_and_float16_is_taken():
    steady, given = Steady(0.5), logits(0).astype(np.float16)
    kept = given.copy()
    first = steady.smoothed(given, DARK)
    steady.smoothed(logits(1), DARK)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(given, kept)
    np.testing.assert_array_equal(first, kept.astype(np.float32))


@pytest.mark.parametrize("amount", [-0.1, 1.0, 3.0, float("nan")])
def test_amounts_that_cannot_be_meant(amount):
    with pytest.raises(UsageError, match=r"expected 0 \(none\) to below 1"):
        Steady(amount)


def test_sources_are_steadied_each_by_itself():
    model = rgb_segmenter()
    with Pipeline(model, [camera("a", frames=4), camera("b", frames=4)], policy="every-frame", smooth=0.7) as pipeline:
        together = {(each.frame.source, each.frame.index): each.result.labels for each in pipeline}
    for name in "ab":
        with Pipeline(model, [camera(name, frames=4)], policy="every-frame", smooth=0.7) as pipeline:
            for each in pipeline:
                np.testing.assert_array_equal(each.result.labels, together[name, each.frame.index])
