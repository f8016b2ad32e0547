"""Connections that would keep others out, and how each of them ends."""

import asyncio
import contextlib
import logging
import re
import socket
import threading
from urllib.parse import urlsplit

import pytest

from sfpp.runtime.viewer import Limits
from tests.runtime.viewer.looking import ask, clients_of, opened, shake_hands, update

TOKEN = "a-token-of-the-test-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PIPELINED = b"GET /nosuch HTTP/1.1\r\nHost: x\r\n\r\n" * 3000
HANDSHAKE = (
    b"GET /stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture
def guarded(open_viewer):
    """Opens viewers with a token and a frame."""

    def opening(**limits):
        viewer = open_viewer(token=TOKEN, limits=Limits(**limits))
        viewer.show(update())
        return viewer

    return opening


def address_of(viewer):
    return "127.0.0.1", urlsplit(viewer.url).port


def crowd(viewer, count, stack, *, says=b""):
    """Connections that say something, or nothing, and never read."""
    made = []
    for _ in range(count):
        raw = stack.enter_context(socket.socket())
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(20)
        raw.connect(address_of(viewer))
        raw.setblocking(False)
        with contextlib.suppress(OSError):
            raw.send(says)
        made.append(raw)
    return made


def is_closed(raw):
    """Whether the other end closes a connection, at last."""
    raw.settimeout(20)
    try:
        while raw.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def limits_met(viewer):
    text = ask(viewer.url, "/metrics", **BEARER).text
    lines = [line for line in text.splitlines() if line.startswith("sfpp_viewer_limits_met_total")]
    return {line.partition('"')[2].partition('"')[0]: int(line.split()[-1]) for line in lines}


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost:",
        PIPELINED,
        HANDSHAKE,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nx",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3000,
    ],
    ids=["silent", "half a request", "pipelined", "websocket", "slow body", "health"],
)
def test_a_crowd_without_the_token_keeps_nobody_out(guarded, says):
    viewer = guarded()

    async def look():
        for _ in range(3):
            assert ask(viewer.url, "/healthz").status == 200
            assert ask(viewer.url, "/", **BEARER).status == 200
            async with opened(viewer.url) as page:
                assert (await page.picture()).header["source"] == "front"

    with contextlib.ExitStack() as stack:
        crowd(viewer, 230, stack, says=says)
        asyncio.run(look())


def test_those_who_connect_without_end_push_out_nobody_with_the_token(guarded):
    viewer, stop = guarded(), threading.Event()

    def connect():
        while not stop.is_set():
            with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
                crowd(viewer, 100, stack)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        for _ in range(20):
            assert ask(viewer.url, "/metrics", **BEARER).status == 200
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "drips", [b"", b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"]
)
def test_a_stranger_has_little_time_however_it_spends_it(guarded, drips):
    viewer = guarded(stranger_s=1.0, idle_s=600)
    with socket.create_connection(address_of(viewer), timeout=20) as raw:
        raw.sendall(drips)
        raw.settimeout(0.1)
        for _ in range(200):
            try:
                if drips:
                    raw.sendall(b"x")
                if raw.recv(1000) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            raise AssertionError("still open")


@pytest.mark.parametrize("path", ["/", "/healthz", "/nosuch"])
def test_a_stranger_gets_one_answer(guarded, path):
    viewer = guarded()
    with socket.create_connection(address_of(viewer), timeout=20) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 2)
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in answer


def test_who_has_the_token_keeps_the_connection(guarded):
    viewer = guarded(stranger_s=0.5)
    with socket.create_connection(address_of(viewer), timeout=20) as raw:
        for _ in range(3):
            raw.sendall(f"HEAD /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
            assert raw.recv(4096).startswith(b"HTTP/1.1 200 ")
            threading.Event().wait(0.5)


def test_a_websocket_without_the_token_is_no_page(guarded):
    viewer = guarded()
    with contextlib.ExitStack() as stack:
        (raw,) = crowd(viewer, 1, stack, says=HANDSHAKE)
        raw.settimeout(20)
        assert raw.recv(4096).startswith(b"HTTP/1.1 401 ")
        assert is_closed(raw)


def test_the_oldest_stranger_goes_and_that_is_reported(guarded, caplog):
    viewer = guarded(strangers_per_address=3, stranger_s=600, idle_s=600)
    with contextlib.ExitStack() as stack:
        first, *others = crowd(viewer, 4, stack)
        assert is_closed(first)
        for raw in others:
            raw.settimeout(0.05)
            with pytest.raises(TimeoutError):
                raw.recv(1)
    assert limits_met(viewer)["strangers_per_address"] >= 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("warning: the page: too many connections without a request that is let in")
    assert line.endswith("set SFPP_MAX_STRANGERS_PER_ADDRESS to more if it is meant")


def test_of_many_addresses_the_one_with_most_connections_loses_one(guarded):
    viewer = guarded(strangers=4, stranger_s=600, idle_s=600)
    with contextlib.ExitStack() as stack:
        alone = stack.enter_context(socket.socket())
        alone.bind(("127.0.0.2", 0))
        alone.connect(address_of(viewer))
        first, *_ = crowd(viewer, 4, stack)
        assert is_closed(first)
        alone.settimeout(0.05)
        with pytest.raises(TimeoutError):
            alone.recv(1)


def test_places_of_those_who_may_look_are_bounded_too(guarded, caplog):
    viewer = guarded(connections=2)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            raw = stack.enter_context(socket.create_connection(address_of(viewer), timeout=20))
            raw.sendall(f"HEAD / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
            assert raw.recv(4096).startswith(b"HTTP/1.1 200 ")
        refused = ask(viewer.url, "/", **BEARER)
        assert (refused.status, refused.text) == (503, "503: too many clients\n")
        assert refused.headers["retry-after"] == "5"
        assert ask(viewer.url, "/healthz").status == 200
    assert "set SFPP_MAX_CONNECTIONS to more" in caplog.text
    while ask(viewer.url, "/", **BEARER).status != 200:
        pass


def test_an_answer_that_nobody_reads_is_given_up(guarded):
    """The token is known, the snapshot larger than what the sockets take in."""
    viewer = guarded(stalled_s=1.0, idle_s=600, connections=1)
    viewer.show(update(size_hw=(1080, 1920), labels=None, draw=noise))
    with contextlib.ExitStack() as stack:
        crowd(
            viewer,
            1,
            stack,
            says=f"GET /snapshot HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode(),
        )
        while ask(viewer.url, "/", **BEARER).status == 200:  # until its request has come
            pass
        while ask(viewer.url, "/", **BEARER).status != 200:  # for ever, if it were not
            pass


def test_a_page_that_reads_nothing_goes_before_its_heartbeat(open_viewer):
    """Its first picture is larger than what the sockets take in."""
    viewer = open_viewer(limits=Limits(stalled_s=1.0, heartbeat_s=600))
    viewer.show(update(size_hw=(16000, 1280), labels=None, draw=noise))
    with contextlib.closing(shake_hands(viewer.url)) as raw:
        assert raw.recv(12) == b"HTTP/1.1 101"
        while clients_of(viewer):
            pass


def noise(image):
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
        (None, ""),
    ],
)
def test_a_whole_ipv6_network_counts_as_one_address(peer, key):
    from sfpp.runtime.viewer.connections import address_key

    assert address_key(peer) == key


def test_a_limit_is_reported_once_a_minute(caplog):
    from sfpp.runtime.viewer.connections import LimitsMet

    now = [0.0]
    met = LimitsMet(logging.getLogger("sfpp"), clock=lambda: now[0])
    for now[0] in (0.0, 1.0, 59.0, 61.0):
        met.add("PAGES", "one more was refused")
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" (")[2].partition(")")[0] for line in lines] == ["1 so far", "4 so far"]
    assert met.counts == {"PAGES": 4}


@pytest.mark.parametrize(
    ("says", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\x00: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET /?" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 401),
        (b"GET / HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\n\r\n", 403),
        (b"GET /nosuch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n", 404),
        (b"POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\n\r\n", 417),
    ],
)
def test_errors_have_the_pages_headers_and_name_no_library(guarded, says, status):
    assert_discreet(answer_to(guarded(), says), status)


def test_refusals_have_them_too(open_viewer, monkeypatch):
    viewer = open_viewer(limits=Limits(connections=1))
    assert_discreet(answer_to(viewer, b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 421)
    assert_discreet(answer_to(viewer, b"GET /snapshot HTTP/1.1\r\nHost: localhost\r\n\r\n"), 503)
    monkeypatch.setattr("sfpp.runtime.viewer.routes.metrics_text", None)
    assert_discreet(answer_to(viewer, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"), 500)
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(socket.create_connection(address_of(viewer), timeout=20))
        raw.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert_discreet(answer_to(viewer, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), 503)


def answer_to(viewer, says):
    with socket.create_connection(address_of(viewer), timeout=20) as raw:
        raw.sendall(says)
        answer = b""
        while not is_whole(answer) and (more := raw.recv(65536)):
            answer += more
    return answer.decode()


def is_whole(answer):
    """Whether all is there that its own head announces; connections of who may look stay open."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return bool(end) and (length is None or len(body) >= int(length[1]))


def assert_discreet(answer, status):
    from sfpp.runtime.viewer.access import SECURITY_HEADERS

    lines = answer.splitlines()
    assert lines[0].partition(" ")[2].startswith(f"{status} "), answer
    for name, value in {**SECURITY_HEADERS, "Cache-Control": "no-store"}.items():
        assert lines.count(f"{name}: {value}") == 1, name
    assert not {"python", "aiohttp", "traceback"} & set(answer.lower().replace("/", " ").split())
    assert len(lines[-1]) < 100
