import builtins
import contextlib
import gc
import itertools
import sys
import threading
import time
import weakref
from collections import Counter
from pathlib import Path

import av
import pytest

from sfpp.runtime import MediaError, MissingDependencyError, UsageError
from sfpp.runtime.video import open_source
from sfpp.runtime.video.sources import link, stream
from sfpp.runtime.video.sources.address import address_from
from sfpp.runtime.video.sources.stream import ffmpeg_options, url_without_our_options
from tests.runtime.video.clips import index_of, write_clip
from tests.runtime.video.sources.fakes import LONG_S, live_threads
from tests.runtime.video.sources.servers import Answer, FileServer, MjpegServer, SocketServer, jpeg, send_mpegts


@pytest.fixture(autouse=True)
def _quick_and_tidy(monkeypatch):
    monkeypatch.setattr(link, "_FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(link, "_LONGEST_PAUSE_S", 0.02)
    yield
    for thread in live_threads():
        thread.join(LONG_S)
    assert not live_threads()


def handles():
    return len(list(Path("/proc/self/fd").iterdir()))


on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="handles are counted in /proc")


@on_linux
def test_twenty_disconnects_and_nothing_is_left_behind():
    told = Counter()
    with MjpegServer(Answer(pictures=30)) as server:
        before = handles()
        with open_source(server.url(), on_event=lambda event: told.update([event.kind])) as source:
            assert (source.kind, source.live, source.frames_per_second) == ("stream", True, None)
            most, last = 0, None
            for frame in source:
                assert frame.index == (0 if last is None else last.index + 1)
                assert last is None or frame.time_s >= last.time_s
                last = frame
                if told["back"] < 10 or told["lost"] > told["back"]:
                    pass
                elif frame.index % 10 == 0:  # from now on in the middle of things
                    server.kill()
                    server.start()
                most = max(most, handles())
                assert len(live_threads()) <= 1
                if told["back"] == 20:
                    break
        assert told["lost"] == told["back"] == 20
        assert told["opened"] == 1
        assert set(told) == {"opened", "lost", "back"}
        server.kill()
        server.start()
        # The source's own socket, and the server's side of it and of a connection that it has not forgotten yet.
        assert most <= before + 4
        assert handles() <= before + 1
    assert source.warnings == []


def test_a_camera_that_claims_a_length_is_still_a_stream():
    with MjpegServer(Answer(pictures=20, length=99_999_999)) as server, open_source(server.url()) as source:
        assert (source.kind, source.live) == ("stream", True)
        assert next(frame for frame in source if frame.index == 30)  # from the second connection


def test_a_lost_connection_is_forgotten_without_the_garbage_collector(monkeypatch):
    made = []

    class Noted(stream._StreamConnection):
        def __init__(self, *arguments, **keywords):
            made.append(weakref.ref(self))
            super().__init__(*arguments, **keywords)

    monkeypatch.setattr(stream, "_StreamConnection", Noted)
    told = Counter()
    gc.disable()
    try:
        with (
            MjpegServer(Answer(pictures=10)) as server,
            open_source(server.url(), on_event=lambda event: told.update([event.kind])) as source,
        ):
            for _ in source:
                assert sum(each() is not None for each in made) <= 1
                if told["back"] == 3:
                    server.kill()  # and now the tries fail
                    server.start()
                if told["back"] == 5:
                    break
        assert len(made) >= 6
    finally:
        gc.enable()


def test_pictures_of_a_stream_are_what_was_sent():
    with MjpegServer() as server, open_source(server.url()) as source:
        indexes = [index_of(frame.image_bgr) for frame in itertools.islice(source, 30)]
    assert indexes == [(indexes[0] + step) % 60 for step in range(30)]


def test_a_camera_that_sends_no_first_boundary_is_played():
    with MjpegServer(Answer(head=False)) as server, open_source(server.url()) as source:
        assert (source.kind, source.live) == ("stream", True)
        indexes = [index_of(frame.image_bgr) for frame in itertools.islice(source, 20)]
    assert indexes == [(indexes[0] + step) % 60 for step in range(20)]


def test_bare_pictures_without_an_end_are_a_stream():
    def talk(accepted, stopping):
        accepted.recv(4096)
        accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mjpeg\r\n\r\n")
        for index in itertools.count():
            accepted.sendall(jpeg(index))
            if stopping.wait(0.005):
                return

    told = []
    with (
        SocketServer(talk) as server,
        open_source(f"http://127.0.0.1:{server.port}/x", on_event=told.append) as source,
    ):
        assert source.live
        assert [index_of(frame.image_bgr) for frame in itertools.islice(source, 5)] == list(range(5))
    assert [event.detail.endswith("/x, 64x48 mjpeg") for event in told] == [True]


def test_a_page_is_no_camera(tmp_path):
    (tmp_path / "page.html").write_text("<html>login</html>" * 1000)
    words = r"page\.html cannot be opened: invalid data .*; what answers there is no video that FFmpeg knows"
    with FileServer(tmp_path) as server, pytest.raises(MediaError, match=words):
        open_source(f"http://127.0.0.1:{server.port}/page.html")


def test_a_still_picture_is_asked_for_again_and_again(tmp_path):
    shown = itertools.count()

    def next_picture():
        (tmp_path / "snap.jpg").write_bytes(jpeg(next(shown)))

    next_picture()
    told = []
    with FileServer(tmp_path) as server:
        url = f"http://127.0.0.1:{server.port}/snap.jpg"
        with open_source(url, on_event=told.append) as source:
            assert len(list(source)) == 1
        assert told[0].detail.endswith("; a single picture: ?every=1 asks for it again each second")
        server.requested.clear()
        server.before_answering = next_picture
        begun_s = time.monotonic()
        with open_source(f"{url}?every=0.2&channel=1&timeout=0.1", on_event=told.append) as source:
            assert (source.kind, source.live) == ("stream", True)
            frames = list(itertools.islice(source, 5))
        assert time.monotonic() - begun_s >= 0.75
        indexes = [index_of(frame.image_bgr) for frame in frames]
        assert indexes == list(range(indexes[0], indexes[0] + 5))
        assert [frame.time_s for frame in frames] == sorted({frame.time_s for frame in frames})
    assert set(server.requested) == {"/snap.jpg?channel=1"}
    assert [event.kind for event in told] == ["opened", "opened"]
    assert told[1].detail.endswith(", 64x48 mjpeg, every 0.2 s")


def test_a_still_picture_that_is_gone_for_a_while_comes_back(tmp_path):
    path, told = tmp_path / "snap.jpg", []
    path.write_bytes(jpeg(1))
    with FileServer(tmp_path) as server:
        url = f"http://127.0.0.1:{server.port}/snap.jpg?every=0.01"
        with open_source(url, on_event=lambda event: told.append(event.kind)) as source:
            for frame in source:
                if frame.index == 2:
                    path.unlink()
                    threading.Timer(0.3, path.write_bytes, [jpeg(2)]).start()
                if frame.index >= 5:
                    break
    assert told == ["opened", "lost", "back"]


@pytest.mark.parametrize(
    ("uri", "error", "words"),
    [
        ("rtsp://127.0.0.1:9/x?every=1", UsageError, "every= asks for a still picture .*, by http:// or https:// only"),
        ("http://127.0.0.1:9/x?every=0", UsageError, "every is '0'; expected seconds above 0"),
        ("http://127.0.0.1:9/x", MediaError, r"nothing listens there; .* is on; \?wait=1 waits until it is there"),
        (
            "http://admin:p/ss@127.0.0.1:9/x",
            UsageError,
            "the password has a character that ends it too soon; write USER",
        ),
        (
            "rtsp://admin:p#ss@127.0.0.1:9/x",
            UsageError,
            "ends it too soon; .* %2F for /, %3F for .* %23 for # and %25 for",
        ),
        ("http://admin:p?ss@127.0.0.1:9/x", UsageError, "ends it too soon"),
        ("http://admin:1/2@127.0.0.1:9/x", MediaError, "if the password has special characters, write USER:PASSWORD@"),
        ("http://admin:p@127.0.0.1:9/ss@x", MediaError, "if the password has special characters, write USER:PASSWORD@"),
        ("http://admin:p%2Fss@127.0.0.1:9/x", MediaError, "connection refused"),
        ("http://[::1]:9/x", MediaError, "cannot be opened"),
    ],
)
def test_what_an_address_cannot_be_is_told(uri, error, words):
    with pytest.raises(error, match=words) as told:
        open_source(uri)
    assert "ss@" not in str(told.value)


@pytest.mark.parametrize("scheme", ["tcp", "http"])
def test_h264_whose_encoder_is_killed_and_restarted(scheme):
    head = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" if scheme == "http" else b""
    told = []
    with (
        SocketServer(lambda accepted, stopping: send_mpegts(accepted, stopping, head=head)) as server,
        open_source(f"{scheme}://127.0.0.1:{server.port}/street.ts", on_event=lambda e: told.append(e.kind)) as source,
    ):
        assert source.live
        frames = iter(source)
        for frame in frames:
            if frame.index % 15 == 14:
                server.kill()
                server.start()
            if told.count("back") == 3:
                break
        indexes = [index_of(frame.image_bgr) for frame in itertools.islice(frames, 5)]
    assert indexes == list(range(indexes[0], indexes[0] + 5))
    assert told == ["opened", *["lost", "back"] * 3]


def test_a_stream_that_falls_silent_is_tried_again_and_one_that_stays_so_is_given_up():
    told = []
    with MjpegServer(Answer(pictures=5, then="hang")) as server:
        uri = server.url(query="?timeout=0.6&reconnect=2")
        with open_source(uri, on_event=told.append) as source:
            for frame in source:
                if frame.index > 7:
                    server.answer.pictures = 0
        assert server.connections >= 4
    assert source.warnings[0].startswith(f"http-127-0-0-1-{server.port}-street delivers no more frames after ")
    assert "gave up after 2 tries: " in source.warnings[0]
    lost = [event.detail for event in told if event.kind == "lost"]
    assert lost[0] in (
        "no picture for 0.6 s; connecting again",
        "the connection broke off (nothing came for 0.6 s); connecting again",
    )


def test_another_size_in_the_middle_of_a_stream():
    told = []
    answer = Answer(sizes_hw=((48, 64), (96, 128)), change=50)
    with MjpegServer(answer) as server, open_source(server.url(), on_event=told.append) as source:
        shapes = {frame.image_bgr.shape for frame in itertools.islice(source, 120)}
    assert shapes == {(48, 64, 3), (96, 128, 3)}
    changes = [event.detail for event in told if event.kind == "size-changed"]
    assert changes[0] in ("from 64x48 to 128x96 (width x height)", "from 128x96 to 64x48 (width x height)")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.m3u8"])
def test_a_plain_file_behind_a_url_ends_at_its_end(tmp_path, name):
    options = {".mp4": {"movflags": "+faststart"}, ".m3u8": {"hls_time": "0.4", "hls_list_size": "0"}}
    write_clip(tmp_path / name, frames=30, **options.get(name[4:], {}))
    told = []
    with FileServer(tmp_path) as server:
        uri = f"http://127.0.0.1:{server.port}/{name}?channel=1"
        with open_source(uri, on_event=lambda event: told.append(event.kind)) as source:
            assert (source.kind, source.live, source.frames_per_second) == ("video", False, 25)
            assert source.count in (30, None)
            time.sleep(0.05)  # unlike a stream, it waits
            frames = list(source)
    assert [index_of(frame.image_bgr) for frame in frames] == list(range(30))
    assert [frame.time_s for frame in frames] == pytest.approx([index / 25 for index in range(30)], abs=2e-3)
    assert (told, source.warnings) == (["opened"], [])
    assert len([path for path in server.requested if path.startswith(f"/{name}")]) <= 2


def test_a_plain_file_that_breaks_off_is_not_begun_anew(tmp_path):
    data = write_clip(tmp_path / "clip.mp4", frames=60, movflags="+faststart").read_bytes()
    with FileServer(tmp_path) as server:
        server.cut = len(data) // 2
        with open_source(f"http://127.0.0.1:{server.port}/clip.mp4") as source:
            count = len(list(source))
    assert 10 < count < 50
    name = f"http-127-0-0-1-{server.port}-clip-mp4"
    assert source.warnings[0].startswith(f"{name} breaks off after {count} of 60 frames: the connection broke off (")
    assert source.warnings[0].endswith("; kept what came")


def test_a_playlist_without_an_end_is_live_and_goes_by_its_stamps(tmp_path):
    write_clip(tmp_path / "clip.m3u8", frames=30, hls_time="0.4", hls_list_size="0")
    playlist = (tmp_path / "clip.m3u8").read_text()
    (tmp_path / "live.m3u8").write_text(playlist.replace("#EXT-X-ENDLIST\n", ""))
    with FileServer(tmp_path) as server, open_source(f"http://127.0.0.1:{server.port}/live.m3u8") as source:
        assert (source.kind, source.live) == ("stream", True)
        frames = list(itertools.islice(source, 12))
    # All of it was there at once, and still it took as long as it lasts.
    assert frames[-1].time_s > 0.3


@pytest.mark.parametrize("state", ["connecting", "reading"])
def test_closing_ends_a_read_that_blocks_within_ffmpeg(state):
    answer = Answer(pictures=5, then="hang")
    with MjpegServer(answer) as server, SocketServer(lambda accepted, stopping: stopping.wait()) as silent:
        uri = (
            server.url(query="?timeout=1")
            if state == "reading"
            else f"http://127.0.0.1:{silent.port}/x?timeout=1&wait=1"
        )
        source = open_source(uri)
        taken, done = [], threading.Event()

        def take():
            with contextlib.suppress(MediaError):  # there was no first frame
                taken.extend(source)
            done.set()

        thread = threading.Thread(target=take)
        thread.start()
        assert not done.wait(0.2)
        source.close()
        assert done.wait(LONG_S)
        thread.join()
        # FFmpeg's own call ends when its time is over, and the thread with it.
        for left in live_threads():
            left.join(LONG_S)
        assert not live_threads()


def test_what_is_ours_is_taken_out_of_the_url_and_the_rest_stays():
    with (
        MjpegServer() as server,
        open_source(server.url(query="?timeout=3&channel=1&reconnect=1&token=a%20b&wait=0&transport=udp")) as source,
    ):
        next(iter(source))
    assert server.requested == ["/street?channel=1&token=a%20b"]
    uri = "rtsp://user:p%40ss@host/a?transport=udp&x=transport"
    assert url_without_our_options(address_from(uri)) == "rtsp://user:p%40ss@host/a?x=transport"
    assert url_without_our_options(address_from("rtsp://host/a?timeout=3")) == "rtsp://host/a"


def test_what_ffmpeg_is_told():
    told = ffmpeg_options("rtsp", transport="udp", timeout_s=2.5)
    assert (told["rtsp_transport"], told["timeout"], told["allowed_media_types"]) == ("udp", "2500000", "video")
    for scheme in ("http", "rtmp", "udp", "tcp"):
        told = ffmpeg_options(scheme, transport="tcp", timeout_s=5)
        assert told["rw_timeout"] == "5000000"
        assert "timeout" not in told  # with which rtmp:// waits to be called


def test_without_pyav(monkeypatch):
    imported = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "av":
            raise ModuleNotFoundError(name)
        return imported(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"reading rtsp://host/x needs PyAV.*sfpp\[video\]") as caught:
        open_source("rtsp://user:s3cr3t@host/x")
    assert "s3cr3t" not in str(caught.value)


def write_sound(container, seconds=1):
    stream = container.add_stream("pcm_s16le", rate=8000)
    for index in range(10 * seconds):
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.sample_rate, frame.pts = 8000, 800 * index
        frame.planes[0].update(bytes(1600))
        yield from stream.encode(frame)


def test_sound_beside_the_pictures_is_passed_over(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", frames=25)
    with av.open(str(clip)) as silent, av.open(str(tmp_path / "both.mkv"), mode="w") as container:
        pictures = container.add_stream_from_template(silent.streams.video[0])
        sound = list(write_sound(container))
        packets = [packet for packet in silent.demux(video=0) if packet.size]
        for packet in packets:
            packet.stream = pictures
        container.mux(sorted([*sound, *packets], key=lambda packet: packet.pts * packet.time_base))
    with FileServer(tmp_path) as server, open_source(f"http://127.0.0.1:{server.port}/both.mkv") as source:
        assert [index_of(frame.image_bgr) for frame in source] == list(range(25))


def test_sound_alone_is_no_source(tmp_path):
    with av.open(str(tmp_path / "sound.mkv"), mode="w") as container:
        container.mux(list(write_sound(container)))
    words = r"sound\.mkv holds no pictures, only audio"
    with FileServer(tmp_path) as server, pytest.raises(MediaError, match=words):
        open_source(f"http://127.0.0.1:{server.port}/sound.mkv")
