"""Views of frames as JPEG: drawn in a thread of the viewer's own, once for each view, however many pages look at it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from sfpp.runtime.overlay import Palette
from sfpp.runtime.viewer.drawing import ViewSetting, draw_view, encode
from sfpp.runtime.viewer.messages import image_message
from sfpp.runtime.viewer.update import ViewerUpdate


class Renderer:
    """Draws and shares views. All methods belong to the event loop's thread.

    Args:
        palette: an (R, G, B) color, 0..255, for each class.
        jpeg_quality: 1..100.
        logger: gets an error for views that cannot be drawn.

    Attributes:
        count: how many views were drawn.
    """

    def __init__(self, palette: Palette, *, jpeg_quality: int, logger: logging.Logger) -> None:
        self.count = 0
        # One thread: looking at a pipeline must not take more than one of its cores.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="sfpp-viewer-renderer")
        self._palette = palette
        self._jpeg_quality = jpeg_quality
        self._logger = logger
        self._newest: Mapping[str, ViewerUpdate] = {}
        self._drawn: dict[ViewSetting, tuple[ViewerUpdate, asyncio.Future[bytes | None]]] = {}
        self._failed = False

    def advance(self, newest: Mapping[str, ViewerUpdate]) -> None:
        """From now on show these updates, by source.

        Pages ask at any time and get what was newest here: that is what bounds how often a view is drawn.
        """
        self._newest = newest
        # What is drawn of older frames is no longer wanted, or already awaited by the page that wanted it.
        self._drawn = {
            setting: drawn for setting, drawn in self._drawn.items() if drawn[0] is newest.get(setting.source)
        }

    def known_source(self, wanted: str) -> str:
        """Return the wanted source, or the first one if there is none of this name; nothing if there is none at all."""
        return wanted if wanted in self._newest else next(iter(self._newest), "")

    def newest(self, source: str) -> ViewerUpdate | None:
        """Return the update of a source that is shown now."""
        return self._newest.get(source)

    async def live(self, setting: ViewSetting) -> bytes | None:
        """Return the message with a view of its source's newest frame; None if that cannot be drawn."""
        # The task and not its result is kept, so that whoever asks while it is drawn waits for the same one.
        if setting not in self._drawn:
            update = self._newest[setting.source]
            self._drawn[setting] = update, self._begin(update, setting)
        # Others wait for the same view: a page that leaves must not take it from them.
        return await asyncio.shield(self._drawn[setting][1])

    async def still(self, update: ViewerUpdate, setting: ViewSetting) -> bytes | None:
        """Return the message with a view of one frame, for a page that has paused; None if it cannot be drawn."""
        return await self._begin(update, setting)

    def close(self) -> None:
        """Draw nothing more; a painter that is stuck is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _begin(self, update: ViewerUpdate, setting: ViewSetting) -> asyncio.Future[bytes | None]:
        return asyncio.get_running_loop().run_in_executor(self._executor, self._draw, update, setting)

    def _draw(self, update: ViewerUpdate, setting: ViewSetting) -> bytes | None:
        try:
            image = draw_view(update, setting, self._palette)
            jpeg = encode(image, "jpeg", quality=self._jpeg_quality)
        except Exception:
            if not self._failed:  # thirty tracebacks per second help no one
                self._logger.exception("a frame cannot be drawn; further ones like it are not logged")
            self._failed = True
            return None
        self.count += 1  # the executor has one thread, so nothing else counts meanwhile
        return image_message(update, setting, jpeg)
