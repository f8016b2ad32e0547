import json
import statistics

import numpy as np
import pytest

from sfpp.runtime.bench.row import speedup
from sfpp.runtime.errors import UsageError
from sfpp.runtime.timing import summarize
from tests.runtime.bench.models import row


def test_rates_follow_from_the_median():
    found = row(
        infer_ms=(10.0, 20.0, 90.0), multiply_adds=2_000_000, activation_bytes=300_000, file_bytes=100_000, peak=4e8
    )
    assert found.multiply_adds_per_s == pytest.approx(2_000_000 / 0.020)
    assert found.share_of_peak == pytest.approx(0.25)
    assert found.multiply_adds_per_byte == pytest.approx(5)


def test_what_is_not_known_stays_unknown():
    unknown = row()
    assert unknown.multiply_adds_per_s is None
    assert unknown.multiply_adds_per_byte is None
    assert unknown.share_of_peak is None
    assert row(peak=1e9).share_of_peak is None
    assert row(multiply_adds=5).share_of_peak is None
    assert row(multiply_adds=5, infer_ms=()).multiply_adds_per_s is None


def test_the_whole_path_is_that_of_a_task():
    assert row(infer_ms=(10.0,)).whole is None
    assert row(infer_ms=(10.0,), task="pose").whole.p50_ms == pytest.approx(13)


def test_json_holds_each_sample_and_what_follows():
    fields = json.loads(json.dumps(row(infer_ms=(10.0, 12.0), first_ms=(30.0, 24.0), multiply_adds=11_000).to_dict()))
    assert fields["samples"] == {"prepare_ms": [1, 1], "infer_ms": [10, 12], "finish_ms": [2, 2]}
    assert fields["network"]["p50_ms"] == 11
    assert fields["speedup"]["median"] == 2.5
    assert fields["multiply_adds_per_s"] == pytest.approx(1e6)
    assert fields["share_of_peak"] is None


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
