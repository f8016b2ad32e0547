import pytest

from sfpp.runtime.bench.rounds import Rounds, progress_lines
from tests.runtime.bench.models import Clock, timed_model


def run(rounds, *, runs=1000, seconds=1e9):
    seen = []
    rounds.run(runs=runs, seconds=seconds, on_round=lambda done, elapsed_s: seen.append((done, elapsed_s)))
    return seen


def test_stages_are_timed_apart():
    clock = Clock()
    rounds = Rounds({7: timed_model(clock, prepare_ms=3, infer_ms=40, finish_ms=5)}, seed=0, clock=clock)
    run(rounds, runs=2)
    for sample in rounds.samples[7]:
        assert (sample.prepare_ms, sample.infer_ms, sample.finish_ms) == pytest.approx((3, 40, 5))
        assert sample.whole_ms == pytest.approx(48)
    assert len(rounds.samples[7]) == 2


def order_of(seed, *, runs=40):
    clock, log = Clock(), []
    models = {key: timed_model(clock, log=log, name=key) for key in range(3)}
    run(Rounds(models, seed=seed, clock=clock), runs=runs)
    return [tuple(log[start : start + 3]) for start in range(0, 3 * runs, 3)]


def test_each_round_runs_every_model_once_in_a_changing_order():
    rounds = order_of(seed=0)
    assert all(sorted(each) == [0, 1, 2] for each in rounds)
    assert len(set(rounds)) == 6
    assert order_of(seed=0) == rounds
    assert order_of(seed=1) != rounds


def test_time_ends_the_rounds():
    clock = Clock()
    rounds = Rounds({0: timed_model(clock, prepare_ms=0, infer_ms=1000, finish_ms=0)}, seed=0, clock=clock)
    assert run(rounds, seconds=4.5) == [(done, pytest.approx(done)) for done in range(1, 6)]


@pytest.mark.parametrize(("runs", "expected"), [(1000, 3), (2, 2)])
def test_a_slow_model_runs_a_few_times_nevertheless(runs, expected):
    clock = Clock()
    rounds = Rounds({0: timed_model(clock, infer_ms=60_000)}, seed=0, clock=clock)
    assert len(run(rounds, runs=runs, seconds=1)) == expected


def test_a_model_that_fails_leaves_and_the_others_go_on():
    clock = Clock()
    rounds = Rounds({0: timed_model(clock, fails_at=3), 1: timed_model(clock)}, seed=0, clock=clock)
    run(rounds, runs=6)
    assert [len(rounds.samples[key]) for key in (0, 1)] == [2, 6]
    assert rounds.failures == {0: "out of luck"}


def test_nothing_runs_on_when_all_have_failed():
    clock = Clock()
    rounds = Rounds({0: timed_model(clock, fails_at=2)}, seed=0, clock=clock)
    assert len(run(rounds)) == 2
    assert len(rounds.samples[0]) == 1


def test_progress_is_told_every_few_seconds():
    lines = []
    on_round = progress_lines(lines.append, runs=10, seconds=60.0)
    for done, elapsed_s in ((1, 3.0), (2, 6.0), (3, 9.0), (4, 12.0), (8, 58.0)):
        on_round(done, elapsed_s)
    assert lines == [
        "round 2 of 10, about 24 s left",
        "round 4 of 10, about 18 s left",
        "round 8 of 10, about 2 s left",
    ]
