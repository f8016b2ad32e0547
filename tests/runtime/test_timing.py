import numpy as np
import pytest

from sfpp.runtime import timing
from sfpp.runtime.errors import UsageError
from sfpp.runtime.timing import StageTimer


class Clock:
    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return self.now


def run(timer, clock, stage, durations_ms):
    for duration in durations_ms:
        with timer.measure(stage):
            clock.now += duration / 1000


def test_percentiles_in_milliseconds():
    clock = Clock()
    timer = StageTimer(clock=clock)
    durations = list(range(1, 102))
    run(timer, clock, "infer", durations)
    latency = timer.latency("infer")
    assert latency.count == 101
    assert (latency.p50_ms, latency.p90_ms, latency.p99_ms) == pytest.approx(np.percentile(durations, (50, 90, 99)))
    assert latency.p50_ms == pytest.approx(51)


def test_frames_per_second_is_wall_time_over_all_stages():
    clock = Clock()
    timer = StageTimer(clock=clock)
    for _ in range(5):
        run(timer, clock, "read", [20])
        run(timer, clock, "infer", [70])
        clock.now += 0.01  # time between the stages counts too
    run(timer, clock, "write", [50])
    assert timer.frames_per_second == pytest.approx(5 / 0.55)


def test_overlapping_stages_are_not_added_up():
    clock = Clock()
    timer = StageTimer(clock=clock)
    with timer.measure("read"):
        run(timer, clock, "infer", [100])
    assert timer.frames_per_second == pytest.approx(10)


def test_block_that_raises_is_not_counted():
    timer = StageTimer()
    with pytest.raises(KeyError), timer.measure("read"):
        raise KeyError
    assert timer.stages == ()
    assert timer.frames_per_second == 0
    assert timer.summary() == ["nothing was measured"]


def test_percentiles_follow_the_latest_frames(monkeypatch):
    monkeypatch.setattr(timing, "_KEPT", 10)
    clock = Clock()
    timer = StageTimer(clock=clock)
    run(timer, clock, "infer", [1000] * 20 + [10] * 10)
    assert timer.latency("infer").p99_ms == pytest.approx(10)
    assert timer.latency("infer").count == 30


def test_summary_is_an_aligned_table():
    clock = Clock()
    timer = StageTimer(clock=clock)
    run(timer, clock, "read", [2, 2])
    run(timer, clock, "infer a model", [150, 250])
    assert timer.summary() == [
        "stage           frames    p50 ms    p90 ms    p99 ms",
        "read                 2       2.0       2.0       2.0",
        "infer a model        2     200.0     240.0     249.0",
        "5.0 frames a second",
    ]


def test_unknown_stage_lists_the_known_ones():
    timer = StageTimer()
    with timer.measure("read"):
        pass
    with pytest.raises(UsageError, match="'infre' was never measured; measured: read"):
        timer.latency("infre")


def test_real_clock_measures_something():
    timer = StageTimer()
    with timer.measure("read"):
        sum(range(1000))
    assert timer.latency("read").p50_ms > 0
