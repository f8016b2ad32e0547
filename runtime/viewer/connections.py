"""How many connections there may be, and how long each may take: nobody can keep those out who may look.

A connection is a stranger until one of its requests is let in. Strangers have places of their own, one answer each and
little time, and when all their places are taken the oldest goes: who has the token shows it at once, and then has a
place among those who may look.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from sfpp.runtime.limits import advice
from sfpp.runtime.viewer.access import OPEN_PATHS, SECURITY_HEADERS, Access
from sfpp.runtime.viewer.update import Limits

# A loop accepts so many connections at once before it reads from any, and reads a request some rounds later. Together
# they must be fewer than an address has places, or a crowd would push out who has just come.
_ACCEPTED_AT_ONCE = 8
_BACKLOG = 128  # connections that the system holds until they are accepted
_ROUNDS_TO_MAKE_ONE = 2
_LONGEST_SWEEP_S = 1.0
_LOG_EVERY_S = 60.0


class LimitsMet:
    """Counts how often each limit was met, and logs that: the first time, and then once a minute at most.

    Args:
        logger: gets a line.
        clock: seconds from any origin.

    Attributes:
        counts: by the limit's name.
    """

    def __init__(self, logger: logging.Logger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self._logger = logger
        self._clock = clock
        self._due_s: dict[str, float] = {}

    def add(self, name: str, what: str) -> None:
        """Count that a limit of this name was met; ``what`` happened."""
        self.counts[name] += 1
        now_s = self._clock()
        if now_s >= self._due_s.get(name, now_s):
            self._due_s[name] = now_s + _LOG_EVERY_S
            self._logger.warning("warning: the page: %s (%d so far); %s", what, self.counts[name], advice(name))


class Connections:
    """The open connections, in the event loop's thread.

    Args:
        access: knows who may look.
        limits: how many and how long.
        met: counts the connections that had to go.
    """

    def __init__(self, access: Access, limits: Limits, met: LimitsMet) -> None:
        self._access = access
        self._limits = limits
        self._met = met
        self._strangers: dict[_Connection, str] = {}  # the oldest first, with their addresses
        self._let_in: set[_Connection] = set()

    @contextlib.asynccontextmanager
    async def accepted(self, server: web.Server, listening: socket.socket, **options: Any) -> AsyncIterator[None]:
        """Accept connections within the block; ``options`` are those of aiohttp's request handler."""
        loop = asyncio.get_running_loop()
        accepting = await loop.create_server(
            lambda: _Connection(self, server, **options), sock=listening, backlog=_ACCEPTED_AT_ONCE
        )
        listening.listen(_BACKLOG)
        sweeping = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            # A server that is closed drops what it has just accepted, unclosed: first no more, then a round for those.
            with contextlib.suppress(NotImplementedError):  # of Windows' event loop
                loop.remove_reader(listening)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            accepting.close()

    async def end(self) -> None:
        """End all connections, those too that are accepted and not known yet."""
        for _ in range(_ROUNDS_TO_MAKE_ONE + 1):
            for each in (*self._strangers, *self._let_in):
                self._end(each)
            await asyncio.sleep(0)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give a place to who may look, or 503 if all of those are taken; stands behind ``Access.middleware``."""
        if request.path not in OPEN_PATHS or self._access.admits(request):
            self._give_place(cast(_Connection, request.protocol))
        return await handler(request)

    async def end_after_answer(self, request: web.Request, response: web.StreamResponse) -> None:
        """End a stranger's connection with its first answer; to be called when answers are prepared."""
        if request.protocol in self._strangers:
            response.force_close()
            response.headers["Connection"] = "close"

    def add(self, connection: _Connection, address: str) -> None:
        """Take a new connection in, in place of an older one if there are too many."""
        addresses = Counter(self._strangers.values())
        if addresses[address] >= self._limits.strangers_per_address:
            self._push_out(address, "STRANGERS_PER_ADDRESS")
        elif len(self._strangers) >= self._limits.strangers:
            # Who has come with many loses one of them, and not who has come alone.
            self._push_out(addresses.most_common(1)[0][0], "STRANGERS")
        self._strangers[connection] = address

    def discard(self, connection: _Connection) -> None:
        """Forget a connection that has ended."""
        self._strangers.pop(connection, None)
        self._let_in.discard(connection)

    def _give_place(self, connection: _Connection) -> None:
        if connection not in self._strangers:  # it has a place, or has ended meanwhile
            return
        if len(self._let_in) >= self._limits.connections:
            self._met.add("CONNECTIONS", "too many connections of those who may look, one more was refused")
            raise web.HTTPServiceUnavailable(text="503: too many clients\n", headers={"Retry-After": "5"})
        del self._strangers[connection]
        self._let_in.add(connection)

    def _push_out(self, address: str, name: str) -> None:
        oldest = next(each for each, its_address in self._strangers.items() if its_address == address)
        self._met.add(name, "too many connections without a request that is let in, the oldest was closed")
        self._end(oldest)

    def _end(self, connection: _Connection) -> None:
        self.discard(connection)
        connection.abort()

    async def _sweep(self) -> None:
        """End strangers whose time is over, and connections whose other end takes nothing of what it is sent."""
        stranger_s, stalled_s = self._limits.stranger_s, self._limits.stalled_s
        while True:
            await asyncio.sleep(min(_LONGEST_SWEEP_S, stranger_s / 4, stalled_s / 4))
            now_s = asyncio.get_running_loop().time()
            late = [each for each in self._strangers if now_s - each.since_s > stranger_s]
            for each in (*late, *(each for each in self._let_in if each.stalled_s(now_s) > stalled_s)):
                self._end(each)


class _Connection(web.RequestHandler):
    """A connection as aiohttp has it; it can be ended at once, and its errors are answered as all else is.

    Attributes:
        since_s: when it came, on the event loop's clock.
    """

    def __init__(self, connections: Connections, server: web.Server, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, **options)
        self.since_s = self._moved_s = loop.time()
        self._connections = connections
        self._wire: asyncio.Transport | None = None  # aiohttp lets go of its own before all is sent
        self._unsent = 0
        self._heard = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of it, in place of an older one if there are too many."""
        self._wire = cast(asyncio.Transport, transport)
        super().connection_made(transport)
        self._connections.add(self, address_key(transport.get_extra_info("peername")))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        self._connections.discard(self)
        self._wire = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take note that the other end lives, and read what it says."""
        self._heard = self._heard or bool(data)  # aiohttp calls it without any, too
        super().data_received(data)

    def stalled_s(self, now_s: float) -> float:
        """Return for how long the other end has taken nothing of what it is sent, nor said anything."""
        unsent = self._wire.get_write_buffer_size() if self._wire else 0
        if self._heard or not unsent or unsent < self._unsent:
            self._moved_s = now_s
        self._unsent, self._heard = unsent, False
        return now_s - self._moved_s

    def abort(self) -> None:
        """End it at once; what is not sent is dropped."""
        if self._wire is not None:
            self._wire.abort()

    def handle_error(self, request: web.BaseRequest, status: int = 500, *about: Any, **more: Any) -> web.StreamResponse:
        """Answer what is no HTTP, or what has failed, with no more than the status; why is logged."""
        response = cast(web.Response, super().handle_error(request, status, *about, **more))
        response.content_type = "text/plain"
        response.text = f"{status}: {HTTPStatus(status).phrase}\n"
        response.headers.update(SECURITY_HEADERS)
        response.headers["Cache-Control"] = "no-store"
        return response


def address_key(peer: Any) -> str:
    """Return what stands for who has connected: an IPv4 address, or the half of an IPv6 address that is a network's.

    Who has an IPv6 address has 2^64 of them.
    """
    try:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except (TypeError, IndexError, ValueError):
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)
