import statistics

import numpy as np
import pytest

from sfpp.runtime.bench.row import speedup, summarize
from sfpp.runtime.errors import UsageError


def test_summary_of_known_latencies():
    summary = summarize([*range(1, 101), 1000])
    assert summary.count == 101
    assert (summary.p50_ms, summary.p90_ms, summary.p99_ms) == (51, 91, 100)
    assert summary.mean_ms == pytest.approx((5050 + 1000) / 101)
    assert summary.fastest_ms == 1
    assert summary.spread == pytest.approx((76 - 26) / 51)


def test_one_sample_has_no_spread():
    summary = summarize([7.5])
    assert (summary.p50_ms, summary.p99_ms, summary.mean_ms, summary.spread) == (7.5, 7.5, 7.5, 0)


def slow_speedup(first, other):
    ratios = sorted(a / b for a, b in zip(first, other, strict=False))
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive")
    return [statistics.median(ratios), quartiles[0], quartiles[2]]


@pytest.mark.parametrize("seed", range(3))
def test_speedup_is_the_median_over_rounds(seed):
    first, other = np.random.default_rng(seed).uniform(5, 50, (2, 21))
    found = speedup(first.tolist(), other.tolist())
    expected = slow_speedup(first, other)
    assert [found.median, found.lower_quartile, found.upper_quartile] == pytest.approx(expected)


def test_a_machine_that_slows_down_does_not_change_the_ratio():
    """From the sixth round on everything takes three times as long: the ratio of the medians would be 6."""
    load = np.array([1] * 5 + [3] * 4)
    found = speedup((20 * load).tolist(), (10 * load).tolist())
    assert (found.median, found.lower_quartile, found.upper_quartile) == (2, 2, 2)


def test_an_interrupted_round_is_left_out():
    assert speedup([10, 10, 10], [5, 5]).median == 2


@pytest.mark.parametrize(
    ("samples", "words"), [(([], [1]), "no round in which both"), (([1, 2], [1, 0]), "0 ms or less")]
)
def test_what_cannot_be_compared(samples, words):
    with pytest.raises(UsageError, match=words):
        speedup(*samples)


def test_nothing_to_summarize():
    with pytest.raises(UsageError, match="run at least once"):
        summarize([])
