import threading

import numpy as np
import pytest

from sfpp.runtime import timing
from sfpp.runtime.errors import UsageError
from sfpp.runtime.timing import RateMeter, StageTimer, StepClock


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
    run(timer, clock, "read", [2, 98])
    run(timer, clock, "infer a model", [150, 250])
    assert timer.summary() == [
        "stage          frames  p50 ms  p90 ms  p99 ms  busy %",
        "read                2    50.0    88.4    97.0      20",
        "infer a model       2   200.0   240.0   249.0      80",
        "4.0 frames a second; the slowest stage, infer a model, alone would allow 5.0 (80 %)",
    ]


def test_one_frame_has_no_bottleneck_to_speak_of():
    clock = Clock()
    timer = StageTimer(clock=clock)
    run(timer, clock, "read", [250])
    timer.frame_done()
    assert timer.summary()[-1] == "4.0 frames a second"


def overlapping(timer, clock, *, frames, read_ms, infer_ms):
    """Two stages at once: reading the next frame ends while the present one is still in the model."""
    run(timer, clock, "read", [read_ms])
    for _ in range(frames):
        with timer.measure("infer"):
            run(timer, clock, "read", [read_ms])
            clock.now += (infer_ms - read_ms) / 1000
        timer.frame_done()


def test_busy_share_and_bottleneck_of_stages_that_overlap():
    clock = Clock()
    timer = StageTimer(clock=clock)
    overlapping(timer, clock, frames=4, read_ms=10, infer_ms=40)
    elapsed_ms = 10 + 4 * 40
    assert timer.frames_per_second == pytest.approx(4000 / elapsed_ms)
    assert timer.busy_share("infer") == pytest.approx(160 / elapsed_ms)
    # Five frames were read and four came out: the fifth is no work on these four.
    assert timer.latency("read").count == 5
    assert timer.busy_share("read") == pytest.approx(40 / elapsed_ms)
    assert timer.bottleneck() == ("infer", pytest.approx(25))


def test_a_slow_stage_that_few_frames_pass_is_no_bottleneck():
    clock = Clock()
    timer = StageTimer(clock=clock)
    for index in range(8):
        if index % 4 == 0:
            run(timer, clock, "detect", [60])
        run(timer, clock, "infer", [20])
        timer.frame_done()
    assert timer.bottleneck() == ("infer", pytest.approx(50))
    assert timer.busy_share("detect") == pytest.approx(120 / 280)


def test_frames_that_never_came_out_do_not_count():
    clock = Clock()
    timer = StageTimer(clock=clock)
    for _ in range(3):
        run(timer, clock, "read", [100])
        timer.frame_done()
    run(timer, clock, "read", [100] * 5)
    assert timer.frames_per_second == pytest.approx(10)
    assert timer.busy_share("read") == 1


def test_named_stages_are_listed_in_that_order_once_they_are_measured():
    timer = StageTimer(stages=("decode", "draw", "encode"))
    assert timer.stages == ()
    assert timer.summary() == ["nothing was measured"]
    for stage in ("other", "encode", "decode"):
        with timer.measure(stage):
            pass
    assert timer.stages == ("decode", "encode", "other")
    with pytest.raises(UsageError, match="'draw' was never measured; measured: decode, encode, other"):
        timer.busy_share("draw")
    assert StageTimer().bottleneck() is None


def test_stages_are_measured_and_read_in_many_threads_at_once():
    """Nothing is lost, and whoever looks meanwhile sees whole numbers."""
    timer, passes = StageTimer(), 2000
    barrier = threading.Barrier(5)

    def measure(stage):
        barrier.wait(20)
        for _ in range(passes):
            with timer.measure(stage):
                pass

    threads = [threading.Thread(target=measure, args=(f"stage {index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait(20)
    while any(thread.is_alive() for thread in threads):
        assert len(timer.summary()) in range(1, 7)
    assert [timer.latency(f"stage {index}").count for index in range(4)] == [passes] * 4


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


def test_steps_are_told_as_they_begin_and_add_up():
    told = []
    clock = StepClock(told.append)
    for name in ("reading", "writing", "reading"):
        with clock.step(name):
            assert told[-1] == f"{name} ..."
    with pytest.raises(ZeroDivisionError), clock.step("failing"):
        1 / 0  # noqa: B018
    assert list(clock.seconds) == ["reading", "writing"]
    assert min(clock.seconds.values()) >= 0


def test_a_rate_is_that_of_the_latest_events():
    clock = Clock()
    meter = RateMeter(latest=4, clock=clock)
    assert meter.per_second is None
    meter.count()
    assert meter.per_second is None
    meter.count()
    assert meter.per_second is None  # at once
    for _ in range(3):
        clock.now += 0.5
        meter.count()
    assert meter.per_second == pytest.approx(2)
    for _ in range(4):
        clock.now += 0.1
        meter.count()
    assert meter.per_second == pytest.approx(10)
