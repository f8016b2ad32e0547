"""Who may look: a token beyond this machine, and checks that keep foreign web pages out.

What every request passes before it is answered is :meth:`Access.middleware`; what is logged never has a token in it.
"""

from __future__ import annotations

import hmac
import html
import ipaddress
import logging
from urllib.parse import SplitResult, urlencode, urlsplit

from aiohttp import http_exceptions, web
from aiohttp.typedefs import Handler

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
    "Server": "sfpp",  # the versions of Python and of its libraries are not for strangers
}
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Answered without a token, since what asks whether a service lives rarely has one; it then says yes or no.
OPEN_PATHS = frozenset({"/healthz"})
_TRUSTED_SITES = ("none", "same-origin")  # typed by a person, or asked by our own page
_WELCOME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={address}">
<title>sfpp</title></head><body><p><a href="{address}">Continue</a></p></body></html>
"""


class Access:
    """Decides by a request's headers whether it is answered.

    Args:
        token: the token that a request must have; None admits every request that names this machine as its host.
        port: of the viewer. Browsers keep cookies by host, not by port, so the cookie's name has the port in it.
    """

    def __init__(self, token: str | None, *, port: int) -> None:
        self._token = token
        self._cookie = f"sfpp-viewer-{port}"

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let requests in.

        401 without a token that is demanded; 403 for what a page of another site wants to load; 421 for a host's name
        that is not this machine's own, where no token protects the viewer.
        """
        if not self.knows_host(request.headers.get("Host", "")):
            raise web.HTTPMisdirectedRequest(
                text="421: not served under this name; open it as 127.0.0.1 or localhost\n"
            )
        if _is_embedded_elsewhere(request):
            raise web.HTTPForbidden(text="403: not for pages of other sites\n")
        if request.path not in OPEN_PATHS and not self.admits(request):
            raise web.HTTPUnauthorized(text="401: Unauthorized\n", headers={"WWW-Authenticate": "Bearer"})
        if request.path == "/" and self._token is not None and self._is_token(request.query.get("token")):
            return _welcome(request, cookie=self._cookie)
        return await handler(request)

    def admits(self, request: web.Request) -> bool:
        """Whether a request has the token, if one is demanded: in its cookie, its ``Authorization``, or its address."""
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        return self._token is None or self._is_token(
            request.cookies.get(self._cookie),
            bearer.strip() if scheme.lower() == "bearer" else None,
            request.query.get("token"),
        )

    def knows_host(self, host: str) -> bool:
        """Whether a request's ``Host`` is one under which the viewer is served.

        A web page elsewhere can let its own name point to 127.0.0.1 and would then count as the same origin. It still
        sends that name. With a token the name does not matter: cookies belong to names, so that page has none.
        """
        parts = _split(f"//{host}")
        name = ((parts and parts.hostname) or "").rstrip(".")
        if self._token is not None or name == "localhost":
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def _is_token(self, *given: str | None) -> bool:
        """Whether one of the given texts is the token, found out in a time that tells nothing about it."""
        token = (self._token or "").encode()
        # An ordinary comparison ends at the first wrong letter, and so spells the token to who measures long enough.
        return any(hmac.compare_digest(text.encode("utf-8", "replace"), token) for text in given if text)


def is_own_page(request: web.Request) -> bool:
    """Whether a WebSocket is opened by the viewer's own page, or by a program that no foreign page steers.

    A browser always sends an origin. Whether it is that of the page's address, it may say itself, in a header that no
    page can set; else the host that the request names tells it. A proxy that names the viewer by another host says in
    ``X-Forwarded-Host`` which one the browser asked for, and no page can set that on a WebSocket either.
    """
    headers = request.headers
    if headers.get("Sec-Fetch-Site") == "same-origin":
        return True
    forwarded = headers.get("X-Forwarded-Host", "").partition(",")[0].strip()
    hosts = (headers.get("Host", ""), *filter(None, [forwarded]))
    return any(origin_fits(headers.get("Origin"), host) for host in hosts)


def origin_fits(origin: str | None, host: str) -> bool:
    """Whether there is no ``Origin``, or one of the same host and port as ``host``."""
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


def _host_and_port(parts: SplitResult | None) -> tuple[str | None, int | None]:
    return (None, None) if parts is None else (parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme))


async def add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Give every answer the headers that bind a browser; to be called when answers are prepared."""
    response.headers.update(SECURITY_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


def _is_embedded_elsewhere(request: web.Request) -> bool:
    """Whether a page of another origin loads this as a picture, a script or the like; following a link is fine."""
    site, mode = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Sec-Fetch-Mode", "navigate")
    return site not in _TRUSTED_SITES and mode != "navigate"


def _welcome(request: web.Request, *, cookie: str) -> web.Response:
    """Put the token into a cookie and send the browser to the same address without it.

    By a page that goes on by itself and not by a status 303: after a link from elsewhere, a chain of redirects still
    counts as coming from there, and a browser would keep the strict cookie back.
    """
    # Whatever else the address asked for, such as a width, is kept.
    rest = [(name, value) for name, value in request.query.items() if name != "token"]
    address = html.escape(f"./{'?' if rest else ''}{urlencode(rest)}")
    response = web.Response(text=_WELCOME.format(address=address), content_type="text/html")
    secure = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip() == "https"
    response.set_cookie(cookie, request.query["token"], httponly=True, samesite="Strict", secure=secure)
    # Without a path the browser takes the folder of its own address: behind a proxy that may have several viewers in
    # folders, each with a token, it is the viewer's.
    response.cookies[cookie]["path"] = ""
    return response


def viewer_logger(token: str | None) -> logging.Logger:
    """Return a logger below ``sfpp`` whose records do not have the token in them.

    It is not registered by its name: two viewers in a program have a token each.
    """
    logger = logging.Logger("sfpp.viewer", logging.WARNING)
    logger.parent = logging.getLogger("sfpp")
    logger.addFilter(_is_of_interest)
    if token is not None:
        logger.addFilter(Redacting(token))
    return logger


class Redacting(logging.Filter):
    """Takes the token out of whatever is logged: libraries quote what they were sent, in messages and tracebacks."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the token in the record, its traceback included."""
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        record.msg, record.args = self._redacted(record.getMessage()), ()
        record.exc_text = record.exc_text and self._redacted(record.exc_text)
        return True

    def _redacted(self, text: str) -> str:
        return text.replace(self._token, "[token]")


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Whether it is about more than a request that is no HTTP, or a browser that has gone before its answer."""
    others_doing = http_exceptions.HttpProcessingError, ConnectionError
    return not (record.exc_info and isinstance(record.exc_info[1], others_doing))
