import itertools
import threading
import time

import pytest

from sfpp.runtime import MediaError
from sfpp.runtime.video.sources import link
from sfpp.runtime.video.sources.link import Clip, Opened
from tests.runtime.video.sources.fakes import LONG_S, FakeConnection, Line, gray, levels, live_threads

BROKEN = MediaError("connection reset by peer")


@pytest.fixture(autouse=True)
def _quick_and_tidy(monkeypatch):
    monkeypatch.setattr(link, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(link, "_LONGEST_PAUSE_S", 0.001)
    before = set(live_threads())
    yield
    for thread in live_threads():
        thread.join(LONG_S)
    assert set(live_threads()) <= before


def endless(start=0):
    """Pictures for ever, not faster than a thread is switched, so that a test sees the first ones too."""
    for level in itertools.count(start):
        yield gray(level % 256)


def test_frames_go_on_over_connections_as_if_nothing_had_happened():
    refused = MediaError("refused")
    line = Line([1, 2, BROKEN], refused, refused, [3, 4], [5, BROKEN], connects_in_caller=True, tries=3)
    with line.open() as source:
        assert (source.kind, source.live, source.name, source.frames_per_second) == ("stream", True, "fake", None)
        frames = list(source)
    assert levels(frames) == [1, 2, 3, 4, 5]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.name for frame in frames] == [f"fake-{index:06d}" for index in range(5)]
    times = [frame.time_s for frame in frames]
    assert times[0] == 0
    assert times == sorted(times)
    assert frames[4].taken_s - frames[0].taken_s == pytest.approx(times[4])
    assert line.told == ["opened", "lost", "back", "lost", "back", "lost", "gave-up"]
    details = [event.detail for event in line.events]
    assert details[0] == "fake://, a fake"
    assert details[1] == "connection reset by peer; connecting again"
    assert details[2].startswith("after 0.")
    assert details[2].endswith(" s, at try 3")
    assert details[3] == "it ended; connecting again"
    assert details[6] == "gave up after 3 tries: nobody there"
    assert source.warnings == ["fake delivers no more frames after 5: gave up after 3 tries: nobody there"]
    assert all(event.source == "fake" for event in line.events)
    assert all(each.closed for each in line.connections if isinstance(each, FakeConnection))


def test_tries_count_anew_after_each_success():
    gone = MediaError("refused")
    line = Line([1], gone, gone, [2], gone, gone, [3], gone, gone, gone, connects_in_caller=True, tries=3)
    with line.open() as source:
        assert levels(source) == [1, 2, 3]
    assert line.connected == 10


def test_without_tries_the_first_loss_is_the_end():
    line = Line([1, 2], [3], connects_in_caller=True, tries=0)
    with line.open() as source:
        assert levels(source) == [1, 2]
    assert line.told == ["opened", "lost", "gave-up"]
    assert line.events[1].detail == "it ended"
    assert source.warnings == ["fake delivers no more frames after 2: it ended"]


@pytest.mark.parametrize("connects_in_caller", [True, False])
def test_the_first_connection_failing_is_an_error_at_once(connects_in_caller):
    line = Line(MediaError("nobody there"), [1], connects_in_caller=connects_in_caller)
    with pytest.raises(MediaError, match="nobody there"):
        line.open()
    assert line.connected == 1
    assert line.events == []
    assert (line.threads[0] is threading.current_thread()) is connects_in_caller


def test_waiting_for_the_first_connection():
    line = Line(MediaError("nobody there"), MediaError("nobody there"), [7, 8], wait=True)
    with line.open() as source:
        assert line.connected == 0  # nobody takes frames yet
        frames = iter(source)
        assert levels([next(frames), next(frames)]) == [7, 8]
    assert line.told == ["lost", "opened", "back"]
    assert line.events[0].detail == "nobody there; connecting again"


def test_waiting_in_vain():
    line = Line(wait=True, tries=2)
    with (
        line.open() as source,
        pytest.raises(MediaError, match=r"fake holds no frame .*gave up after 2 tries: nobody there"),
    ):
        next(iter(source))
    assert line.told == ["lost", "gave-up"]


def test_open_but_without_any_picture():
    line = Line([None, BROKEN], [1], connects_in_caller=True)
    with line.open() as source, pytest.raises(MediaError, match="was opened, but no picture came: connection reset"):
        next(iter(source))
    assert line.connected == 1


def test_silence_is_a_loss_and_the_connection_is_closed_before_the_next():
    release = threading.Event()

    def silent():
        assert release.wait(LONG_S)

    first = FakeConnection([1, silent, 99])
    line = Line(first, [2], connects_in_caller=True, timeout_s=0.3, tries=1)
    with line.open() as source:
        frames = iter(source)
        assert levels([next(frames)]) == [1]
        threading.Timer(0.6, release.set).start()
        assert levels([next(frames)]) == [2]  # and not 99, which came too late
    assert first.closed == 1
    assert line.told == ["opened", "lost", "back"]
    assert line.events[1].detail == "no picture for 0.3 s; connecting again"


def test_signs_of_life_without_pictures_are_silence_too():
    stop = threading.Event()

    def sound():
        yield gray(1)
        while not stop.wait(0.001):
            yield None

    line = Line(FakeConnection(sound()), [2], connects_in_caller=True, timeout_s=0.3)
    with line.open() as source:
        frames = iter(source)
        assert levels([next(frames), next(frames)]) == [1, 2]
    assert not stop.is_set()  # the reading ended for another reason: it was not wanted any more


def test_the_first_picture_of_a_connection_may_take_longer():
    def slow():
        time.sleep(0.5)

    line = Line([slow, 1], connects_in_caller=True, timeout_s=0.3, tries=0)
    with line.open() as source:
        assert levels(source) == [1]
    assert line.told == ["opened", "lost", "gave-up"]


def test_a_driver_that_never_returns_is_given_up(monkeypatch):
    monkeypatch.setattr(link, "_STUCK_S", 0.05)
    monkeypatch.setattr(link, "_CLOSING_S", 0.01)
    release = threading.Event()
    line = Line([1, lambda: release.wait(LONG_S)], [2], connects_in_caller=True, timeout_s=0.3)
    with line.open() as source:
        assert levels(source) == [1]
    assert line.told == ["opened", "lost", "gave-up"]
    assert source.warnings == [
        "fake delivers no more frames after 1: no picture for 0.3 s, and the driver does not return"
    ]
    release.set()


def test_a_bug_in_a_connection_is_raised_where_frames_are_taken():
    line = Line([1, ZeroDivisionError("mine")], [2], connects_in_caller=True)
    with line.open() as source:
        frames = iter(source)
        next(frames)
        with pytest.raises(ZeroDivisionError, match="mine"):
            next(frames)
    assert line.connections[0].closed == 1


def test_another_size_is_told_and_shown():
    line = Line([gray(1), gray(2, size_hw=(8, 6)), gray(3, size_hw=(8, 6))], connects_in_caller=True, tries=0)
    with line.open() as source:
        assert source.size_hw == (4, 6)
        assert [frame.image_bgr.shape[:2] for frame in source] == [(4, 6), (8, 6), (8, 6)]
    (changed,) = (event for event in line.events if event.kind == "size-changed")
    assert changed.detail == "from 6x4 to 6x8 (width x height)"


def test_a_plain_file_ends_at_its_end_and_keeps_its_own_times():
    opened = Opened("a file", finite=True, clip=Clip(frames_per_second=10, count=3))
    pictures = [gray(level, stamp_s=5 + level / 10) for level in range(3)]
    line = Line(FakeConnection(pictures, opened), [9])
    with line.open() as source:
        assert (source.kind, source.live, source.count, source.frames_per_second) == ("video", False, 3, 10)
        time.sleep(0.02)  # it waits to be taken
        frames = list(source)
    assert levels(frames) == [0, 1, 2]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2])
    assert source.warnings == []
    assert line.told == ["opened"]
    assert line.connected == 1


def test_a_plain_file_that_breaks_off_says_so_and_is_not_begun_anew():
    opened = Opened("a file", finite=True, clip=Clip(frames_per_second=10, count=3))
    line = Line(FakeConnection([0, 1, BROKEN], opened), [9])
    with line.open() as source:
        frames = list(source)
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1])  # without stamps, by the rate
    assert source.warnings == ["fake breaks off after 2 of 3 frames: connection reset by peer; kept what came"]
    assert line.connected == 1


def test_a_stream_with_an_end_is_live_and_ends():
    line = Line(FakeConnection([0, 1], Opened("a recording", finite=True)), [9], connects_in_caller=True)
    with line.open() as source:
        assert source.live
        assert levels(source) == [0, 1]
    assert line.told == ["opened"]


def test_before_anybody_takes_frames_only_the_newest_is_kept():
    far = threading.Event()

    def stream():
        for number in itertools.count():
            if number == 200:
                far.set()
            yield gray(0, size_hw=(1 + number // 100, 1 + number % 100))

    line = Line(FakeConnection(stream()))
    with line.open() as source:
        assert far.wait(LONG_S)
        frames = (frame.image_bgr.shape for frame in source)
        numbers = [100 * (height - 1) + width - 1 for height, width, _ in itertools.islice(frames, 6)]
    assert numbers[0] >= 199
    assert numbers == list(range(numbers[0], numbers[0] + 6))  # nothing is lost any more


def test_nothing_piles_up_while_nobody_takes():
    made = []

    def stream():
        for level in itertools.count():
            made.append(level)
            yield gray(level % 256)

    line = Line(FakeConnection(stream()), connects_in_caller=True)
    with line.open() as source:
        frames = iter(source)
        next(frames)
        time.sleep(0.1)
        assert len(made) <= 3


@pytest.mark.parametrize("state", ["connecting", "silent", "pausing", "full", "unread"])
def test_closing_from_another_thread_ends_whatever_it_waits_for(monkeypatch, state):
    release = threading.Event()
    connections = {
        "connecting": ([1], lambda: release.wait(LONG_S) and MediaError("late")),
        "silent": ([1, lambda: release.wait(LONG_S)],),
        "pausing": ([1], [2]),
        "full": (FakeConnection(endless(1)),),
        "unread": (FakeConnection(endless(1)),),
    }[state]
    if state == "pausing":
        monkeypatch.setattr(link, "_FIRST_PAUSE_S", 1000.0)
        monkeypatch.setattr(link, "_LONGEST_PAUSE_S", 1000.0)
    monkeypatch.setattr(link, "_CLOSING_S", 0.01)
    line = Line(*connections, connects_in_caller=state != "unread", timeout_s=1000.0)
    source = line.open()
    if state == "unread":
        source.close()
        return
    taken = []
    done = threading.Event()

    def take():
        for frame in source:
            taken.append(frame)
            if state == "full":
                source.close()  # by the thread that iterates it
        done.set()

    thread = threading.Thread(target=take, name="taker")
    thread.start()
    while not taken:
        time.sleep(0.001)
    time.sleep(0.02)
    source.close()
    assert done.wait(LONG_S)
    thread.join(LONG_S)
    assert len(taken) == 1
    source.close()
    release.set()


def test_closing_releases_what_nobody_has_read():
    line = Line([1], connects_in_caller=True)
    line.open().close()
    assert line.connections[0].closed == 1
    with Line([1], connects_in_caller=True).open() as source:
        source.close()
        with pytest.raises(MediaError, match="fake was closed before its first frame came"):
            next(iter(source))


def test_many_losses_leave_nothing_behind():
    count = 200
    line = Line(*[[index % 256, BROKEN] for index in range(count)], connects_in_caller=True, tries=1)
    with line.open() as source:
        assert levels(source) == [index % 256 for index in range(count)]
        assert len(live_threads()) <= 1
    assert all(each.closed == 1 for each in line.connections)
