"""The web server from its start to its end, within an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor

from aiohttp import web

from sfpp.runtime.viewer.access import Access
from sfpp.runtime.viewer.connections import ConnectionLimits
from sfpp.runtime.viewer.limits import Limits
from sfpp.runtime.viewer.pictures import Pictures
from sfpp.runtime.viewer.routes import Routes
from sfpp.runtime.viewer.scene import Scene
from sfpp.runtime.viewer.session import Held, Service
from sfpp.runtime.viewer.sessions import Sessions, Ticker
from sfpp.runtime.viewer.store import Store
from sfpp.runtime.viewer.update import Control

_GOODBYE_S = 1.0


class Server:
    """Everything that belongs to one event loop; to be made within it.

    Args:
        scene: what every page shows.
        store: what the pipeline has shown.
        access: who is let in.
        limits: how much is done.
        on_control: told, in a thread of its own, what somebody asks of the pipeline.
        logger: told of what goes wrong.
    """

    def __init__(
        self,
        scene: Scene,
        store: Store,
        access: Access,
        *,
        limits: Limits,
        on_control: Callable[[Control], object] | None,
        logger: logging.Logger,
    ) -> None:
        self._limits = limits
        self._logger = logger
        self._on_control = on_control
        self._asked: Future[None] | None = None
        self._store = store
        # A snapshot of a 4K frame takes a second, and what the pipeline does about a control may take any time; live
        # pictures go on meanwhile.
        self._executors = {
            name: ThreadPoolExecutor(1, thread_name_prefix=f"sfpp-viewer-{name}")
            for name in ("pictures", "snapshots", "control")
        }
        self._pictures = Pictures(
            self._executors["pictures"], scene.palette, jpeg_quality=limits.jpeg_quality, logger=logger
        )
        self._sessions = Sessions(limits.clients, self._on_change)
        self.ticker = Ticker(asyncio.get_running_loop(), 1 / limits.frames_per_second, self._tick)
        service = Service(
            scene=scene,
            limits=limits,
            store=store,
            pictures=self._pictures,
            held=Held(limits.held),
            control=self._control,
            client_count=self._sessions.__len__,
        )
        self._routes = Routes(service, self._sessions, access, self._executors["snapshots"])

    async def run(self, listening: socket.socket, *, ready: Callable[[], None], stopping: asyncio.Event) -> None:
        """Serve until asked to stop; pages are then told that the viewer ends."""
        try:
            async with self._serving(listening):
                ready()
                await stopping.wait()
        finally:
            for executor in self._executors.values():
                # Without waiting: a painter or a pipeline that is stuck must not keep the program from ending.
                executor.shutdown(wait=False, cancel_futures=True)

    @contextlib.asynccontextmanager
    async def _serving(self, listening: socket.socket) -> AsyncIterator[None]:
        limits = ConnectionLimits(most=self._limits.connections, patience_s=self._limits.idle_s)
        application = self._routes.application()
        application.middlewares.insert(0, limits.middleware)
        runner = web.AppRunner(
            application,
            access_log=None,  # it would hold addresses with tokens in them
            logger=self._logger,
            keepalive_timeout=self._limits.idle_s,
            shutdown_timeout=_GOODBYE_S,
        )
        await runner.setup()
        assert runner.server is not None
        accepting = await asyncio.get_running_loop().create_server(limits.around(runner.server), sock=listening)
        try:
            yield
        finally:
            # First nobody new, then a word to those who look, then the end for whoever does not answer.
            accepting.close()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._sessions.close(), 2 * _GOODBYE_S)
            await runner.cleanup()

    def _tick(self) -> None:
        if len(self._sessions):
            self._pictures.advance(self._store.newest())
            self._sessions.wake()

    def _on_change(self, anybody: bool) -> None:
        self.ticker.watched = anybody
        if anybody:
            self._tick()  # who comes sees at once what there is, even of a pipeline that stands still
        else:
            self._pictures.forget()

    def _control(self, control: Control) -> None:
        # One at a time: who asks again before the pipeline has answered, or asks a thousand times, asks once.
        if self._on_control is not None and (self._asked is None or self._asked.done()):
            self._asked = self._executors["control"].submit(self._tell, self._on_control, control)

    def _tell(self, on_control: Callable[[Control], object], control: Control) -> None:
        try:
            on_control(control)
        except Exception:  # anybody's function; the viewer outlives it
            self._logger.exception("the pipeline failed to take %s from the viewer", control.action)
