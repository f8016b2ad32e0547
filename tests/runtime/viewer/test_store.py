import threading

import numpy as np
import pytest

from sfpp.runtime.events import Event
from sfpp.runtime.viewer.store import KEPT_S, OTHERS, SAMPLE_S, LatencyWindow, Store
from tests.runtime.viewer.looking import update


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def shown_at(times_s):
    """A store that was shown an update at each of these times."""
    clock = Clock()
    store = Store(clock=clock)
    for clock.now in map(float, times_s):
        store.put(update())
    return store


def test_only_the_newest_update_of_each_source_is_kept():
    clock = Clock()
    store = Store(clock=clock)
    for index in range(5):
        store.put(update(index, source="front"))
        store.put(update(10 + index, source="rear"))
    clock.now += 2
    assert [(each.name, each.newest.index, each.frames, each.idle_s) for each in store.sources()] == [
        ("front", 4, 5, 2.0),
        ("rear", 14, 5, 2.0),
    ]
    assert {name: each.index for name, each in store.newest().items()} == {"front": 4, "rear": 14}


def test_sources_are_bounded_and_the_one_idle_longest_goes():
    clock = Clock()
    store = Store(clock=clock)
    for number in range(64):
        clock.now += 1
        store.put(update(source=f"s{number}"))
    clock.now += 1
    store.put(update(source="s0"))
    store.put(update(source="new"))
    names = [each.name for each in store.sources()]
    assert len(names) == 64
    assert "s0" in names
    assert "new" in names
    assert "s1" not in names


def test_history_has_the_means_of_quarter_seconds():
    clock, random = Clock(), np.random.default_rng(0)
    store = Store(clock=clock)
    frames = [(now, float(random.uniform(1, 50))) for now in np.arange(0, 2, 0.03)]
    ends, group, expected = float("-inf"), [], []
    for now, infer in frames:
        clock.now = now
        ages = {"age_ms": 2 * infer, "labels_age_ms": 3 * infer}
        store.put(update(stages_ms={"infer": infer}, **ages, frames_per_second=now))
        group.append(infer)
        if now - ends >= SAMPLE_S:
            expected.append((now, np.mean(group)))
            ends, group = now, []
    samples = store.samples("front", 0)
    assert [sample.number for sample in samples] == list(range(len(expected)))
    for sample, (now, mean) in zip(samples, expected, strict=True):
        assert sample.time_s == sample.frames_per_second == now
        assert sample.stages_ms == pytest.approx({"infer": mean})
        assert sample.age_ms == pytest.approx(2 * mean)
        assert sample.labels_age_ms == pytest.approx(3 * mean)
    assert store.samples("front", 3) == samples[3:]


def test_history_keeps_a_minute_and_every_frame_of_a_slow_pipeline():
    times = [sample.time_s for sample in shown_at(np.arange(0, 500, SAMPLE_S)).samples("front", 0)]
    assert times[-1] - times[0] == pytest.approx(KEPT_S)
    assert len(shown_at(range(10)).samples("front", 0)) == 10


def test_latency_quantiles_are_those_of_the_latest_values():
    window, values = LatencyWindow(), np.random.default_rng(0).exponential(10, 3000)
    for value in values:
        window.add(value)
    window.add(float("nan"))
    found = window.copy()
    window.add(1e9)
    for quantile in (0.5, 0.9, 0.99):
        assert found.quantiles_ms()[quantile] == pytest.approx(np.quantile(values[-1024:], quantile))
    assert found.count == 3000
    assert found.sum_ms == pytest.approx(values.sum())
    assert LatencyWindow().quantiles_ms() == {}


def test_events_are_numbered_counted_and_only_the_last_are_kept():
    store = Store()
    for number in range(500):
        store.add_event(Event("lost" if number % 2 else "dropped", "front", "too old", count=2))
        store.add_event(Event("note", "rear", f"note {number}"))
    events = store.events(0)
    assert len(events) == 200
    assert [number for number, _ in events] == list(range(800, 1000))
    assert [number for number, _ in store.events(997)] == [997, 998, 999]
    assert store.event_counts() == {("front", "dropped"): 250, ("front", "lost"): 250, ("rear", "note"): 500}
    assert store.dropped() == {"front": 500}


def test_drops_that_follow_each_other_are_one_event():
    store = Store()
    store.add_event(Event("opened", "front", ""))
    for count in (1, 2, 3):
        store.add_event(Event("dropped", "front", f"{count} too old", count=count))
        store.add_event(Event("dropped", "rear", "too old", count=10))
    store.add_event(Event("lost", "front", ""))
    store.add_event(Event("dropped", "front", "too old", count=4))
    found = [(number, each.kind, each.source, each.count) for number, each in store.events(0)]
    assert found == [
        (0, "opened", "front", 0),
        (5, "dropped", "front", 6),
        (6, "dropped", "rear", 30),
        (7, "lost", "front", 0),
        (8, "dropped", "front", 4),
    ]
    assert store.dropped() == {"front": 10, "rear": 30}
    assert store.event_counts()["front", "dropped"] == 4


def test_names_of_events_without_end_do_not_fill_the_memory():
    store = Store()
    for number in range(5000):
        store.add_event(Event("note", f"source {number}", ""))
    counts = store.event_counts()
    assert len(counts) <= 1025
    assert sum(counts.values()) == 5000
    assert counts[OTHERS, "note"] > 3000


def test_threads_may_show_and_read_at_once():
    store = Store()

    def show(name):
        for index in range(300):
            store.put(update(index, source=name))
            store.add_event(Event("note", name, ""))

    threads = [threading.Thread(target=show, args=(f"s{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for each in store.sources():
            store.latencies(each.name)
            store.samples(each.name, 0)
        store.events(0)
    assert {each.name: each.frames for each in store.sources()} == {f"s{number}": 300 for number in range(4)}
    assert store.latencies("s0")[0]["infer"].count == 300
    assert store.latencies("unknown")[0] == {}
    assert store.samples("unknown", 0) == []
