"""How many connections a server takes, and how long one may be open without asking for anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 22\r\nRetry-After: 5\r\nConnection: close\r\n\r\n"
    b"503: too many clients\n"
)


class ConnectionLimits:
    """Refuses connections beyond a number, and closes those that do not come to a request, in the event loop's thread.

    Args:
        most: connections that may be open at once; one more is told so and closed, before anything of it is read.
        patience_s: how long a new connection may take for its first request. After that aiohttp itself closes idle
            ones; before it, not all of its versions do.
    """

    def __init__(self, *, most: int, patience_s: float) -> None:
        self._most = most
        self._patience_s = patience_s
        self._begun: set[asyncio.Protocol] = set()
        self._silent: set[asyncio.Protocol] = set()

    def around(self, server: web.Server) -> Callable[[], asyncio.Protocol]:
        """Return what makes the protocol of each new connection: the server's own, or one that refuses."""
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            if len(self._begun.union(server.connections)) >= self._most:
                return _Refusing()
            # The loop accepts a whole crowd before it makes the first of its connections, which the server knows then:
            # in the loop's next round. Until the round after that this one is known here.
            made = server()
            self._begun.add(made)
            loop.call_soon(loop.call_soon, self._begun.discard, made)
            self._silent.add(made)
            loop.call_later(self._patience_s, self._close_if_silent, made)
            return made

        return protocol

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Take note of who asks for something."""
        self._silent.discard(request.protocol)
        return await handler(request)

    def _close_if_silent(self, made: web.RequestHandler) -> None:
        if made in self._silent:
            self._silent.remove(made)
            if made.transport is not None:
                made.transport.abort()


class _Refusing(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writing = cast(asyncio.Transport, transport)
        writing.write(_FULL)
        writing.close()
