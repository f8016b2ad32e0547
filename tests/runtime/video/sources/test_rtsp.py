"""A real RTSP server: GStreamer's, where a Python with its bindings is installed."""

import itertools
import signal
import threading
from pathlib import Path

import pytest

from sfpp.runtime import MediaError
from sfpp.runtime.video import open_source
from sfpp.runtime.video.sources import link
from tests.runtime.video.sources.fakes import LONG_S, live_threads
from tests.runtime.video.sources.rtsp import CAMERA, RtspServer, missing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _installed():
    lacking = missing()
    if lacking:
        pytest.skip(lacking)


@pytest.fixture(autouse=True)
def _quick_and_tidy(monkeypatch):
    monkeypatch.setattr(link, "_LONGEST_PAUSE_S", 0.5)
    yield
    for thread in live_threads():
        thread.join(LONG_S)
    assert not live_threads()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_server_that_is_killed_and_restarted(transport):
    told, handles, last = [], [], None
    with RtspServer() as server:
        uri = server.url(query=f"?transport={transport}&timeout=2")
        with open_source(uri, on_event=lambda event: told.append(event.kind)) as source:
            assert source.size_hw == (192, 320)
            for frame in source:
                assert frame.index == (0 if last is None else last.index + 1)
                assert last is None or frame.time_s >= last.time_s
                last = frame
                if told.count("back") == 4:
                    break
                if told.count("lost") == told.count("back") and frame.index % 20 == 19:
                    handles.append(len(list(Path("/proc/self/fd").iterdir())))
                    server.kill()
                    server.start()
    assert told == ["opened", *["lost", "back"] * 4]
    assert len(set(handles)) == 1
    assert source.warnings == []


def test_a_server_that_freezes_and_thaws():
    told = []

    def notice(event):
        told.append(event)
        if event.kind == "lost":
            threading.Timer(2.5, server.process.send_signal, [signal.SIGCONT]).start()

    with RtspServer() as server, open_source(server.url(query="?timeout=1"), on_event=notice) as source:
        frames = iter(source)
        list(itertools.islice(frames, 10))
        server.process.send_signal(signal.SIGSTOP)
        while told[-1].kind != "back":
            next(frames)
    assert [event.kind for event in told] == ["opened", "lost", "back"]
    assert told[1].detail.startswith(("no picture for 1 s", "the connection broke off (nothing came for 1 s)"))
    assert int(told[2].detail.rpartition(" ")[2]) >= 2  # it was tried in vain


def test_b_frames_come_in_their_order():
    """The ball of the test picture moves evenly; frames that were swapped would make it jump back."""
    encoder = "x264enc speed-preset=ultrafast bframes=2 key-int-max=25"
    with RtspServer(f"{CAMERA} ! {encoder}") as server, open_source(server.url()) as source:
        images = [frame.image_bgr.astype(int).mean(axis=2) for frame in itertools.islice(source, 40)]
    columns = [(image > 128).mean(axis=0) for image in images]
    places = [float((column * range(len(column))).sum() / column.sum()) for column in columns]
    steps = [later - earlier for earlier, later in itertools.pairwise(places)]
    turns = sum(step * other < 0 for step, other in itertools.pairwise(steps))
    assert turns <= 2


def test_name_and_password():
    with RtspServer(credentials="viewer:a/b@c") as server:
        with open_source(server.url(user="viewer:a%2Fb%40c@")) as source:
            assert next(iter(source)).image_bgr.shape == (192, 320, 3)
        for user in ("", "viewer:wrong@"):
            with pytest.raises(MediaError, match="the user name or the password is missing or wrong") as caught:
                open_source(server.url(user=user))
            assert "wrong@" not in str(caught.value)


def test_a_path_that_is_not_there():
    with RtspServer() as server, pytest.raises(MediaError, match="the server has nothing at that path"):
        open_source(server.url() + "-of-another-town")
