"""One page that looks: what it wants, what it was sent, and how much it can take."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from aiohttp import WSCloseCode, WSMsgType, web

from sfpp.runtime.errors import UsageError
from sfpp.runtime.viewer.drawing import ViewSetting
from sfpp.runtime.viewer.messages import PageView, Status, hello, message_from_page
from sfpp.runtime.viewer.pictures import Picture, Pictures, Shown
from sfpp.runtime.viewer.store import SAMPLE_S, Store
from sfpp.runtime.viewer.update import Control, Limits, Scene, ViewerUpdate

GOODBYE_S = 1.0  # how long a page may take to close its connection
# A tab in the background needs no charts, only to know that the connection lives.
_HIDDEN_STATUS_S = 2.0


class Held:
    """The frames of pages that have paused, so that they can still change the view of them; only so many.

    Args:
        most: how many; the page that paused first loses its own, and keeps the picture that it has.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._frames: OrderedDict[str, ViewerUpdate] = OrderedDict()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._frames)

    def hold(self, client: str, update: ViewerUpdate | None) -> None:
        """Keep a frame for a page, or with None the one that it has no longer."""
        self._frames.pop(client, None)
        if update is not None:
            self._frames[client] = update
        while len(self._frames) > self._most:
            self._frames.popitem(last=False)

    def of(self, client: str) -> ViewerUpdate | None:
        """Return a page's frame."""
        return self._frames.get(client)


@dataclass(frozen=True, eq=False)
class Service:
    """What all sessions share."""

    scene: Scene
    limits: Limits
    store: Store
    pictures: Pictures
    held: Held
    control: Callable[[Control], None]
    client_count: Callable[[], int]


class Session:
    """A page's connection, from its opening to its end.

    There is at most one picture on its way: the next one is sent when the page says that it has shown the last. What
    comes meanwhile replaces what has not been sent, so a slow page sees fewer pictures and never old ones.

    Args:
        socket: the page's, already open.
        service: what all sessions share.

    Attributes:
        client: a name that cannot be guessed; by it the page asks for a snapshot of the frame it has paused at.
    """

    def __init__(self, socket: web.WebSocketResponse, service: Service) -> None:
        self.client = secrets.token_urlsafe(12)
        self._socket = socket
        self._service = service
        self._view = PageView()
        self._under_way = False
        self._last: Shown | None = None
        self._woken = asyncio.Event()
        self._status_due_s = 0.0
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
            self._service.held.hold(self.client, None)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending

    async def close(self) -> None:
        """Tell the page that the viewer ends."""
        await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the viewer has ended")

    def _hear(self, text: str) -> None:
        message = message_from_page(text, self._service.limits)
        if isinstance(message, Control):
            self._service.control(message)
        elif isinstance(message, PageView):
            self._take(message)
        else:
            self._under_way = False
        self.wake()

    def _take(self, view: PageView) -> None:
        before, self._view = self._view, view
        other_source = view.setting.source != before.setting.source
        if view.playing:
            self._service.held.hold(self.client, None)
        elif before.playing or other_source:
            # The newest frame and not the one on the screen, which is gone by now; the page gets a picture of it.
            pictures = self._service.pictures
            self._service.held.hold(self.client, pictures.newest(pictures.known_source(view.setting.source)))
        if other_source or view.visible != before.visible:
            self._status_due_s = 0.0

    async def _send_all(self) -> None:
        """Send pictures and figures as they come and as fast as the page takes them."""
        service = self._service
        await self._socket.send_str(hello(service.scene, service.limits, client=self.client))
        while True:
            # Before anything is looked at: what changes from here on wakes it again.
            self._woken.clear()
            if service.store.clock() >= self._status_due_s:
                await self._send_status()
            picture = await self._next_picture()
            if picture is not None:
                self._last, self._under_way = picture.shown, True
                # Returns when the socket's buffer has room again, so what a page does not read is never more than this.
                await self._socket.send_bytes(picture.message)
            await self._wait()

    async def _wait(self) -> None:
        """Wait for news, at most until the next status is due."""
        timeout = max(0.0, self._status_due_s - self._service.store.clock())
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._woken.wait(), timeout)

    async def _next_picture(self) -> Picture | None:
        """Return what the page shall see next, if it can take it and does not have it."""
        if self._under_way or not self._view.visible:
            return None
        update, setting = self._looked_at()
        if update is None or (self._last is not None and self._last.matches(update, setting)):
            return None
        pictures = self._service.pictures
        return await (pictures.live(setting) if self._view.playing else pictures.still(update, setting))

    def _looked_at(self) -> tuple[ViewerUpdate | None, ViewSetting]:
        """Return the frame that the page wants to see, and how."""
        pictures, view = self._service.pictures, self._view
        source = pictures.known_source(view.setting.source)
        update = pictures.newest(source) if view.playing else self._service.held.of(self.client)
        return update, replace(view.setting, source=source)

    async def _send_status(self) -> None:
        service, now_s = self._service, self._service.store.clock()
        self._status_due_s = now_s + (SAMPLE_S if self._view.visible else _HIDDEN_STATUS_S)
        source = service.pictures.known_source(self._view.setting.source)
        if source != self._source:
            # Numbers of samples are each source's own, and its page has started anew too.
            self._source, self._next_sample = source, 0
        status = Status(
            now_s=now_s,
            clients=service.client_count(),
            fresh_s=service.limits.fresh_s,
            sources=service.store.sources(),
            source=source,
            samples=service.store.samples(source, self._next_sample),
            events=service.store.events(self._next_event),
        )
        self._next_sample = status.samples[-1].number + 1 if status.samples else self._next_sample
        self._next_event = status.events[-1].number + 1 if status.events else self._next_event
        await self._socket.send_str(status.message(service.scene))


class Sessions:
    """The pages that look. All methods belong to the event loop's thread.

    Args:
        most: how many there may be.
        on_change: called with whether any page is open, whenever one comes or goes.
    """

    def __init__(self, most: int, on_change: Callable[[bool], None]) -> None:
        self._most = most
        self._on_change = on_change
        self._all: set[Session] = set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._all)

    @property
    def full(self) -> bool:
        """Whether there is no room for another one."""
        return len(self._all) >= self._most

    @contextlib.contextmanager
    def joined(self, session: Session) -> Iterator[None]:
        """Count a page within the block."""
        self._all.add(session)
        self._on_change(True)
        try:
            yield
        finally:
            self._all.discard(session)
            self._on_change(bool(self._all))

    def wake(self) -> None:
        """Tell all of newer frames."""
        for session in self._all:
            session.wake()

    async def close(self) -> None:
        """Tell all that the viewer ends."""
        await asyncio.gather(*(session.close() for session in self._all), return_exceptions=True)


class Ticker:
    """Calls ``tick`` in the event loop after it was notified, at most so often; notifying it never waits.

    Args:
        loop: the event loop.
        period_s: the least time between two ticks.
        tick: what to do.

    Attributes:
        watched: whether to do it at all; with no page open, a notification costs next to nothing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, period_s: float, tick: Callable[[], None]) -> None:
        self.watched = False
        self._loop = loop
        self._period_s = period_s
        self._tick = tick
        self._notified = False
        self._last_s = float("-inf")

    def notify(self) -> None:
        """Ask for a tick, from any thread."""
        # No lock: should two threads come here at once, there are two ticks, which is as good as one.
        if self.watched and not self._notified:
            self._notified = True
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._schedule)

    def _schedule(self) -> None:
        self._loop.call_at(self._last_s + self._period_s, self._run)

    def _run(self) -> None:
        # First of all: a frame that is shown from here on asks for another tick, if this one does not have it.
        self._notified = False
        self._last_s = self._loop.time()
        self._tick()
