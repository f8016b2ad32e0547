"""What is drawn, kept and waited for, by pages that ask for more than anybody can look at."""

import asyncio
import contextlib
import gc
import logging
import threading
import time
import weakref

import pytest

from sfpp.runtime.viewer import Limits
from sfpp.runtime.viewer.drawing import ViewSetting
from sfpp.runtime.viewer.renderer import Renderer
from tests.runtime.viewer.looking import PALETTE, Shown, opened, update


@contextlib.asynccontextmanager
async def drawing(**limits):
    renderer = Renderer(PALETTE, Limits(**limits), logger=logging.getLogger("sfpp"))
    try:
        yield renderer
    finally:
        renderer.close()


class HeldUp:
    """A picture that is being drawn until it is released."""

    def __init__(self):
        self.release, self._begun = threading.Event(), threading.Event()

    def _draw(self, image):
        self._begun.set()
        self.release.wait(20)
        return image.copy()

    async def begin(self, renderer):
        """Return the task of a page that waits for it, once it is being drawn."""
        renderer.advance({"front": update(labels=None, draw=self._draw)})
        waiting = asyncio.create_task(renderer.live(ViewSetting("front")))
        while not self._begun.is_set():
            await asyncio.sleep(0.001)
        return waiting


def settings(count):
    return [ViewSetting("front", opacity=number % 101, hidden=frozenset({number})) for number in range(count)]


def test_ever_new_views_of_one_frame_are_not_all_kept():
    async def look():
        async with drawing(kept_bytes=20_000) as renderer:
            renderer.advance({"front": update(size_hw=(90, 320))})
            sizes = [len((await renderer.live(setting)).message) for setting in settings(100)]
            kept = [len(each.message) for each in renderer._kept.values()]
            assert 1 < len(kept) < 50
            assert sum(kept) <= 20_000 < sum(sizes)
            assert not renderer._waiting
            # The newest are those that stay.
            before = renderer.count
            await renderer.live(settings(100)[-1])
            assert renderer.count == before
            await renderer.live(settings(100)[0])
            assert renderer.count == before + 1

    asyncio.run(look())


def test_a_view_larger_than_all_that_is_kept_is_shown_all_the_same():
    async def look():
        async with drawing(kept_bytes=1) as renderer:
            renderer.advance({"front": update()})
            assert (await renderer.live(ViewSetting("front"))).message
            assert not renderer._kept

    asyncio.run(look())


def test_what_waits_holds_no_frame_and_shows_the_newest():
    """While a picture is drawn, a hundred frames pass that another page waits for."""
    held, alive = HeldUp(), weakref.WeakSet()

    async def look():
        async with drawing() as renderer:
            slow = await held.begin(renderer)
            others = [asyncio.create_task(renderer.live(setting)) for setting in settings(20)]
            for index in range(100):
                alive.add(frame := update(index))
                renderer.advance({"front": frame})
                del frame
                await asyncio.sleep(0)
            gc.collect()
            assert len(alive) == 1
            held.release.set()
            assert {each.update.index for each in await asyncio.gather(*others)} == {99}
            assert (await slow).update.index == 0
            assert set(renderer._kept) == set(settings(20))

    asyncio.run(look())


def test_what_pages_that_have_gone_waited_for_is_not_drawn():
    held = HeldUp()

    async def look():
        async with drawing() as renderer:
            first = await held.begin(renderer)
            gone = [asyncio.create_task(renderer.live(setting)) for setting in settings(50)]
            both = [asyncio.create_task(renderer.live(settings(60)[-1])) for _ in range(2)]
            await asyncio.sleep(0)
            for task in (*gone, both[0]):
                task.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
            held.release.set()
            assert await first
            assert await both[1]  # another page waited for the same view
            assert renderer.count == 2
            assert not renderer._waiting

    asyncio.run(look())


def test_a_source_that_has_gone_meanwhile_has_no_view():
    async def look():
        async with drawing() as renderer:
            renderer.advance({"front": update()})
            waiting = asyncio.create_task(renderer.live(ViewSetting("front")))
            renderer.advance({})
            assert await waiting is None
            assert not renderer._kept

    asyncio.run(look())


@pytest.mark.parametrize("playing", [True, False])
def test_a_page_that_changes_its_view_all_the_time_gets_no_more_pictures_than_others(open_viewer, playing):
    """The source stands still; the page asks for another view with every message, and gets the last one in the end."""
    viewer = open_viewer(limits=Limits(frames_per_second=2.0))

    async def look():
        viewer.show(update(size_hw=(90, 320)))
        async with opened(viewer.url) as page:
            await page.picture()
            start_s, pictures, statuses, width = time.monotonic(), 0, 0, 200
            while statuses < 4:  # they come four times a second
                width += 1
                await page.send(type="view", width=width, playing=playing)
                if isinstance(await page.next(), Shown):
                    pictures += 1
                    await page.send(type="shown")
                else:
                    statuses += 1
            assert pictures <= 2 + 2 * (time.monotonic() - start_s)
            await page.until(lambda picture: picture.image.shape[1] == width, most=5)

    asyncio.run(look())
