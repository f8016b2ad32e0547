"""The stages by themselves, with plain functions; events instead of sleeps decide who is ahead of whom."""

import gc
import threading
import traceback
import weakref

import pytest

from sfpp.runtime.video import stages as pipeline
from sfpp.runtime.video.stages import Stage, run_stages

LONG_S = 20  # only a failing test waits so long


def ours():
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("sfpp-")}


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not ours()


def collected(source, stages, **options):
    with run_stages(source, stages, **options) as results:
        return list(results)


def fail_on(number):
    def work(item):
        if item == number:
            raise ZeroDivisionError(f"item {item}")
        return item

    return work


ADD, DOUBLE = Stage("add", lambda item: item + 1), Stage("double", lambda item: item * 2)


def test_a_thousand_items_come_out_as_from_a_loop():
    assert collected(range(1000), [ADD, DOUBLE, ADD]) == [(item + 1) * 2 + 1 for item in range(1000)]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_items_and_no_stage(count):
    assert collected(range(count), [ADD, DOUBLE]) == [(item + 1) * 2 for item in range(count)]
    assert collected(range(count), []) == list(range(count))


def test_none_is_an_item_like_others():
    assert collected([None, 0, None], [Stage("same", lambda item: item)]) == [None, 0, None]


def test_every_stage_has_a_thread_that_is_called_after_it():
    names = []
    stages = [Stage(name, lambda item: [*item, threading.current_thread().name]) for name in ("infer", "draw")]

    def source():
        for _ in range(5):
            yield [threading.current_thread().name]

    with run_stages(source(), stages, source_name="decode") as results:
        names = list(results)
    assert names == [["sfpp-decode", "sfpp-infer", "sfpp-draw"]] * 5


def test_all_stages_work_at_once():
    """Item n meets item n+1 in the stage before and n+2 in the source: one after the other, nobody would ever come."""
    count, barrier = 40, threading.Barrier(3)

    def meet(item, *, first, last):
        if first <= item <= last:
            barrier.wait(LONG_S)
        return item

    source = (meet(item, first=2, last=count) for item in range(count))
    stages = [
        Stage("first", lambda item: meet(item, first=1, last=count - 2)),
        Stage("second", lambda item: meet(item, first=0, last=count - 3)),
    ]
    assert collected(source, stages) == list(range(count))


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_the_source_is_read_ahead_no_further_than_promised(stages):
    begun, full = [], threading.Event()
    promised = 2 * (stages + 1)

    def source():
        for item in range(100):
            begun.append(item)
            if len(begun) == promised + 2:
                full.set()
            yield item

    with run_stages(source(), [ADD] * stages) as results:
        for done, _ in enumerate(results, start=1):
            # A slow consumer. The item that it holds has left the line.
            assert not full.wait(0.05)
            assert len(begun) <= promised + done
            if done == 1:
                break
    assert len(begun) <= promised + 1


def test_items_are_let_go_when_they_are_used():
    class Item:
        pass

    alive = weakref.WeakSet()

    def source():
        for _ in range(50):
            item = Item()
            alive.add(item)
            yield item
            del item

    most = 0
    with run_stages(source(), [Stage("first", lambda item: item), Stage("second", lambda item: item)]) as results:
        for item in results:
            most = max(most, len(alive))
            del item
    gc.collect()
    assert not alive
    assert most <= 3 * 2 + 2  # on the way, the consumer's, and the one that the source's loop still holds


@pytest.mark.parametrize("place", ["source", "first", "middle", "last"])
def test_an_error_arrives_after_all_items_before_it(place):
    failing = fail_on(5)
    stages = [Stage(name, failing if name == place else lambda item: item) for name in ("first", "middle", "last")]
    source = map(failing, range(100)) if place == "source" else range(100)
    seen = []
    with pytest.raises(ZeroDivisionError, match="item 5") as caught, run_stages(source, stages) as results:
        seen.extend(results)
    assert seen == [0, 1, 2, 3, 4]
    lines = [entry.line for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert 'raise ZeroDivisionError(f"item {item}")' in lines


def test_the_first_of_two_errors_is_that_of_the_earlier_item():
    """The first stage fails at a later item before the last stage comes to an earlier one."""
    first_failed = threading.Event()

    def first(item):
        if item == 2:
            first_failed.set()
            raise KeyError(item)
        return item

    def last(item):
        assert first_failed.wait(LONG_S)
        if item == 1:
            raise ZeroDivisionError
        return item

    seen = []
    with pytest.raises(ZeroDivisionError), run_stages(range(9), [Stage("a", first), Stage("b", last)]) as results:
        seen.extend(results)
    assert seen == [0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, StopIteration])
def test_no_kind_of_exception_is_lost(error):
    def work(item):
        raise error

    # A StopIteration that leaves a function would silently end the loop over the results.
    expected = RuntimeError if error is StopIteration else error
    with pytest.raises(expected):
        collected(range(3), [Stage("work", work)])


def test_after_an_error_nobody_works_on_for_nothing():
    with run_stages(range(1000), [ADD, DOUBLE, Stage("failing", fail_on(4))]) as results:
        with pytest.raises(ZeroDivisionError):
            list(results)
        for thread in threading.enumerate():
            if thread.name.startswith("sfpp-"):
                thread.join(LONG_S)  # they end by themselves, before the block does
        assert not ours()


def test_leaving_early_stops_everything():
    begun = []

    def source():
        for item in range(1000):
            begun.append(item)
            yield item

    with run_stages(source(), [ADD, DOUBLE]) as results:
        assert next(results) == 2
    assert len(begun) <= 8
    assert not ours()


def test_leaving_without_taking_anything():
    with run_stages(range(1000), [ADD, DOUBLE]):
        assert ours() == {"sfpp-source", "sfpp-add", "sfpp-double"}
        # One that is left behind must not keep the program from ending.
        assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("sfpp-"))


def test_the_callers_own_error_stops_everything_and_stays_itself():
    def failing():
        with run_stages(range(1000), [ADD, Stage("later", fail_on(500))]) as results:
            next(results)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        failing()


def test_the_rest_comes_at_the_end_and_not_where_a_run_is_left():
    held, asked, busy, release = [], [], threading.Event(), threading.Event()

    def hold(item):
        held.append(item)

    def rest():
        asked.append(busy.is_set() and not release.is_set())
        return list(held)

    def work(item):
        if item == 9:
            busy.set()
            assert release.wait(LONG_S)
        return item

    assert collected(range(3), [Stage("hold", hold, rest)]) == [None, None, None, [0, 1, 2]]
    with run_stages(range(20), [Stage("work", work), Stage("hold", hold, rest)]) as results:
        assert [next(results) for _ in range(9)] == [None] * 9
        assert busy.wait(LONG_S)
        threading.Timer(0.1, release.set).start()
    assert asked == [False]  # where it is left, other stages may still be busy


def test_an_endless_source_is_stopped():
    def source():
        while True:
            yield 1

    with run_stages(source(), [ADD]) as results:
        assert [next(results) for _ in range(10)] == [2] * 10


def test_ctrl_c_leaves_a_stuck_stage_behind(monkeypatch):
    monkeypatch.setattr(pipeline, "_PATIENCE_S", 0.01)
    stuck, release, made = threading.Event(), threading.Event(), []

    def work(item):
        if item == 2:
            stuck.set()
            assert release.wait(LONG_S)
        return item

    def interrupted():
        with run_stages(range(10), [Stage("stuck", work), Stage("after", made.append)]) as results:
            assert [next(results), next(results)] == [None, None]
            assert stuck.wait(LONG_S)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    for thread in threading.enumerate():
        if thread.name in ("sfpp-source", "sfpp-after"):
            thread.join(LONG_S)
    assert ours() == {"sfpp-stuck"}
    (left,) = (thread for thread in threading.enumerate() if thread.name == "sfpp-stuck")
    assert left.daemon
    release.set()
    left.join(LONG_S)
    assert made == [0, 1]  # what it makes then goes nowhere


def test_ctrl_c_waits_for_stages_that_come_back():
    def interrupted():
        with run_stages(range(10), [ADD]) as results:
            next(results)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not ours()
