"""Who may look: a token beyond this machine, and checks that keep foreign web pages out of a viewer on it."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from urllib.parse import SplitResult, urlsplit

from sfpp.runtime.errors import UsageError

# Nothing comes from elsewhere, nothing in the page is run or styled that is not one of its own files.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",  # else a foreign page could show our pictures as its own
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Server": "sfpp",  # the versions of Python and of its libraries are nobody's business
}

# What needs no quoting, in an address or in a cookie.
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,256}")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(32)


def checked_token(token: str) -> str:
    """Return the token if it is fit for an address and a cookie, and long enough.

    Raises:
        UsageError: it is not; the message does not show it.
    """
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            f"the token has {len(token)} characters; expected 16 to 256 letters, digits or . _ ~ -: "
            "leave it out, and a good one is made"
        )
    return token


class Access:
    """Decides by a request's headers whether it is answered.

    Args:
        token: what whoever asks must know; None lets everybody in who asks for this machine by a name of its own.
        port: of the viewer. Browsers keep cookies by host, not by port, so the cookie's name has the port in it.
    """

    def __init__(self, token: str | None, *, port: int) -> None:
        self._token = token
        self.cookie = f"sfpp-viewer-{port}"

    @property
    def demands_token(self) -> bool:
        """Whether a token is needed."""
        return self._token is not None

    def admits(self, *given: str | None) -> bool:
        """Whether one of the given texts is the token, found out in a time that tells nothing about it."""
        if self._token is None:
            return True
        token = self._token.encode()
        # An ordinary comparison ends at the first wrong letter, and so spells the token to who measures long enough.
        return any(hmac.compare_digest(text.encode("utf-8", "replace"), token) for text in given if text)

    def knows_host(self, host: str) -> bool:
        """Whether a request's ``Host`` is one under which the viewer is served.

        A web page elsewhere can let its own name point to 127.0.0.1 and would then count as the same origin. It still
        sends that name. With a token the name does not matter: cookies belong to names, so that page has none.
        """
        name = _hostname(host)
        if self._token is not None or name == "localhost":
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def origin_fits(origin: str | None, host: str) -> bool:
    """Whether a WebSocket is opened by the viewer's own page: the ``Origin`` is of the same host and port as ``Host``.

    A browser always sends an origin; a program that sends none is not steered by a foreign page.
    """
    if origin is None:
        return True
    parts = _split(origin)
    if parts is None or parts.scheme not in _DEFAULT_PORTS:
        return False
    return _host_and_port(parts) == _host_and_port(_split(f"{parts.scheme}://{host}"))


def _split(address: str) -> SplitResult | None:
    try:
        parts = urlsplit(address)
        _ = parts.port  # only now is a port that is no number found out
    except ValueError:
        return None
    return parts


def _hostname(host: str) -> str:
    parts = _split(f"//{host}")
    return ((parts and parts.hostname) or "").rstrip(".")


def _host_and_port(parts: SplitResult | None) -> tuple[str | None, int | None]:
    return (None, None) if parts is None else (parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme))
