"""Whatever goes wrong with a URI that holds credentials, nobody reads them."""

import logging
import threading
import traceback

import pytest

from sfpp.runtime import SfppError
from sfpp.runtime.video import open_source
from sfpp.runtime.video.sources import link
from tests.runtime.video.sources.fakes import LONG_S, live_threads
from tests.runtime.video.sources.servers import Answer, MjpegServer, SocketServer

SECRET = "s3cr3t"
USER = f"u{SECRET}:p{SECRET}@"
QUERY = f"?token={SECRET}&password={SECRET}&timeout=0.5"


def answering(data):
    def talk(accepted, stopping):
        accepted.recv(4096)
        accepted.sendall(data)

    return talk


def reset(accepted, stopping):
    accepted.recv(4096)


def silent(accepted, stopping):
    stopping.wait()


def head(status, more=""):
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n".encode()


RTSP_UNAUTHORIZED = b'RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'
HTTP_UNAUTHORIZED = head("401 Unauthorized", 'WWW-Authenticate: Basic realm="x"\r\n')
TALKS = {
    "401": ("http", answering(HTTP_UNAUTHORIZED), "password is missing or wrong; write USER:PASSWORD@"),
    "403": ("http", answering(head("403 Forbidden")), "the server does not allow it"),
    "404": ("http", answering(head("404 Not Found")), "nothing at that path"),
    "418": ("http", answering(head("418 Teapot")), "cannot be opened"),
    "500": ("http", answering(head("500 Oh")), "the server failed"),
    "redirect": ("http", answering(head("302 Found", f"Location: rtsp://{USER}nowhere/\r\n")), "cannot be opened"),
    "empty": ("http", answering(head("200 OK")), "cannot be opened"),
    "garbage": ("http", answering(head("200 OK") + bytes(range(256)) * 50), "cannot be opened"),
    "no http": ("http", answering(bytes(range(256)) * 50), "cannot be opened"),
    "reset": ("http", reset, "cannot be opened"),
    "silent": ("http", silent, "nothing came for 0.5 s; check that the host can be reached"),
    "no tls": ("https", answering(b"hello\r\n" * 100), "cannot be opened"),
    "rtsp garbage": ("rtsp", answering(bytes(range(256)) * 50), "cannot be opened"),
    "rtsp 401": ("rtsp", answering(RTSP_UNAUTHORIZED * 5), "cannot be opened"),
    "rtsp 404": ("rtsp", answering(b"RTSP/1.0 404 Not Found\r\nCSeq: 1\r\n\r\n" * 5), "cannot be opened"),
    "rtsp silent": ("rtsp", silent, "nothing came for 0.5 s"),
    "rtmp silent": ("rtmp", silent, "nothing came for 0.5 s"),
    "tcp garbage": ("tcp", lambda accepted, stopping: accepted.sendall(bytes(range(256)) * 50), "cannot be opened"),
}


@pytest.fixture(autouse=True)
def watched(monkeypatch, caplog, capfd):
    """Collect the events; at the end look into all that could have been written anywhere."""
    monkeypatch.setattr(link, "_FIRST_PAUSE_S", 0.005)
    caplog.set_level(logging.DEBUG)
    events = []
    yield events
    for thread in live_threads():
        assert SECRET not in thread.name
        thread.join(LONG_S)
    written = capfd.readouterr()
    texts = [caplog.text, written.out, written.err, *(event.line() for event in events), *map(repr, events)]
    assert not [text for text in texts if SECRET in text]
    assert SECRET not in " ".join(thread.name for thread in threading.enumerate())


def check(error):
    """Neither the message nor anything that is printed with it, or hangs on it, holds a secret."""
    assert SECRET not in "".join(traceback.format_exception(error))
    while error is not None:
        assert SECRET not in f"{error!s} {error!r} {getattr(error, '__notes__', '')} {vars(error)}"
        error = error.__cause__ or error.__context__


def refused(uri, on_event, words):
    with pytest.raises(SfppError, match=words) as caught:
        take_all(uri, on_event)
    check(caught.value)


def take_all(uri, on_event):
    with open_source(uri, on_event=on_event) as source:
        assert SECRET not in source.name
        list(source)


@pytest.mark.parametrize("case", sorted(TALKS))
def test_servers_that_misbehave(watched, case):
    scheme, talk, words = TALKS[case]
    with SocketServer(talk) as server:
        refused(f"{scheme}://{USER}127.0.0.1:{server.port}/street{QUERY}", watched.append, words)


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "tcp", "srt", "udp"])
def test_nobody_is_there(watched, scheme):
    words = "built without srt" if scheme == "srt" else "cannot be opened"
    refused(f"{scheme}://{USER}127.0.0.1:1/street{QUERY}", watched.append, words)


@pytest.mark.parametrize(
    "uri",
    [
        f"rstp://{USER}127.0.0.1/x",
        f"rtsp:/{USER}127.0.0.1/x",
        f"{USER}127.0.0.1/x",
        f"http://{USER}127.0.0.1:99999/x",
        f"http://{USER}[::bad/x",
        f"http://u:p/{SECRET}@127.0.0.1:1/x",
        f"http://u:p?{SECRET}@127.0.0.1:1/x",
        f"http://{USER}127.0.0.1:1/\ud800",
        f"http://{USER}127.0.0.1:1/\0?token={SECRET}",
        f"rtsp://{USER}127.0.0.1:1/x?transport=x",
        f"gst://rtspsrc location=rtsp://{USER}127.0.0.1/x user-pw={SECRET}",
        f"raw://-?token={SECRET}",
        f"test://{USER}127.0.0.1",
        f"camera://{USER}127.0.0.1?width=5",
        f"csi://{USER}127.0.0.1",
    ],
)
def test_uris_that_are_wrong(watched, uri):
    refused(uri, watched.append, ".")


def test_a_stream_that_is_lost_for_good(watched):
    with MjpegServer(Answer(pictures=10)) as server:
        uri = server.url(user=USER, query=f"{QUERY}&reconnect=2")
        with open_source(uri, on_event=watched.append) as source:
            for frame in source:
                assert SECRET not in frame.name + frame.source
                if frame.index == 15:
                    server.kill()
    assert {event.kind for event in watched} == {"opened", "lost", "back", "gave-up"}
    assert "refused" in source.warnings[0]
    assert SECRET not in source.name + " ".join(source.warnings)


def test_waiting_for_a_server_that_wants_another_password(watched):
    with SocketServer(TALKS["401"][1]) as server:
        uri = f"http://{USER}127.0.0.1:{server.port}/street{QUERY}&wait=1&reconnect=2"
        refused(uri, watched.append, "gave up after 2 tries: .*password is missing or wrong")
    assert [event.kind for event in watched] == ["lost", "gave-up"]
