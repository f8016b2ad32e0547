import dataclasses
import itertools

import pytest

from benchmarks.speed.race import Race, Reopened, held_open
from sfpp.runtime.errors import BackendError
from tests.benchmarks.speed.rows import Fake, entry
from tests.runtime.bench.models import Clock


def held_slowly(peak_bytes, memory_bytes):
    """The most contestants, smallest first, that leave room for the largest of the others."""
    order = sorted(range(len(peak_bytes)), key=lambda index: peak_bytes[index])
    for count in range(len(order), 0, -1):
        others = [peak_bytes[index] for index in order[count:]]
        if sum(peak_bytes[index] for index in order[:count]) + max(others, default=0) <= memory_bytes:
            return set(order[:count])
    return set()


def test_the_small_ones_stay_open_beside_the_largest_other():
    assert held_open([5, 1, 9, 2], memory_bytes=12) == {1, 3}
    assert held_open([5, 1, 9, 2], memory_bytes=17) == {0, 1, 2, 3}
    assert held_open([5, 1, 9, 2], memory_bytes=9) == set()
    assert held_open([], memory_bytes=9) == set()


@pytest.mark.parametrize("memory_bytes", range(0, 25, 2))
def test_as_many_as_fit(memory_bytes):
    for peaks in itertools.product((1, 3, 8), repeat=4):
        assert held_open(peaks, memory_bytes=memory_bytes) == held_slowly(peaks, memory_bytes)


def race_of(fakes, *, memory_bytes=100, names=None):
    entries = [entry(name, contestant=fake) for name, fake in zip(names or "abcdef", fakes, strict=False)]
    return Race(entries, memory_bytes=memory_bytes, clock=fakes[0].clock)


def run(race, tmp_path, *, runs=4):
    race.measure_memory(tmp_path / "frame.npy")
    race.answer()
    race.time(runs=runs, seconds=1e9)
    race.close()
    return race.findings


def test_who_fits_is_opened_once_and_who_does_not_for_each_run(tmp_path):
    clock = Clock()
    small, large, other = Fake(clock, peak=2), Fake(clock, peak=9, infer_ms=70.0), Fake(clock, peak=9)
    findings = run(race_of([small, large, other], memory_bytes=12), tmp_path)
    assert small.log == ["peak", "open", *["run"] * 6, "close"]
    assert large.log == other.log == ["peak", "open", "run", "close", *["open", "run", "run", "close"] * 4]
    assert [sample.infer_ms for sample in findings.samples[1]] == pytest.approx([70.0] * 4)
    assert [sample.finish_ms for sample in findings.samples[0]] == pytest.approx([2.0] * 4)


def test_one_that_is_opened_for_each_run_is_closed_also_when_it_fails():
    fake = Fake(Clock(), fails_in="run")
    with pytest.raises(BackendError, match="no luck: run"):
        Reopened(fake).run()
    assert fake.log == ["open", "run", "close"]


@pytest.mark.parametrize(
    ("step", "log"), [("peak", ["peak"]), ("open", ["peak", "open"]), ("run", ["peak", "open", "run", "close"])]
)
def test_who_fails_takes_no_further_part(tmp_path, step, log):
    clock = Clock()
    broken, sound = Fake(clock, fails_in=step), Fake(clock)
    findings = run(race_of([broken, sound]), tmp_path)
    assert broken.log == log
    assert findings.missing == {0: f"no luck: {step}"}
    assert {index: len(samples) for index, samples in findings.samples.items()} == {1: 4}


def test_who_is_missing_from_the_start_is_a_row_nevertheless(tmp_path):
    race = Race(
        [entry("transformers", missing="16 GiB of scores"), entry("fast", contestant=Fake(Clock()))], memory_bytes=9
    )
    rows = run(race, tmp_path).rows(network="b0", size="4x1", peaks={})
    assert [(row.name, row.missing) for row in rows] == [("transformers", "16 GiB of scores"), ("fast", None)]


def test_an_interrupted_race_keeps_its_rounds(tmp_path):
    clock = Clock()
    first, second = Fake(clock), Fake(clock)
    race = race_of([first, second])
    race.measure_memory(tmp_path / "frame.npy")
    race.answer()
    infer, runs = second.infer, itertools.count()

    def interrupted(prepared):
        if next(runs) == 4:
            raise KeyboardInterrupt
        return infer(prepared)

    race._open[1] = dataclasses.replace(race._open[1], infer=interrupted)
    with pytest.raises(KeyboardInterrupt):
        race.time(runs=10, seconds=1e9)
    assert {len(samples) for samples in race.findings.samples.values()} <= {3, 4}
    assert all(row.time is not None for row in race.findings.rows(network="b0", size="4x1", peaks={}))
