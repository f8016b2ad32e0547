"""Histograms and thresholds against slow, obvious versions."""

import math

import numpy as np
import pytest

from sfpp.calibration.int8.histogram import BINS, Histogram
from sfpp.calibration.int8.ranges import METHODS, Range, range_of, relative_entropy, rounding_error, threshold
from sfpp.runtime.errors import BackendError, UsageError

RNG = np.random.default_rng(3)
SAMPLES = {
    "gaussian": RNG.normal(0, 1, 40_000),
    "heavy tails": RNG.standard_t(3, 40_000),
    "exponential": RNG.exponential(0.1, 40_000),
    "uniform": RNG.uniform(-3, 3, 40_000),
    "rectified": np.maximum(RNG.normal(-1, 2, 40_000), 0),
    "one outlier": np.append(RNG.normal(0, 0.05, 40_000), 30.0),
}


def histogram_of(*frames):
    histogram = Histogram()
    for values in frames:
        histogram.add(np.asarray(values, np.float32))
    return histogram


def rounded(values, limit):
    """Values after INT8, one by one."""
    step = limit / 127
    return np.array([min(max(round(value / step), -127), 127) * step for value in values.tolist()])


# Histogram


@pytest.mark.parametrize("name", SAMPLES)
def test_bins_are_those_of_all_values_at_once(name):
    values = SAMPLES[name].astype(np.float32)
    histogram = histogram_of(*np.array_split(np.sort(np.abs(values)), 7))  # the limit grows with every part
    assert math.log2(histogram.limit).is_integer()
    assert histogram.largest < histogram.limit <= 2 * histogram.largest
    magnitudes = np.abs(values[values != 0])
    expected, edges = np.histogram(magnitudes, bins=BINS, range=(0, histogram.limit))
    np.testing.assert_array_equal(histogram.counts, expected)
    np.testing.assert_allclose(histogram.edges, edges)
    assert histogram.zeros == np.sum(values == 0)
    assert histogram.values == values.size
    assert histogram.largest == np.abs(values).max()


def test_the_order_of_the_frames_does_not_matter():
    frames = [RNG.normal(0, scale, (4, 50)) for scale in (1, 100, 0.001, 0)]
    there, back = histogram_of(*frames), histogram_of(*frames[::-1])
    np.testing.assert_array_equal(there.counts, back.counts)
    assert (there.limit, there.zeros) == (back.limit, back.zeros)


def test_values_far_apart_end_in_the_first_bin():
    histogram = histogram_of([1e-30, 2e-30], [1e30])
    assert histogram.counts[0] == 2
    assert histogram.counts.sum() == 3
    assert histogram.largest == np.float32(1e30)


def test_a_sample_comes_with_the_largest_of_all():
    histogram = Histogram()
    histogram.add(np.array([0.5, -0.25]), extremes=(-9.0, 1.0))
    assert (histogram.largest, histogram.limit, histogram.values) == (9.0, 16.0, 2)


def test_a_power_of_two_lies_below_the_limit():
    histogram = histogram_of([4.0])
    assert histogram.limit == 8
    assert histogram.counts[BINS // 2] == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(BackendError, match="not finite"):
        histogram_of([1.0, value])
    with pytest.raises(BackendError, match="not finite"):
        Histogram().add(np.array([1.0, value]), extremes=(0.0, 3.0))
    with pytest.raises(BackendError, match="not finite"):
        Histogram().add(np.array([1.0]), extremes=(-1.0, value))


# Thresholds


def test_minmax_is_the_largest_magnitude():
    assert threshold(histogram_of([1.0, -7.25, 3.0]), "minmax") == 7.25


@pytest.mark.parametrize("percentile", [50, 99, 99.9, 100])
@pytest.mark.parametrize("name", ["gaussian", "heavy tails", "rectified"])
def test_a_percentile_counts_the_values_that_are_not_zero(name, percentile):
    values = SAMPLES[name].astype(np.float32)
    histogram = histogram_of(values)
    expected = np.percentile(np.abs(values[values != 0]), percentile)
    # 99.9 % of 40 000 values leave 40, so that the next value may lie some bins away.
    assert threshold(histogram, "percentile", percentile=percentile) == pytest.approx(expected, rel=0.02)


def test_zeros_do_not_move_a_threshold():
    values = SAMPLES["gaussian"]
    plain, rectified = histogram_of(values), histogram_of(values, np.zeros(1_000_000))
    for method in METHODS:
        assert threshold(plain, method) == threshold(rectified, method)


def slow_relative_entropy(counts, kept):
    """Bin by bin and level by level."""
    reference = counts[:kept].astype(float)
    reference[-1] += counts[kept:].sum()
    levels = np.zeros(kept)
    for level in range(128):
        bins = range(level * kept // 128, (level + 1) * kept // 128)
        occupied = [index for index in bins if reference[index]]
        for index in occupied:
            levels[index] = max(sum(counts[bin] for bin in bins), 1) / len(occupied)
    p, q = reference / reference.sum(), levels / levels.sum()
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a)


@pytest.mark.parametrize("name", ["gaussian", "heavy tails", "rectified", "one outlier"])
def test_relative_entropy_against_the_slow_version(name):
    counts = histogram_of(SAMPLES[name][-500:]).counts  # few values, so that bins and levels lie empty
    ends = np.flatnonzero(counts) + 1
    kept = np.array([128, 129, 200, 255, 256, 700, 1100, 1500, 2000, 2048, *ends[ends >= 128][::9]])
    assert {bool(counts[last - 1]) for last in kept} == {True, False}
    expected = [slow_relative_entropy(counts, last) for last in kept]
    np.testing.assert_allclose(relative_entropy(counts, kept), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["one outlier", "exponential"])
def test_entropy_against_the_slow_version(name):
    histogram = histogram_of(SAMPLES[name][:3000])
    ends = [int(last) + 1 for last in np.flatnonzero(histogram.counts) if last >= 128]
    best = min([128, *ends], key=lambda kept: (slow_relative_entropy(histogram.counts, kept), -kept))
    assert threshold(histogram, "entropy") == pytest.approx(min(histogram.edges[best], histogram.largest))


def test_entropy_clips_an_outlier_and_keeps_what_is_even():
    assert threshold(histogram_of(SAMPLES["one outlier"]), "entropy") < 3
    assert threshold(histogram_of(SAMPLES["uniform"]), "entropy") > 2.9


def test_entropy_cuts_where_a_value_lies():
    """An image has few values: between two of them a threshold would clip the brightest pixels for nothing."""
    pixels = RNG.choice(256, 40_000, p=np.bincount(RNG.binomial(255, 0.7, 100_000), minlength=256) / 100_000)
    histogram = histogram_of((pixels - 116.28) / 57.12)
    found = threshold(histogram, "entropy")
    assert found == histogram.largest or histogram.counts[int(found / histogram.limit * BINS) - 1] > 0


def test_fewer_bins_than_levels_keep_everything():
    histogram = histogram_of(np.linspace(0, 1, 1000), [2.0])  # the limit is 4 ...
    histogram.add(np.array([]), extremes=(0.0, 100.0))  # ... and then 128, with the values in the first 33 bins
    assert 2 <= threshold(histogram, "entropy") <= 2.1


@pytest.mark.parametrize("method", METHODS)
def test_what_has_no_spread(method):
    assert threshold(Histogram(), method) == 1
    assert threshold(histogram_of(np.zeros(10)), method) == 1
    assert threshold(histogram_of([0.3]), method) == pytest.approx(0.3, rel=1e-3)
    assert threshold(histogram_of(np.full(1000, -5.0)), method) == pytest.approx(5, rel=1e-3)
    only_zeros_sampled = Histogram()
    only_zeros_sampled.add(np.zeros(10), extremes=(0.0, 3.0))
    assert threshold(only_zeros_sampled, method) == 3


def test_what_cannot_be_meant():
    histogram = histogram_of([1.0])
    with pytest.raises(UsageError, match=r"'entropie', did you mean 'entropy'.*minmax, entropy, percentile"):
        threshold(histogram, "entropie")
    with pytest.raises(UsageError, match=r"percentile is 0, expected above 0 and at most 100"):
        threshold(histogram, "percentile", percentile=0)


# Rounding error


@pytest.mark.parametrize("part", [0.1, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("name", SAMPLES)
def test_rounding_error_is_that_of_the_values(name, part):
    values = SAMPLES[name][:20_000].astype(np.float32)
    limit = part * float(np.abs(values).max())
    expected = np.mean((rounded(values, limit) - values) ** 2) / np.mean(np.square(values, dtype=np.float64))
    assert rounding_error(histogram_of(values), limit) == pytest.approx(expected, rel=0.06)


def test_rounding_error_of_little():
    assert rounding_error(Histogram(), 1.0) == 0
    assert rounding_error(histogram_of(np.zeros(5)), 1.0) == 0
    assert rounding_error(histogram_of([2.0]), 2.0) < 1e-5
    assert rounding_error(histogram_of([2.0]), 1.0) == pytest.approx(0.25, rel=0.01)


def test_zeros_have_no_rounding_error():
    with_zeros, without = (
        histogram_of(SAMPLES["rectified"]),
        histogram_of(SAMPLES["rectified"][SAMPLES["rectified"] > 0]),
    )
    assert rounding_error(with_zeros, 2.0) == rounding_error(without, 2.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-0.17, 3.0, 1.0], Range(-0.17, 3.0)),
        ([2.0, 5.0], Range(0.0, 5.0)),
        ([-2.0, -5.0], Range(-5.0, 0.0)),
        ([0.0], Range(0.0, 1.0)),
    ],
)
def test_a_range_with_a_zero_point_ends_where_the_values_do(values, expected):
    assert range_of(histogram_of(values), "minmax") == pytest.approx(expected)
    assert range_of(histogram_of(values), "minmax").magnitude == threshold(histogram_of(values), "minmax")


def test_a_range_ends_at_the_threshold_on_both_sides():
    values = np.concatenate([np.linspace(-1, 1, 100_000), [-50.0, 70.0]])
    found = range_of(histogram_of(values), "percentile")
    assert -1.1 < found.low < -0.9
    assert found.high == -found.low == threshold(histogram_of(values), "percentile")
