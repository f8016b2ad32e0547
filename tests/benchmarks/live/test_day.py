"""What a day of the page measures."""

import sys

import pytest

from benchmarks.live.day import Day, day
from benchmarks.live.parts import Resources


def test_flat_is_what_holds_no_more_at_the_end_than_in_the_second_tenth():
    first, second = Resources(150.0, 3, 10), Resources(200.0, 4, 20)
    for last, flat in [
        (second, True),
        (Resources(205.0, 4, 20), True),
        (Resources(220.0, 4, 20), False),
        (Resources(200.0, 5, 20), False),
        (Resources(200.0, 4, 90), False),
    ]:
        assert Day(10.0, 1, 1, 1, 1, (first, *[second] * 8, last)).is_flat is flat


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read as Linux tells it")
def test_a_minute_of_stalls_and_restless_pages_is_flat(tmp_path):
    pytest.importorskip("aiohttp")
    from tests.runtime.cli.test_run import write_model

    write_model(tmp_path / "model.onnx")
    passed = day(tmp_path / "model.onnx", seconds=60.0)
    assert passed.is_flat, passed.sentence()
    assert passed.stalls > 100
    assert passed.pages > 50
    assert passed.pictures > 500
