"""Views of frames as JPEG: drawn in a thread of the viewer's own, once for each view, however many pages look at it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sfpp.runtime.overlay import Palette
from sfpp.runtime.viewer.drawing import ViewSetting, draw_view, encode
from sfpp.runtime.viewer.messages import image_message
from sfpp.runtime.viewer.update import Limits, ViewerUpdate


@dataclass(frozen=True)
class Drawn:
    """A view as a message to pages, and the frame that it shows."""

    update: ViewerUpdate
    message: bytes


class Renderer:
    """Draws and shares views. All methods belong to the event loop's thread.

    One view is drawn at a time, and of the frame that is newest when its turn comes: what waits holds no frame, and
    ends when the last page that wanted it has gone. What is drawn is kept for others, up to ``limits.kept_bytes``.

    Args:
        palette: an (R, G, B) color, 0..255, for each class.
        limits: quality of the pictures, and how many are kept.
        logger: gets an error for views that cannot be drawn.

    Attributes:
        count: how many views were drawn.
    """

    def __init__(self, palette: Palette, limits: Limits, *, logger: logging.Logger) -> None:
        self.count = 0
        # One thread: looking at a pipeline must not take more than one of its cores.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="sfpp-viewer-renderer")
        self._turn = asyncio.Lock()
        self._palette = palette
        self._limits = limits
        self._logger = logger
        self._newest: Mapping[str, ViewerUpdate] = {}
        self._waiting: dict[ViewSetting, _Waiting] = {}
        self._kept: dict[ViewSetting, Drawn] = {}  # of the newest frames, the oldest view first
        self._failed = False

    def advance(self, newest: Mapping[str, ViewerUpdate]) -> None:
        """From now on show these updates, by source.

        Pages ask at any time and get what was newest here: that is what bounds how often a view is drawn.
        """
        self._newest = newest
        self._kept = {
            setting: drawn for setting, drawn in self._kept.items() if drawn.update is newest.get(setting.source)
        }

    def known_source(self, wanted: str) -> str:
        """Return the wanted source, or the first one if there is none of this name; nothing if there is none at all."""
        return wanted if wanted in self._newest else next(iter(self._newest), "")

    def newest(self, source: str) -> ViewerUpdate | None:
        """Return the update of a source that is shown now."""
        return self._newest.get(source)

    async def live(self, setting: ViewSetting) -> Drawn | None:
        """Return a view of its source's newest frame; None if that cannot be drawn."""
        if setting in self._kept:
            return self._kept[setting]
        waiting = self._waiting.get(setting)
        if waiting is None:
            waiting = self._waiting[setting] = _Waiting(asyncio.create_task(self._draw_newest(setting)))
        waiting.pages += 1
        try:
            # Others wait for the same view: a page that leaves must not take it from them.
            return await asyncio.shield(waiting.task)
        finally:
            waiting.pages -= 1
            if not waiting.pages:
                waiting.task.cancel()
                if self._waiting.get(setting) is waiting:
                    del self._waiting[setting]

    async def still(self, update: ViewerUpdate, setting: ViewSetting) -> Drawn | None:
        """Return a view of one frame, for a page that has paused; None if it cannot be drawn."""
        async with self._turn:
            return await self._draw_apart(update, setting)

    def close(self) -> None:
        """Draw nothing more; a painter that is stuck is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _draw_newest(self, setting: ViewSetting) -> Drawn | None:
        async with self._turn:
            update = self._newest.get(setting.source)
            drawn = None if update is None else await self._draw_apart(update, setting)
        del self._waiting[setting]  # who comes from here on finds it kept, or wants one of a newer frame
        if drawn is not None and drawn.update is self._newest.get(setting.source):
            self._keep(setting, drawn)
        return drawn

    def _keep(self, setting: ViewSetting, drawn: Drawn) -> None:
        self._kept[setting] = drawn
        while sum(len(each.message) for each in self._kept.values()) > self._limits.kept_bytes:
            del self._kept[next(iter(self._kept))]

    async def _draw_apart(self, update: ViewerUpdate, setting: ViewSetting) -> Drawn | None:
        message = await asyncio.get_running_loop().run_in_executor(self._executor, self._draw, update, setting)
        return None if message is None else Drawn(update, message)

    def _draw(self, update: ViewerUpdate, setting: ViewSetting) -> bytes | None:
        try:
            image = draw_view(update, setting, self._palette)
            jpeg = encode(image, "jpeg", quality=self._limits.jpeg_quality)
        except Exception:
            if not self._failed:  # thirty tracebacks per second help no one
                self._logger.exception("a frame cannot be drawn; further ones like it are not logged")
            self._failed = True
            return None
        self.count += 1  # the executor has one thread, so nothing else counts meanwhile
        return image_message(update, setting, jpeg)


@dataclass
class _Waiting:
    """A view that is drawn, or will be, and how many pages wait for it."""

    task: asyncio.Task[Drawn | None]
    pages: int = 0
