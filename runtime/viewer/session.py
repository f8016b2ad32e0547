"""The pages that look: what each wants, what it was sent, how much it can take, and what all of them share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, WSMsgType, web

from sfpp.runtime.errors import UsageError
from sfpp.runtime.viewer.connections import LimitsMet
from sfpp.runtime.viewer.drawing import ViewSetting
from sfpp.runtime.viewer.messages import PageView, hello, message_from_page, status
from sfpp.runtime.viewer.renderer import Drawn, Renderer
from sfpp.runtime.viewer.store import SAMPLE_S, Store
from sfpp.runtime.viewer.update import Limits, ViewerUpdate

if TYPE_CHECKING:
    from sfpp.runtime.model import OpenedModel

GOODBYE_S = 1.0  # how long a page may take to close its connection
# A tab in the background needs no charts, only to know that the connection lives.
_HIDDEN_STATUS_S = 2.0


class Hub:
    """What the pages share. It is made in the event loop's thread, to which everything but :meth:`notify` belongs.

    Args:
        model: whose description, classes and self-test every page shows.
        store: what the pipeline has shown.
        limits: how much is done.
        on_stop: called, in a thread of its own, when a page asks the run to end.
        logger: gets what goes wrong.

    Attributes:
        sessions: the pages that look.
        can_stop: whether they may ask the run to end.
        held: the frames of pages that have paused, by the page's name, so that they can still change the view of them.
            The page that paused first loses its own when there are too many, and keeps the image that it has.
        renderer: draws what they see.
        met: counts what met a limit.
        snapshots: where snapshots are made: one of a 4K frame takes a second, and live images go on meanwhile.
    """

    def __init__(
        self,
        model: OpenedModel[Any],
        store: Store,
        *,
        limits: Limits,
        on_stop: Callable[[], object] | None,
        logger: logging.Logger,
    ) -> None:
        self.model = model
        self.store = store
        self.limits = limits
        self.sessions: set[Session] = set()
        self.held: OrderedDict[str, ViewerUpdate] = OrderedDict()
        self.renderer = Renderer(model.contract.palette, limits, logger=logger)
        self.met = LimitsMet(logger)
        self.snapshots = ThreadPoolExecutor(1, thread_name_prefix="sfpp-viewer-snapshots")
        # What the pipeline does about being stopped may take any time.
        self._stopping = ThreadPoolExecutor(1, thread_name_prefix="sfpp-viewer-stop")
        self._stop: Future[None] | None = None
        self.can_stop = on_stop is not None
        self._on_stop = on_stop
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._notified = False
        self._last_s = float("-inf")

    def notify(self) -> None:
        """Say that there is a newer frame, from any thread: pages get it soon, and at most so many a second.

        It never waits, and with no page open it costs next to nothing.
        """
        # No lock: should two threads come here at once, there are two ticks, which is as good as one.
        if self.sessions and not self._notified:
            self._notified = True
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._schedule)

    @contextlib.contextmanager
    def joined(self, session: Session) -> Iterator[None]:
        """Count a page within the block."""
        self.sessions.add(session)
        self._advance()  # who comes sees at once what there is, even of a pipeline that stands still
        try:
            yield
        finally:
            self.sessions.discard(session)
            self.hold(session.client, None)
            self._advance()

    def hold(self, client: str, update: ViewerUpdate | None) -> None:
        """Keep a frame for a page, or with None the one that it has no longer."""
        self.held.pop(client, None)
        if update is not None:
            self.held[client] = update
        while len(self.held) > self.limits.held:
            self.held.popitem(last=False)

    def stop(self) -> None:
        """Ask the run to end. One at a time: who asks a thousand times before it has answered, asks once."""
        if self._on_stop is not None and (self._stop is None or self._stop.done()):
            self._stop = self._stopping.submit(self._call, self._on_stop)

    async def close(self) -> None:
        """Tell all pages that the viewer ends."""
        await asyncio.gather(*(session.close() for session in self.sessions), return_exceptions=True)

    def end(self) -> None:
        """End the threads without waiting: a painter or a pipeline that is stuck must not keep the program."""
        self.renderer.close()
        for executor in (self.snapshots, self._stopping):
            executor.shutdown(wait=False, cancel_futures=True)

    def _schedule(self) -> None:
        self._loop.call_at(self._last_s + 1 / self.limits.frames_per_second, self._tick)

    def _tick(self) -> None:
        # First of all: a frame that is shown from here on asks for another tick, if this one does not have it.
        self._notified = False
        self._last_s = self._loop.time()
        self._advance()

    def _advance(self) -> None:
        """Show what is newest; with no page open, let go of all frames."""
        self.renderer.advance(self.store.newest() if self.sessions else {})
        for session in self.sessions:
            session.wake()

    def _call(self, on_stop: Callable[[], object]) -> None:
        try:
            on_stop()
        except Exception:  # foreign code; the viewer outlives it
            self._logger.exception("the pipeline failed to stop when the viewer asked it to")


class Session:
    """A page's connection, from its opening to its end.

    There is at most one image on its way: the next one is sent when the page says that it has shown the last. What
    comes meanwhile replaces what has not been sent, so a slow page sees fewer frames and never old ones.

    Args:
        socket: the page's; it is opened before :meth:`run`.
        hub: what all pages share.

    Attributes:
        client: a name that cannot be guessed; by it the page asks for a snapshot of the frame it has paused at.
    """

    def __init__(self, socket: web.WebSocketResponse, hub: Hub) -> None:
        self.client = secrets.token_urlsafe(12)
        self._socket = socket
        self._hub = hub
        self._view = PageView()
        self._under_way = False
        # What the page has: a view of a frame, which is not kept here, or slow pages would keep one each.
        self._last: tuple[weakref.ref[ViewerUpdate], ViewSetting] | None = None
        self._woken = asyncio.Event()
        self._picture_due_s = self._status_due_s = 0.0
        self._waits = False  # for the time at which it may have another view of the same frame
        self._source = ""
        self._next_sample = self._next_event = 0

    def wake(self) -> None:
        """Say that there is a newer frame."""
        self._woken.set()

    async def run(self) -> None:
        """Serve the page until it goes away, or says something that our page would not say."""
        sending = asyncio.create_task(self._send_all())
        try:
            async for message in self._socket:
                if message.type is not WSMsgType.TEXT:
                    break
                self._hear(message.data)
        except UsageError:
            # Not ours, or ours of another version; a reload brings the right one.
            await self._socket.close(code=WSCloseCode.POLICY_VIOLATION)
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending

    async def close(self) -> None:
        """Tell the page that the viewer ends."""
        await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the viewer has ended")

    def _hear(self, text: str) -> None:
        message = message_from_page(text, self._hub.limits)
        if isinstance(message, PageView):
            self._take(message)
        elif message == "shown":
            self._under_way = False
        else:
            self._hub.stop()
        self.wake()

    def _take(self, view: PageView) -> None:
        before, self._view = self._view, view
        other_source = view.setting.source != before.setting.source
        if view.playing:
            self._hub.hold(self.client, None)
        elif before.playing or other_source:
            # The newest frame and not the one on the screen, which is gone by now; the page gets an image of it.
            renderer = self._hub.renderer
            self._hub.hold(self.client, renderer.newest(renderer.known_source(view.setting.source)))
        if other_source or view.visible != before.visible:
            self._status_due_s = 0.0

    async def _send_all(self) -> None:
        """Send images and figures as they come and as fast as the page takes them."""
        hub = self._hub
        await self._socket.send_str(hello(hub.model, hub.limits, client=self.client, can_stop=hub.can_stop))
        while True:
            # Before anything is looked at: what changes from here on wakes it again.
            self._woken.clear()
            if hub.store.clock() >= self._status_due_s:
                await self._send_status()
            drawn = await self._next_picture()
            if drawn is not None:
                # Returns when the socket's buffer has room again, so what a page does not read is never more than this.
                await self._socket.send_bytes(drawn.message)
                del drawn
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), max(0.0, self._due_s() - hub.store.clock()))

    def _due_s(self) -> float:
        """Return when there is something to do although nothing has happened."""
        return min(self._status_due_s, self._picture_due_s) if self._waits else self._status_due_s

    async def _next_picture(self) -> Drawn | None:
        """Return what the page shall see next, if it can take it and does not have it."""
        self._waits = False
        if self._under_way or not self._view.visible:
            return None
        renderer, view = self._hub.renderer, self._view
        setting = replace(view.setting, source=renderer.known_source(view.setting.source))
        update = renderer.newest(setting.source) if view.playing else self._hub.held.get(self.client)
        if update is None or not self._wants(update, setting):
            return None
        drawn = await (renderer.live(setting) if view.playing else renderer.still(update, setting))
        if drawn is not None:
            self._last, self._under_way = (weakref.ref(drawn.update), setting), True
            self._picture_due_s = self._hub.store.clock() + 1 / self._hub.limits.frames_per_second
        return drawn

    def _wants(self, update: ViewerUpdate, setting: ViewSetting) -> bool:
        """Whether the page has another picture than this, and may have this one already.

        New frames come no faster than the limit says. Other views of the same frame do: a page may ask at any rate.
        """
        frame, last_setting = self._last if self._last else (None, None)
        if frame is None or frame() is not update:
            return True
        self._waits = setting != last_setting and self._hub.store.clock() < self._picture_due_s
        return setting != last_setting and not self._waits

    async def _send_status(self) -> None:
        hub, now_s = self._hub, self._hub.store.clock()
        self._status_due_s = now_s + (SAMPLE_S if self._view.visible else _HIDDEN_STATUS_S)
        source = hub.renderer.known_source(self._view.setting.source)
        if source != self._source:
            # Numbers of samples are each source's own, and its page has started anew too.
            self._source, self._next_sample = source, 0
        samples, events = hub.store.samples(source, self._next_sample), hub.store.events(self._next_event)
        self._next_sample = samples[-1].number + 1 if samples else self._next_sample
        self._next_event = events[-1][0] + 1 if events else self._next_event
        await self._socket.send_str(
            status(
                hub.model.contract.classes,
                now_s=now_s,
                clients=len(hub.sessions),
                fresh_s=hub.limits.fresh_s,
                sources=hub.store.sources(),
                source=source,
                samples=samples,
                events=events,
            )
        )
