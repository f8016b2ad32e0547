import json

import pytest

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
