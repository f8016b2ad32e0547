import argparse
import socket

import pytest

from sfpp.runtime import UsageError
from sfpp.runtime.viewer import address_from
from sfpp.runtime.viewer.listening import is_loopback, listening_socket, origin_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", ("127.0.0.1", 8080)),
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0:8080", ("0.0.0.0", 8080)),
        ("localhost:80", ("localhost", 80)),
        ("robot-7.local:65535", ("robot-7.local", 65535)),
        ("[::1]:8080", ("::1", 8080)),
        ("[::]:0", ("::", 0)),
        (" 8080 ", ("127.0.0.1", 8080)),
    ],
)
def test_address_from_splits_host_and_port(text, expected):
    assert address_from(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected"),
        ("http://localhost:80", "expected"),
        ("localhost", "expected"),
        ("65536", "65535"),
        ("-1", "expected"),
        ("80a", "expected"),
        ("::1:8080", "brackets"),
        ("[::1]", "expected"),
        ("[1.2.3.4]:80", "no IPv6 address"),
        ("[]:80", "no IPv6 address"),
        (":8080", "0.0.0.0:8080"),
    ],
)
def test_address_from_says_what_is_expected(text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        address_from(text)


def test_address_from_is_an_argument_type(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--view", type=address_from)
    assert parser.parse_args(["--view", "[::1]:9"]).view == ("::1", 9)
    with pytest.raises(SystemExit):
        parser.parse_args(["--view", ":9"])
    assert "0.0.0.0:9" in capsys.readouterr().err


def test_a_port_in_use_is_named_with_what_to_do():
    with listening_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is in use.*0 for one that is free"):
            listening_socket("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(UsageError, match=r"192\.0\.2\.1 is no address of this machine"):
        listening_socket("192.0.2.1", 0)


def test_an_unknown_host_is_refused(monkeypatch):
    def unknown(*arguments, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UsageError, match=r"'nowhere\.invalid' is not known"):
        listening_socket("nowhere.invalid", 0)


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)])
def test_loopback_is_told_from_what_is_really_listened_on(host, expected):
    with listening_socket(host, 0) as listening:
        assert is_loopback(listening) is expected
        origin = origin_of(listening)
        assert origin.endswith(f":{listening.getsockname()[1]}")
        assert "0.0.0.0" not in origin


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6_stands_in_brackets_and_everywhere_means_ipv4_too():
    try:
        listening = listening_socket("::1", 0)
    except UsageError:
        pytest.skip("this machine has no IPv6 address")
    with listening:
        assert is_loopback(listening)
        assert origin_of(listening) == f"http://[::1]:{listening.getsockname()[1]}"
    with listening_socket("::", 0) as everywhere:
        assert not is_loopback(everywhere)
        with socket.create_connection(("127.0.0.1", everywhere.getsockname()[1]), timeout=5):
            pass
