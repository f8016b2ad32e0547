import contextlib
import gc
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sfpp.runtime import MediaError, SfppError, UsageError
from sfpp.runtime.video import open_sink
from sfpp.runtime.video.sinks.records import frame_record, record_lines
from sfpp.runtime.video.sinks.thread import SinkThread
from tests.runtime.video.clips import frame, picture, read_clip

FAILURE = MediaError("the receiver is no more")


class Recorder:
    """A sink that keeps indices, can be held up at any write, and can fail at one."""

    def __init__(self, *, fails_at=None, held=False):
        self.indices, self.threads, self.ended_with = [], [], "open"
        self.entered = threading.Event()
        self.free = threading.Event()
        if not held:
            self.free.set()
        self._fails_at = fails_at

    def write(self, given, image):
        self.entered.set()
        assert self.free.wait()
        self.threads.append(threading.current_thread())
        if given.index == self._fails_at:
            raise FAILURE
        self.indices.append(given.index)

    @contextlib.contextmanager
    def opened(self):
        try:
            yield self
        except BaseException as error:
            self.ended_with = error
            raise
        self.ended_with = None


def write_some(sink, count, *, start=0):
    for index in range(start, start + count):
        sink.write(frame(index), picture(index))


def sfpp_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("sfpp-sink")]


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    end_s = time.monotonic() + 10
    while sfpp_threads():
        assert time.monotonic() < end_s, sfpp_threads()
        time.sleep(0.005)


@pytest.mark.parametrize("policy", ["freshest", "every-frame"])
def test_one_thread_writes_in_order_and_closes(policy):
    recorder = Recorder()
    with SinkThread(recorder.opened(), name="out", policy=policy) as sink:
        for index in range(0, 2000):
            sink.write(frame(index), picture(0))
    assert recorder.indices == sorted(recorder.indices)
    assert recorder.indices[-1] == 1999
    assert len(recorder.indices) + sink.dropped == 2000
    assert recorder.ended_with is None
    assert {thread.name for thread in recorder.threads} == {"sfpp-sink-out"}
    assert len(set(recorder.threads)) == 1


def test_every_frame_loses_none_and_waits_for_a_slow_sink():
    recorder = Recorder(held=True)
    written = []

    def feed(sink):
        for index in range(6):
            sink.write(frame(index), picture(index))
            written.append(index)

    with SinkThread(recorder.opened(), name="out", policy="every-frame") as sink:
        feeder = threading.Thread(target=feed, args=(sink,))
        feeder.start()
        assert recorder.entered.wait(10)
        while len(written) < 2:
            time.sleep(0.001)
        feeder.join(0.05)
        assert written == [0, 1]  # one in the sink, one waiting
        recorder.free.set()
        feeder.join()
    assert recorder.indices == list(range(6))
    assert sink.dropped == 0


def test_the_freshest_replaces_what_waits_and_tells_once_a_second():
    recorder, events, now = Recorder(held=True), [], [100.0]
    with SinkThread(recorder.opened(), name="out", on_event=events.append, clock=lambda: now[0]) as sink:
        write_some(sink, 1)
        assert recorder.entered.wait(10)
        write_some(sink, 4, start=1)  # 1 waits, then 2, 3, 4 in its place
        assert [event.count for event in events] == [1]
        now[0] += 0.9
        write_some(sink, 1, start=5)
        assert len(events) == 1
        now[0] += 0.2
        write_some(sink, 1, start=6)
        assert [event.count for event in events] == [1, 4]
        write_some(sink, 2, start=7)
        recorder.free.set()
    assert recorder.indices == [0, 8]
    assert sink.dropped == 7
    assert [(event.kind, event.source, event.count) for event in events] == [
        ("dropped", "out", 1),
        ("dropped", "out", 4),
        ("dropped", "out", 2),
    ]
    assert events[0].detail == "1 picture was replaced by fresher ones"


def test_what_must_be_complete_is_waited_for_but_fails_without_harm():
    recorder, events = Recorder(held=True, fails_at=7), []
    with SinkThread(recorder.opened(), name="log", complete=True, on_event=events.append) as sink:
        feeder = threading.Thread(target=write_some, args=(sink, 7))
        feeder.start()
        assert recorder.entered.wait(10)
        feeder.join(0.05)
        assert feeder.is_alive()  # one is being written, one waits, the next must wait for room
        recorder.free.set()
        feeder.join()
        write_some(sink, 3, start=7)
        while recorder.ended_with == "open":
            time.sleep(0.001)
        write_some(sink, 3)
    assert recorder.indices == list(range(7))
    assert [event.kind for event in events] == ["sink-failed"]


@pytest.mark.parametrize("policy", ["freshest", "every-frame"])
def test_sources_that_share_a_sink_do_not_replace_each_others_pictures(policy):
    recorder = Recorder(held=True)
    with SinkThread(recorder.opened(), name="out", policy=policy) as sink:
        sink.write(frame(0), picture(0))
        assert recorder.entered.wait()  # the thread is busy, and two more come together
        for index, source in ((1, "left"), (2, "right")):
            sink.write(replace(frame(index), source=source), picture(index))
        if policy == "freshest":
            sink.write(replace(frame(3), source="left"), picture(3))
        recorder.free.set()
    assert recorder.indices == ([0, 3, 2] if policy == "freshest" else [0, 1, 2])
    assert sink.dropped == (policy == "freshest")


def test_the_freshest_goes_on_without_a_sink_that_fails():
    recorder, events = Recorder(fails_at=2), []
    with SinkThread(recorder.opened(), name="out", on_event=events.append) as sink:
        index = 0
        while recorder.ended_with == "open" or sfpp_threads():
            write_some(sink, 1, start=min(index, 2))
            index += 1
            time.sleep(0.001)
        write_some(sink, 50, start=100)
    assert max(recorder.indices) < 2
    assert recorder.ended_with is FAILURE
    failed = [event for event in events if event.kind == "sink-failed"]
    assert [event.line() for event in failed] == ["out: sink-failed: the receiver is no more"]


def test_a_mistake_in_a_sink_is_told_with_its_kind():
    recorder, events = Recorder(), []
    with SinkThread(recorder.opened(), name="out", on_event=events.append) as sink:
        sink.submit(lambda given: given.no_such_thing())
    assert [event.kind for event in events] == ["sink-failed"]
    assert events[0].detail.startswith("AttributeError: ")


def test_every_frame_raises_at_the_next_write_and_the_sink_hears_of_it():
    recorder = Recorder(fails_at=3)

    def all_written():
        with SinkThread(recorder.opened(), name="out", policy="every-frame") as sink:
            write_some(sink, 50)

    with pytest.raises(MediaError, match="is no more"):
        all_written()
    assert recorder.indices == [0, 1, 2]
    assert recorder.ended_with is FAILURE


def test_every_frame_raises_when_closed_if_no_write_comes():
    recorder = Recorder(fails_at=0)
    with (
        pytest.raises(MediaError, match="is no more"),
        SinkThread(recorder.opened(), name="out", policy="every-frame") as sink,
    ):
        write_some(sink, 1)


@pytest.mark.parametrize("policy", ["freshest", "every-frame"])
def test_what_fails_while_closing_is_told(policy):
    @contextlib.contextmanager
    def opened():
        yield Recorder()
        raise FAILURE

    events = []
    thread = SinkThread(opened(), name="out", policy=policy, on_event=events.append)
    raising = pytest.raises(MediaError, match="is no more") if policy == "every-frame" else contextlib.nullcontext()
    with raising, thread as sink:
        write_some(sink, 1)
    assert [event.kind for event in events] == (["sink-failed"] if policy == "freshest" else [])


@pytest.mark.parametrize("policy", ["freshest", "every-frame"])
def test_what_is_wrong_from_the_beginning_is_raised(policy, tmp_path):
    opening = open_sink(tmp_path / "folder" / "out.mp4")
    (tmp_path / "folder").touch()  # between the check and the opening
    with pytest.raises(SfppError, match="is no folder"), SinkThread(opening, name="out", policy=policy):
        pytest.fail("it opened")


@pytest.mark.parametrize("policy", ["freshest", "every-frame"])
def test_the_callers_error_reaches_the_sink_and_goes_on(policy):
    recorder, error = Recorder(), ZeroDivisionError()

    def broken():
        with SinkThread(recorder.opened(), name="out", policy=policy) as sink:
            write_some(sink, 1)
            raise error

    with pytest.raises(ZeroDivisionError):
        broken()
    assert recorder.ended_with is error


@pytest.mark.parametrize("policy", ["freshest", "every-frame"])
def test_a_stuck_sink_is_left_behind_and_ends_when_it_comes_back(policy):
    recorder, events = Recorder(held=True), []
    opening = recorder.opened()
    with SinkThread(opening, name="out", policy=policy, on_event=events.append, close_timeout_s=0.05) as sink:
        write_some(sink, 1)
        assert recorder.entered.wait(10)
        write_some(sink, 1, start=1)
        if policy == "freshest":
            write_some(sink, 3000, start=2)
    assert recorder.ended_with == "open"
    assert [event.kind for event in events if event.kind != "dropped"] == ["sink-failed"]
    assert events[-1].line() == "out: sink-failed: does not end within 0.05 s; left behind"
    assert sink._thread.is_alive()
    recorder.free.set()
    sink._thread.join(10)
    assert not sink._thread.is_alive()
    assert recorder.ended_with is None
    assert [event.kind for event in events if event.kind != "dropped"] == ["sink-failed"]


def test_interrupting_a_write_that_waits_for_a_stuck_sink():
    recorder = Recorder(held=True)
    interrupts = iter([False, False, True])

    def hear(sink):
        wait = sink._changed.wait

        def interrupted(timeout=None):
            if next(interrupts):
                raise KeyboardInterrupt
            return wait(0.01)

        return interrupted

    def stuck():
        with SinkThread(recorder.opened(), name="out", policy="every-frame", close_timeout_s=0.01) as sink:
            write_some(sink, 1)
            assert recorder.entered.wait(10)
            write_some(sink, 1, start=1)
            sink._changed.wait = hear(sink)
            write_some(sink, 1, start=2)

    with pytest.raises(KeyboardInterrupt):
        stuck()
    recorder.free.set()


def test_pictures_are_let_go():
    recorder, kept = Recorder(), []
    with SinkThread(recorder.opened(), name="out", policy="every-frame") as sink:
        for index in range(5):
            image = np.zeros((4, 4, 3), np.uint8)
            kept.append(weakref.ref(image))
            sink.write(frame(index), image)
            del image
        while len(recorder.indices) < 5:
            time.sleep(0.001)
        end_s = time.monotonic() + 10
        while any(reference() is not None for reference in kept):
            gc.collect()
            assert time.monotonic() < end_s, "a picture is still held"


def test_after_the_end_writing_is_a_mistake():
    thread = SinkThread(Recorder().opened(), name="out")
    with pytest.raises(UsageError, match="the sink out is closed"):
        write_some(thread, 1)
    with thread as sink:
        pass
    with pytest.raises(UsageError, match="the sink out is closed"):
        write_some(sink, 1)


def test_other_work_than_pictures(tmp_path):
    with SinkThread(record_lines(tmp_path / "out.jsonl"), name="out", policy="every-frame") as lines:
        for index in range(20):
            lines.submit(lambda given, index=index: given.write_record(frame_record(frame(index))))
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 20


def test_files_are_completed_and_nothing_stays_open(tmp_path):
    def handles():
        folder = Path("/", "proc", "self", "fd")
        return len(list(folder.iterdir())) if folder.exists() else 0

    def one_run(number):
        with contextlib.ExitStack() as stack:
            sinks = [
                stack.enter_context(SinkThread(open_sink(tmp_path / name, live=live), name=name, policy="every-frame"))
                for name, live in ((f"whole-{number}.mp4", False), (f"live-{number}.mp4", True))
            ]
            for index in range(12):
                for sink in sinks:
                    sink.write(frame(index, time_s=index / 25), picture(index))

    one_run(0)
    before = handles()
    for number in range(1, 6):
        one_run(number)
    assert handles() == before
    assert {len(read_clip(path)) for path in tmp_path.iterdir()} == {12}
    assert len(list(tmp_path.iterdir())) == 12
