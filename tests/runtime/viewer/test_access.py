import hmac
import logging
import re
import socket
from urllib.parse import urlsplit

import pytest

from sfpp.runtime import UsageError
from sfpp.runtime.viewer import access
from sfpp.runtime.viewer.access import Access, origin_fits
from tests.runtime.viewer.looking import Viewer, ask, model_shown, update

TOKEN = "a-token-of-the-test-0123456789"
PATHS = ["/", "/static/main.js", "/stream", "/snapshot", "/metrics", "/nothing"]


@pytest.fixture
def guarded(open_viewer):
    viewer = open_viewer(token=TOKEN)
    viewer.show(update())
    return viewer


def base(viewer):
    return viewer.url.partition("?")[0]


def test_loopback_needs_no_token(viewer):
    assert "token" not in viewer.url
    assert ask(viewer.url).status == 200


def test_another_address_demands_a_token_of_its_own(open_viewer):
    tokens = set()
    for _ in range(2):
        viewer = open_viewer(host="0.0.0.0")
        (token,) = re.fullmatch(r"http://[0-9.]+:\d+/\?token=([\w-]+)", viewer.url).groups()
        assert len(token) >= 43  # 32 random bytes
        local = f"http://127.0.0.1:{urlsplit(viewer.url).port}"
        assert ask(local).status == 401
        assert ask(local, f"/metrics?token={token}").status == 200
        tokens.add(token)
    assert len(tokens) == 2


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Cookie": "sfpp-viewer-1=x"},
    ],
    ids=["nothing", "wrong", "basic", "prefix", "cookie"],
)
def test_without_the_token_everything_is_401_and_says_nothing(guarded, path, headers):
    answer = ask(guarded.url, path, **headers)
    assert answer.status == 401
    assert answer.text == "401: Unauthorized\n"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%FF%FE"])
def test_a_wrong_token_in_the_address_is_refused(guarded, token):
    assert ask(guarded.url, f"/?token={token}").status == 401


def test_the_token_becomes_a_cookie_and_leaves_the_address(guarded):
    port = urlsplit(guarded.url).port
    answer = ask(guarded.url, f"/?width=640&token={TOKEN}")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"sfpp-viewer-{port}={TOKEN};")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert 'content="0; url=./?width=640"' in answer.text
    assert TOKEN not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert ask(guarded.url, "/", Cookie=cookie.partition(";")[0]).status == 200


def test_a_bearer_may_ask_without_a_cookie(guarded):
    answer = ask(guarded.url, "/metrics", Authorization=f"Bearer {TOKEN}")
    assert answer.status == 200
    assert "set-cookie" not in answer.headers


def test_the_address_cannot_put_markup_into_the_welcome(guarded):
    answer = ask(guarded.url, f"/?token={TOKEN}&x=%22%3E%3Cscript%3E")
    assert answer.status == 200
    assert "<script" not in answer.text


def test_tokens_are_compared_in_constant_time(guarded, monkeypatch):
    compared = []

    def recorded(left, right):
        compared.append((left, right))
        return hmac_compare(left, right)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", recorded)
    assert ask(guarded.url, "/metrics", Authorization="Bearer guess").status == 401
    assert compared == [(b"guess", TOKEN.encode())]


@pytest.mark.parametrize("token", ["short", "", "spaces are not possible", "x" * 300, "semicolon;0123456789"])
def test_a_bad_token_is_refused_and_not_repeated(token):
    with pytest.raises(UsageError, match="16 to 256") as refused:
        Viewer(model_shown(), token=token)
    assert not token or token not in str(refused.value)


def test_the_token_is_never_logged(guarded, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    ask(guarded.url, f"/?token={TOKEN}")
    ask(guarded.url, f"/nothing?token={TOKEN}")
    ask(guarded.url, "/stream", Authorization=f"Bearer {TOKEN}")
    with socket.create_connection(("127.0.0.1", urlsplit(guarded.url).port), timeout=10) as raw:
        raw.sendall(f"GET /?token={TOKEN}\x01 NONSENSE\r\n\r\n".encode())
        assert b"400" in raw.recv(1000)
    guarded.close()
    assert TOKEN not in caplog.text + "".join(capfd.readouterr())
    assert TOKEN not in repr(guarded) + str(guarded)


def test_the_log_redacts_messages_and_tracebacks(caplog):
    from sfpp.runtime.viewer.access import viewer_logger

    logger = viewer_logger(TOKEN)
    try:
        raise ValueError(f"in {TOKEN}")
    except ValueError:
        logger.exception("failed with %s", TOKEN)
    assert "failed with [token]" in caplog.text
    assert "ValueError: in [token]" in caplog.text
    assert TOKEN not in caplog.text


def test_every_answer_has_security_headers(guarded):
    for path in ["/", f"/?token={TOKEN}", f"/static/viewer.css?token={TOKEN}", "/healthz", f"/nothing?token={TOKEN}"]:
        headers = ask(guarded.url, path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["server"] == "sfpp"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "192.168.1.2", ""])
def test_a_foreign_name_for_loopback_is_refused(viewer, host):
    assert ask(viewer.url, "/", Host=host).status == 421
    assert ask(viewer.url, "/healthz", Host=host).status == 421


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1234", "127.0.0.1:9", "127.3.2.1", "[::1]:8080", "localhost."]
)
def test_this_machines_own_names_are_welcome(viewer, host):
    assert ask(viewer.url, "/", Host=host).status == 200


def test_with_a_token_the_name_does_not_matter(guarded):
    assert ask(guarded.url, "/metrics", Host="robot.local", Authorization=f"Bearer {TOKEN}").status == 200
    assert not Access(None, port=1).knows_host("robot.local")


@pytest.mark.parametrize(
    ("origin", "host", "fits"),
    [
        (None, "127.0.0.1:8080", True),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("http://LOCALHOST:8080", "localhost:8080", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("https://robot.local", "robot.local", True),
        ("https://robot.local", "robot.local:443", True),
        ("http://127.0.0.1:3000", "127.0.0.1:8080", False),
        ("http://127.0.0.1", "127.0.0.1:8080", False),
        ("http://evil.example", "127.0.0.1:8080", False),
        ("http://127.0.0.1:8080.evil.example", "127.0.0.1:8080", False),
        ("http://127.0.0.1:x", "127.0.0.1:x", False),
        ("null", "127.0.0.1:8080", False),
        ("", "", False),
        ("file://", "", False),
    ],
)
def test_only_the_same_host_and_port_is_the_same_origin(origin, host, fits):
    assert origin_fits(origin, host) is fits


def test_a_foreign_page_cannot_open_the_stream(viewer):
    handshake = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    assert ask(viewer.url, "/stream", Origin="http://evil.example", **handshake).status == 403
    assert ask(viewer.url, "/stream", Origin=viewer.url.rstrip("/"), **handshake).status == 101


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://cam.example.com", "X_Forwarded_Host": "cam.example.com"}, 101),
        ({"Origin": "https://cam.example.com", "X_Forwarded_Host": "cam.example.com, inner"}, 101),
        ({"Origin": "https://cam.example.com:444", "X_Forwarded_Host": "cam.example.com:444"}, 101),
        ({"Origin": "https://cam.example.com", "Sec_Fetch_Site": "same-origin"}, 101),
        ({"Origin": "https://cam.example.com"}, 403),
        ({"Origin": "https://cam.example.com", "X_Forwarded_Host": ""}, 403),
        ({"Origin": "https://evil.example", "X_Forwarded_Host": "cam.example.com"}, 403),
        ({"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"}, 403),
        ({"Origin": "https://evil.example", "Sec_Fetch_Site": "same-site"}, 403),
    ],
)
def test_behind_a_proxy_that_names_another_host_the_page_is_known(viewer, headers, status):
    handshake = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    answer = ask(viewer.url, "/stream", **headers, **handshake)
    assert answer.status == status
    if status == 403 and "Sec_Fetch_Site" not in headers:
        assert "a proxy must pass on Host, or say it in X-Forwarded-Host" in answer.text


def test_a_foreign_page_can_link_to_the_viewer_and_not_embed_it(viewer):
    viewer.show(update())
    foreign = {"Sec_Fetch_Site": "cross-site"}
    assert ask(viewer.url, "/snapshot", **foreign, Sec_Fetch_Mode="no-cors").status == 403
    assert ask(viewer.url, "/snapshot", Sec_Fetch_Site="same-site", Sec_Fetch_Mode="no-cors").status == 403
    assert ask(viewer.url, "/", **foreign, Sec_Fetch_Mode="navigate").status == 200
    assert ask(viewer.url, "/snapshot", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading_is_possible(viewer, method):
    assert ask(viewer.url, "/", method=method).status == 405


@pytest.mark.parametrize(
    "path", ["/static/../viewer.py", "/static/..%2fviewer.py", "/static/%2e%2e/viewer.py", "/static/"]
)
def test_only_the_pages_own_files_are_there(viewer, path):
    assert ask(viewer.url, path).status == 404


def test_oversized_requests_are_refused(viewer):
    assert ask(viewer.url, "/?" + "x" * 20_000).status == 400
    assert ask(viewer.url, "/", X_Long="x" * 20_000).status == 400
