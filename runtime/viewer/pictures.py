"""Pictures for pages: drawn in a thread of the viewer's own, once for each view of a frame, however many look at it."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from sfpp.runtime.overlay import Palette
from sfpp.runtime.viewer.drawing import ViewSetting, draw_view, encode
from sfpp.runtime.viewer.messages import picture_message
from sfpp.runtime.viewer.update import ViewerUpdate


@dataclass(frozen=True, eq=False)
class Shown:
    """Which view of which frame a picture is. It does not keep the frame: slow pages would keep one each."""

    update: weakref.ref[ViewerUpdate]
    setting: ViewSetting

    def matches(self, update: ViewerUpdate, setting: ViewSetting) -> bool:
        """Whether it is this view of this frame."""
        return self.update() is update and self.setting == setting


@dataclass(frozen=True, eq=False)
class Picture:
    """A view of a frame, and the message that pages take."""

    shown: Shown
    message: bytes


class Pictures:
    """Draws and shares pictures. All methods belong to the event loop's thread.

    Args:
        executor: where they are drawn. One thread: looking at a pipeline must not take more than one of its cores.
        palette: an (R, G, B) color, 0..255, for each class.
        jpeg_quality: 1..100.
        logger: gets an error for pictures that cannot be drawn.
    """

    def __init__(self, executor: Executor, palette: Palette, *, jpeg_quality: int, logger: logging.Logger) -> None:
        self._executor = executor
        self._palette = palette
        self._jpeg_quality = jpeg_quality
        self._logger = logger
        self._newest: Mapping[str, ViewerUpdate] = {}
        self._drawn: dict[ViewSetting, _Drawn] = {}
        self._failed = False
        self.count = 0

    def advance(self, newest: Mapping[str, ViewerUpdate]) -> None:
        """From now on show these updates, by source.

        Pages ask at any time and get what was newest here: that is what bounds how often a view is drawn.
        """
        self._newest = newest
        # What is drawn of older frames is no longer wanted, or already awaited by the page that wanted it.
        for setting, drawn in list(self._drawn.items()):
            if drawn.update is not newest.get(setting.source):
                del self._drawn[setting]

    def forget(self) -> None:
        """Let go of all frames: no page is open any more."""
        self._newest = {}
        self._drawn.clear()

    def known_source(self, wanted: str) -> str:
        """Return the wanted source, or the first one if there is none of this name; nothing if there is none at all."""
        return wanted if wanted in self._newest else next(iter(self._newest), "")

    def newest(self, source: str) -> ViewerUpdate | None:
        """Return the update of a source that is shown now."""
        return self._newest.get(source)

    async def live(self, setting: ViewSetting) -> Picture | None:
        """Return the view of its source's newest frame; None if there is none, or if it cannot be drawn."""
        update = self._newest.get(setting.source)
        if update is None:
            return None
        # The task and not its result is kept, so that whoever asks while it is drawn waits for the same one.
        drawn = self._drawn.get(setting)
        if drawn is None:
            drawn = self._drawn[setting] = _Drawn(update, self._begin(update, setting))
        # Others wait for the same picture: one that leaves must not take it from them.
        return await asyncio.shield(drawn.picture)

    async def still(self, update: ViewerUpdate, setting: ViewSetting) -> Picture | None:
        """Return the view of one frame, for a page that has paused; None if it cannot be drawn."""
        return await self._begin(update, setting)

    def _begin(self, update: ViewerUpdate, setting: ViewSetting) -> asyncio.Future[Picture | None]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._executor, self._draw, update, setting)

    def _draw(self, update: ViewerUpdate, setting: ViewSetting) -> Picture | None:
        try:
            image = draw_view(update, setting, self._palette)
            jpeg = encode(image, "jpeg", quality=self._jpeg_quality)
        except Exception:  # noqa: BLE001 - `draw` is foreign code; a picture that fails must not end the viewer
            self._log_failure()
            return None
        self.count += 1  # the executor has one thread, so nothing else counts meanwhile
        return Picture(Shown(weakref.ref(update), setting), picture_message(update, setting, jpeg))

    def _log_failure(self) -> None:
        """Log the first failure alone: thirty tracebacks per second help no one."""
        if not self._failed:
            self._logger.exception("a picture cannot be drawn; further ones like it are not logged")
        self._failed = True


@dataclass(frozen=True, eq=False)
class _Drawn:
    update: ViewerUpdate
    picture: asyncio.Future[Picture | None]
