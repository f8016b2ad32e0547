"""What every request passes before it is answered: the host that it names, where it comes from, and its token."""

from __future__ import annotations

import html
from urllib.parse import urlencode

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sfpp.runtime.viewer.access import SECURITY_HEADERS, Access

# Answered without a token, since what asks whether a service lives rarely has one; it then says yes or no.
OPEN_PATHS = frozenset({"/healthz"})

_TRUSTED_SITES = ("none", "same-origin")  # typed by a person, or asked by our own page
_WELCOME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={address}">
<title>sfpp</title></head><body><p><a href="{address}">Go on</a></p></body></html>
"""


def gate(access: Access) -> Middleware:
    """Return the middleware that lets requests in.

    401 without a token that is demanded; 403 for what a page of another site wants to load; 421 for a host's name that
    is not this machine's own, where no token protects the viewer.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not access.knows_host(request.headers.get("Host", "")):
            raise web.HTTPMisdirectedRequest(
                text="421: not served under this name; open it as 127.0.0.1 or localhost\n"
            )
        if _is_embedded_elsewhere(request):
            raise web.HTTPForbidden(text="403: not for pages of other sites\n")
        if request.path not in OPEN_PATHS and not is_admitted(request, access):
            raise web.HTTPUnauthorized(text="401: Unauthorized\n", headers={"WWW-Authenticate": "Bearer"})
        if request.path == "/" and access.demands_token and access.admits(request.query.get("token")):
            return _welcome(request, access)
        return await handler(request)

    return guard


def is_admitted(request: web.Request, access: Access) -> bool:
    """Whether a request has the token, if one is demanded: in its cookie, its ``Authorization``, or its address."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    return access.admits(
        request.cookies.get(access.cookie),
        bearer.strip() if scheme.lower() == "bearer" else None,
        request.query.get("token"),
    )


async def add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Give every answer the headers that bind a browser; to be told when answers are prepared."""
    response.headers.update(SECURITY_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


def _is_embedded_elsewhere(request: web.Request) -> bool:
    """Whether a page of another origin loads this as a picture, a script or the like; following a link is well."""
    site, mode = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Sec-Fetch-Mode", "navigate")
    return site not in _TRUSTED_SITES and mode != "navigate"


def _welcome(request: web.Request, access: Access) -> web.Response:
    """Put the token into a cookie and send the browser to the same address without it.

    By a page that goes on by itself and not by a status 303: after a link from elsewhere, a chain of redirects still
    counts as coming from there, and a browser would keep the strict cookie back.
    """
    # Whatever else the address asked for, such as a width, is kept.
    rest = [(name, value) for name, value in request.query.items() if name != "token"]
    address = html.escape(f"./{'?' if rest else ''}{urlencode(rest)}")
    response = web.Response(text=_WELCOME.format(address=address), content_type="text/html")
    token = request.query["token"]
    response.set_cookie(access.cookie, token, httponly=True, samesite="Strict", path="/")
    return response
