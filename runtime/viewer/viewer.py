"""The viewer as the pipeline has it: opened, handed frames without waiting, closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sfpp.runtime.errors import UsageError
from sfpp.runtime.events import Event
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.viewer.access import Access, viewer_logger
from sfpp.runtime.viewer.connections import Connections
from sfpp.runtime.viewer.listening import DEFAULT_HOST, is_loopback, listening_socket, origin_of
from sfpp.runtime.viewer.routes import Routes
from sfpp.runtime.viewer.session import GOODBYE_S, Hub
from sfpp.runtime.viewer.store import Store
from sfpp.runtime.viewer.token import new_token, token_given
from sfpp.runtime.viewer.update import Limits, ViewerUpdate

if TYPE_CHECKING:
    from sfpp.runtime.model import OpenedModel

DEFAULT_PORT = 8080
_PATIENCE_S = 6.0
_LINGERING_S = 2.0  # for the rest of a body that nobody asked for


class Viewer:
    """A page in the browser that shows a running pipeline; a context manager that opens and closes it.

    On a loopback address everybody on this machine may look. On any other one a token is demanded: ``url`` has it.

    Args:
        model: whose results are shown; pages have its description, its classes and their colors, and how its self-test
            came out.
        host: the address to listen on; 127.0.0.1 is for this machine alone, 0.0.0.0 and :: for the network.
        port: 0 takes one that is free.
        token: the token that a page must have, 16 characters or more; None takes the one in ``token_file``, else that
            of the variable ``SFPP_TOKEN``, and else makes one where one is demanded.
        token_file: a file with the token in it, which only its owner should be able to read.
        on_stop: called, in a thread of the viewer's, when a page asks the run to end; without it, pages cannot ask.
        limits: how much the viewer does.

    Raises:
        UsageError: a token that is too short, or a file that cannot be read.
        MissingDependencyError: OpenCV is not installed.
    """

    def __init__(
        self,
        model: OpenedModel[Any],
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        on_stop: Callable[[], object] | None = None,
        limits: Limits | None = None,
    ) -> None:
        import_cv2(purpose="the browser viewer")  # otherwise it would be missed only when a page is opened
        self._model = model
        self._host, self._port = host, port
        self._token = token_given(token, token_file)
        self._on_stop = on_stop
        self._limits = limits or Limits()
        self._store = Store()
        self._origin = ""
        self._running: _Server | None = None

    def start(self) -> None:
        """Listen and serve, in a thread of its own. A viewer is started once.

        Raises:
            UsageError: the port is in use, the host is no address of this machine, or the viewer was started before.
        """
        if self._origin:
            raise UsageError("the viewer was started before; make another one")
        listening = listening_socket(self._host, self._port)
        # By what is really listened on: a name can stand for any address.
        self._origin = origin_of(listening)
        if self._token is None and not is_loopback(listening):
            self._token = new_token()
        access, logger = Access(self._token, port=listening.getsockname()[1]), viewer_logger(self._token)
        self._running = _Server(
            lambda: Hub(self._model, self._store, limits=self._limits, on_stop=self._on_stop, logger=logger),
            access,
            listening,
            logger,
        )

    @property
    def url(self) -> str:
        """The address to open in a browser, with the token if one is demanded: show it to who may look, and log it not.

        Raises:
            UsageError: the viewer is not started.
        """
        if not self._origin:
            raise UsageError("the viewer has no address before it is started: use it in a with block, or call start()")
        return f"{self._origin}/" + ("" if self._token is None else f"?token={self._token}")

    def show(self, update: ViewerUpdate) -> None:
        """Take a finished frame in place of its source's last one; never waits, from whatever thread.

        Before the start it is kept, and after the end it is dropped; neither is an error.
        """
        self._store.put(update)
        running = self._running  # once: another thread may close the viewer just now
        if running is not None:
            running.notify()

    def event(self, event: Event) -> None:
        """Take an event; never waits either. It fits wherever the pipeline hands on events."""
        self._store.add_event(event)

    def close(self) -> None:
        """Tell all pages that the viewer ends, and end it; a second time nothing happens."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    def __enter__(self) -> Viewer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Server:
    """The thread with the event loop and the server in it.

    Args:
        make_hub: called within the event loop.
        access: who is let in.
        listening: the socket, which the server closes at its end.
        logger: gets what goes wrong.
    """

    def __init__(
        self, make_hub: Callable[[], Hub], access: Access, listening: socket.socket, logger: logging.Logger
    ) -> None:
        self._make_hub = make_hub
        self._access = access
        self._listening = listening
        self._logger = logger
        self._ready: Future[tuple[Hub, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        # A daemon: a program that forgets to close its viewer still ends.
        self._thread = threading.Thread(target=self._serve, name="sfpp-viewer", daemon=True)
        self._thread.start()
        hub, self._loop, self._stopping = self._ready.result()
        self.notify = hub.notify

    def stop(self) -> None:
        """End the server and wait for it, though not for ever."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_PATIENCE_S)

    def _serve(self) -> None:
        with self._listening:
            try:
                asyncio.run(self._run())
            except BaseException as error:
                if self._ready.done():
                    raise
                self._ready.set_exception(error)

    async def _run(self) -> None:
        """Serve until asked to stop; pages are then informed that the viewer ends."""
        hub, stopping = self._make_hub(), asyncio.Event()
        try:
            async with self._serving(hub):
                self._ready.set_result((hub, asyncio.get_running_loop(), stopping))
                await stopping.wait()
        finally:
            hub.end()

    @contextlib.asynccontextmanager
    async def _serving(self, hub: Hub) -> AsyncIterator[None]:
        connections = Connections(self._access, hub.limits, hub.met)
        application = Routes(hub, self._access, connections).application()
        runner = web.AppRunner(application, shutdown_timeout=GOODBYE_S)
        await runner.setup()
        assert runner.server is not None
        try:
            async with connections.accepted(
                runner.server,
                self._listening,
                access_log=None,  # it would hold addresses with tokens in them
                logger=self._logger,
                keepalive_timeout=hub.limits.idle_s,
                lingering_time=_LINGERING_S,
            ):
                yield
        finally:
            # No new pages come by now; a message to the open ones, then the end for those that do not answer.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(hub.close(), 2 * GOODBYE_S)
            await runner.cleanup()
            await connections.end()
