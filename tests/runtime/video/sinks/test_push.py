import contextlib
import errno
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from sfpp.runtime import MediaError, UsageError
from sfpp.runtime.video.sinks import push
from sfpp.runtime.video.sinks.push import PushSink
from tests.runtime.video.clips import frame, picture, read_clip
from tests.runtime.video.sinks.receiving import Receiving, free_port, write_until

SOON = {"pause_s": lambda tries: 0.05}
SECRETS = ("geheim", "annika")


@pytest.fixture
def events():
    told = []
    yield told
    for event in told:
        assert not any(secret in event.source + event.detail for secret in SECRETS), event


def kinds(events):
    return [event.kind for event in events if event.kind != "lost" or "refused" not in event.detail]


@pytest.mark.parametrize(
    "uri", ["rtsp://annika:geheim@127.0.0.1:{}/live", "rtmp://127.0.0.1:{}/app/geheim", "udp://127.0.0.1:{}"]
)
def test_ffmpeg_receives_what_is_sent(uri, events):
    uri = uri.format(free_port(socket.SOCK_DGRAM if uri.startswith("udp") else socket.SOCK_STREAM))
    with Receiving(uri, most=45) as receiving, PushSink(uri, on_event=events.append, **SOON) as sink:
        write_until(sink, lambda: receiving.has(45), pause_s=0.02)
    first = receiving.indices[0]
    assert receiving.indices == [(first + step) % 60 for step in range(45)]
    known_s = [time_s for time_s in receiving.times_s if time_s is not None]
    np.testing.assert_allclose(np.diff(known_s), 1 / 30, atol=2e-3)
    keys = [time_s for time_s in receiving.key_times_s if time_s is not None]
    np.testing.assert_allclose(np.diff(keys), 1, atol=0.05)
    assert kinds(events)[0] == "opened"
    assert "64x48" in next(event.detail for event in events if event.kind == "opened")


def test_a_receiver_that_goes_and_comes_back(events):
    uri = f"rtmp://127.0.0.1:{free_port()}/app/geheim"
    with PushSink(uri, on_event=events.append, **SOON) as sink:
        with Receiving(uri, most=10) as receiving:
            count = write_until(sink, lambda: receiving.has(10))
        count += write_until(sink, lambda: "lost" in kinds(events), start=count)
        with Receiving(uri, most=10) as receiving:
            write_until(sink, lambda: receiving.has(10), start=count)
    # The second connection begins with a key frame and at time 0, like the first.
    assert receiving.key_times_s[0] == pytest.approx(0, abs=0.05)
    assert kinds(events)[:3] == ["opened", "lost", "back"]
    back = next(event for event in events if event.kind == "back")
    assert back.count > 0
    assert back.detail == f"connected again; {back.count} pictures were left out"


def test_nobody_there_is_told_once_and_tried_less_and_less_often(events):
    asked = []

    def pause_s(tries):
        asked.append(tries)
        return 0.01

    with PushSink(f"rtsp://annika:geheim@127.0.0.1:{free_port()}/x", pause_s=pause_s, on_event=events.append) as sink:
        write_until(sink, lambda: len(asked) >= 3)
    assert asked[:3] == [0, 1, 2]
    assert [event.line().partition(": ")[2] for event in events] == ["lost: connection refused; connecting again"]
    assert sink.frames_sent == 0


def test_a_silent_receiver_stops_nobody(events):
    """It accepts and says nothing, where PyAV in this process would stop all its threads for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"rtsp://annika:geheim@127.0.0.1:{server.getsockname()[1]}/x"
        with PushSink(uri, patience_s=1.5, on_event=events.append, **SOON) as sink:
            count = write_until(sink, lambda: bool(events))
    assert events[0].line().partition(": ")[2] == "lost: no answer in time; connecting again"
    assert count > 20


def test_a_receiver_that_takes_nothing_any_more_is_lost(events):
    """It answers as a server does, and then reads no more, so that all buffers on the way fill."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        enough = threading.Event()
        answering = threading.Thread(target=answer_and_stop_reading, args=(server, enough), daemon=True)
        answering.start()
        uri = f"rtsp://127.0.0.1:{server.getsockname()[1]}/x"
        with PushSink(uri, patience_s=1.5, on_event=events.append, **SOON) as sink:
            rng = np.random.default_rng(0)
            noise = [rng.integers(0, 255, (480, 640, 3), dtype=np.uint8) for _ in range(4)]
            index = 0
            while not after_the_opening(events):
                sink.write(frame(index, time_s=index / 30), noise[index % 4])
                index += 1
        enough.set()
        answering.join()
    lost = after_the_opening(events)[0]
    assert (lost.kind, lost.detail) == ("lost", "no answer in time; connecting again")


def after_the_opening(events):
    """Return the events after the first connection; a busy machine may need several tries for it."""
    opened = [event.kind in {"opened", "back"} for event in events]
    return events[opened.index(True) + 1 :] if any(opened) else []


def answer_and_stop_reading(server, enough):
    while not enough.is_set():
        connection, _ = server.accept()
        with connection, contextlib.suppress(ConnectionError):
            answer_until_recording(connection)
            enough.wait()


def answer_until_recording(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    text, request = b"", b""
    while not request.startswith(b"RECORD"):
        while b"\r\n\r\n" not in text:
            text += received(connection)
        request, _, text = text.partition(b"\r\n\r\n")
        words = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:])
        body = int(words.get(b"Content-Length", 0))
        while len(text) < body:
            text += received(connection)
        text = text[body:]
        answer = b"RTSP/1.0 200 OK\r\nCSeq: " + words[b"CSeq"] + b"\r\nSession: 1\r\n"
        if request.startswith(b"SETUP"):
            answer += b"Transport: " + words[b"Transport"] + b"\r\n"
        connection.sendall(answer + b"\r\n")


def received(connection):
    data = connection.recv(1000)
    if not data:
        raise ConnectionError("the sender hung up")
    return data


def test_a_protocol_that_ffmpeg_lacks_is_given_up(events):
    try:
        av.open("srt://")
    except av.FFmpegError as error:
        if not isinstance(error, av.error.ProtocolNotFoundError):
            pytest.skip("this FFmpeg has SRT")
    options = {"patience_s": 5.0, "on_event": events.append, **SOON}
    sink = PushSink("srt://127.0.0.1:9000?passphrase=geheim", **options)
    write_until(sink, lambda: bool(events))
    sink.write(frame(0), picture(0))
    sink.close()
    assert [event.line() for event in events] == ["srt://127.0.0.1:9000: gave-up: protocol not found"]
    with pytest.raises(MediaError, match="was built without SRT"):
        PushSink("srt://127.0.0.1:9000?passphrase=geheim").__enter__()


def test_pictures_of_another_size_are_fitted(events):
    uri = f"rtmp://127.0.0.1:{free_port()}/app/x"
    with Receiving(uri, most=20) as receiving, PushSink(uri, on_event=events.append, **SOON) as sink:
        count = write_until(sink, lambda: receiving.has(5))
        index = count
        while not receiving.has(20):
            sink.write(frame(index, time_s=index / 30), np.full((47, 31, 3), 180, np.uint8))
            index += 1
            time.sleep(0.01)
    assert {image.shape for image in receiving.images} == {(48, 64, 3)}
    assert "size-changed" in kinds(events)


def test_a_process_that_cannot_be_started_is_an_outage(events, monkeypatch):
    def refused(receiver, **options):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(push, "PusherProcess", refused)
    with PushSink("udp://127.0.0.1:9", on_event=events.append, **SOON) as sink:
        sink.write(frame(0), picture(0))
    assert events[0].detail == "the sending process cannot be started (Cannot allocate memory); connecting again"


def test_pauses_grow_until_a_connection_holds(events, monkeypatch):
    """A receiver that accepts and drops at once must not be asked every half second for ever."""
    now_s, tries, processes = [0.0], [], []

    class Process:
        final = False
        reason = "it hung up"

        def __init__(self, receiver, **options):
            self.state = "connected"
            processes.append(self)

        def send(self, time_s, planes):
            pass

        def close(self, *, patience_s):
            pass

    def pause_s(count):
        tries.append(count)
        return 1.0

    monkeypatch.setattr(push, "PusherProcess", Process)
    options = {"patience_s": 5.0, "on_event": events.append, "pause_s": pause_s}
    sink = PushSink("udp://127.0.0.1:9", clock=lambda: now_s[0], **options)
    for held_s in (0.5, 0.5, 9.5, 10.5, 0.5):
        sink.write(frame(0), picture(0))  # connects
        sink.write(frame(1), picture(1))  # is sent
        now_s[0] += held_s
        processes[-1].state = "failed"
        sink.write(frame(2), picture(2))  # is lost
        now_s[0] += 0.9
        sink.write(frame(3), picture(3))  # too early
        now_s[0] += 0.1
    assert tries == [0, 1, 2, 0, 1]
    assert (len(processes), sink.frames_sent) == (5, 5)
    assert [event.kind for event in events] == ["opened", *["lost", "back"] * 4, "lost"]
    assert {event.count for event in events if event.kind == "back"} == {3}


def test_the_address_is_in_no_list_of_processes(events):
    uri = f"rtsp://annika:geheim@127.0.0.1:{free_port()}/x"
    with PushSink(uri, on_event=events.append, **SOON) as sink:
        sink.write(frame(0), picture(0))
        command = sink._process._process.args
        assert not any(secret in part for part in command for secret in ("geheim", "127.0.0.1"))


def test_the_process_ends_with_the_sink():
    with PushSink(f"rtsp://127.0.0.1:{free_port()}/x", **SOON) as sink:
        sink.write(frame(0), picture(0))
        process = sink._process._process
    assert process.poll() is not None
    assert process.stdin.closed
    assert process.stdout.closed
    assert not [thread for thread in threading.enumerate() if thread.name == "sfpp-pusher"]


def test_what_cannot_work_is_told_before_any_frame():
    with pytest.raises(UsageError, match="not complete"):
        PushSink("rtsp://host").__enter__()


SERVER = Path(__file__).with_name("rtsp_server.py")


@pytest.fixture
def media_server(tmp_path):
    """A media server that wants a password and records what it is sent, from Debian's gir1.2-gst-rtsp-server-1.0."""
    system = shutil.which("python3", path=os.defpath)
    if system is None:
        pytest.skip("needs the system's Python for GStreamer's RTSP server")
    port, recorded = free_port(), tmp_path / "recorded.mp4"
    command = [system, str(SERVER), str(port), str(recorded)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            if server.stdout.readline() != b"ready\n":
                pytest.skip("needs python3-gi, gir1.2-gst-rtsp-server-1.0 and GStreamer's good and bad plugins")
            yield port, recorded
        finally:
            server.kill()


def test_a_media_server_with_a_password_records_it(media_server, events):
    port, recorded = media_server
    with PushSink(f"rtsp://annika:geheim@127.0.0.1:{port}/cam", on_event=events.append, **SOON) as sink:
        write_until(sink, lambda: sink.frames_sent >= 60, pause_s=0.02)
    assert kinds(events) == ["opened"]
    while not recorded.exists() or recorded.stat().st_size < 1000:
        time.sleep(0.05)
    assert len(read_clip(recorded)) >= 30


def test_a_wrong_password_is_told(media_server, events):
    port, _ = media_server
    with PushSink(f"rtsp://annika:falsch@127.0.0.1:{port}/cam", on_event=events.append, **SOON) as sink:
        write_until(sink, lambda: bool(events))
    assert events[0].detail.startswith("server returned 401 unauthorized")
