"""Where the viewer listens: addresses from a command line, a listening socket, and the address that people open."""

from __future__ import annotations

import argparse
import errno
import ipaddress
import re
import socket
from typing import Any

from sfpp.runtime.errors import UsageError

DEFAULT_HOST = "127.0.0.1"

_EXPECTED = "expected [HOST:]PORT such as 8080, 0.0.0.0:8080 or [::1]:8080"
_HIGHEST_PORT = 65535
# Reserved for documentation: no packet goes there, but the system says from which of its addresses one would.
_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def address_from(text: str) -> tuple[str, int]:
    """Argument type: ``[HOST:]PORT`` as host and port; without a host, loopback; IPv6 addresses in brackets.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    match = re.fullmatch(r"(?:(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:\[\]]*)):)?(?P<port>[0-9]{1,5})", text.strip())
    if match is None:
        brackets = "; an IPv6 address stands in brackets" if text.count(":") > 1 and "[" not in text else ""
        raise argparse.ArgumentTypeError(f"{text!r} given, {_EXPECTED}{brackets}")
    port = int(match["port"])
    if port > _HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"port {port} given, expected 0 (any that is free) to {_HIGHEST_PORT}")
    if match["six"] is not None:
        return _checked_ipv6(match["six"]), port
    if match["host"] == "":
        raise argparse.ArgumentTypeError(f"{text!r} names no host; for all addresses of this machine 0.0.0.0:{port}")
    return match["host"] or DEFAULT_HOST, port


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a host's address, for ``::`` on those of IPv4 as well; port 0 takes a free one.

    Raises:
        UsageError: the port is in use or may not be used, or the host is no address of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UsageError(
            f"the host {host!r} is not known ({error.strerror}); give an address of this machine"
        ) from error
    # `localhost` is both: what people type is more often the older one.
    family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(address, family=family, backlog=128, dualstack_ipv6=both)
    except OSError as error:
        raise _cannot_listen(error, host, port) from error


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine itself can connect."""
    return ipaddress.ip_address(_plain(listening.getsockname()[0])).is_loopback


def origin_of(listening: socket.socket) -> str:
    """Return scheme, host and port to open in a browser: where it listens everywhere, an address others can reach."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(_plain(host)).is_unspecified:
        host = _outward_address(listening.family) or _outward_address(socket.AF_INET) or DEFAULT_HOST
    return f"http://{f'[{_plain(host)}]' if ':' in host else host}:{port}"


def _checked_ipv6(text: str) -> str:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IPv6 address; {_EXPECTED}") from None
    return text


def _plain(address: str) -> str:
    """Leave out an IPv6 address's scope, the name of a network card, which means nothing elsewhere."""
    return address.partition("%")[0]


def _outward_address(family: Any) -> str:
    """Return this machine's address towards others, or nothing where there is no network."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((_ELSEWHERE[family], 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def _cannot_listen(error: OSError, host: str, port: int) -> UsageError:
    """Say what is wrong with the address, and what to give instead."""
    reasons = {
        errno.EADDRINUSE: f"port {port} of {host} is in use, perhaps by another viewer; give another port, "
        "or 0 for one that is free",
        errno.EADDRNOTAVAIL: f"{host} is no address of this machine; give one that is, 127.0.0.1 for this machine "
        "alone or 0.0.0.0 for the network",
        errno.EACCES: f"port {port} may not be used by this user; give one from 1024",
    }
    return UsageError(reasons.get(error.errno or 0, f"cannot listen on port {port} of {host}: {error.strerror}"))
