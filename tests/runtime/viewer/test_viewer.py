import asyncio
import contextlib
import gc
import re
import subprocess
import sys
import threading
import weakref
from urllib.parse import urlsplit

import pytest

from sfpp.runtime import UsageError
from sfpp.runtime.viewer import Limits
from tests.runtime.viewer.looking import Viewer, ask, clients_of, model_shown, opened, shake_hands, update


def viewer_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sfpp-viewer")]


def test_a_viewer_opens_shows_and_closes():
    with Viewer(model_shown(), port=0) as viewer:
        viewer.show(update())
        assert ask(viewer.url, "/snapshot").status == 200
        assert "sfpp-viewer" in viewer_threads()
    viewer.close()
    viewer.show(update(1))
    with pytest.raises(ConnectionError):
        ask(viewer.url)
    assert "sfpp-viewer" not in viewer_threads()


def test_frames_may_come_before_the_start():
    viewer = Viewer(model_shown(), port=0)
    viewer.show(update())
    with pytest.raises(UsageError, match="before it is started"):
        _ = viewer.url
    with viewer:
        assert ask(viewer.url, "/healthz").status == 200
    with pytest.raises(UsageError, match="started before"):
        viewer.start()


def test_a_port_in_use_is_refused(viewer):
    port = urlsplit(viewer.url).port
    with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is in use"):
        Viewer(model_shown(), port=port).start()
    assert ask(viewer.url).status == 200


def test_a_page_is_whole_and_needs_nothing_from_elsewhere(viewer):
    index = ask(viewer.url)
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bstyle=|\bon\w+=", index.text), "the policy forbids what is inline"
    wanted = set(re.findall(r'(?:src|href)="(?!#)([^"]+)"', index.text))
    seen = set()
    while wanted - seen:
        name = min(wanted - seen)
        seen.add(name)
        assert name.startswith("static/"), name
        answer = ask(viewer.url, f"/{name}")
        assert answer.status == 200, name
        assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", ""), name
        wanted |= {f"static/{each}" for each in re.findall(r'from "\./([\w.]+)"', answer.text)}
    assert len(seen) >= 8
    assert ask(viewer.url, "/favicon.ico").body == ask(viewer.url, "/static/icon.svg").body
    assert ask(viewer.url, "/static/viewer.css").headers["cache-control"] == "no-store"  # nor kept for another version


async def vanish(url, number):
    """Open the stream and go: politely, without a word, or without ever having read."""
    if number % 3:
        async with opened(url) as page:
            await page.next()
            if number % 3 == 1:
                page.socket._response.connection.transport.abort()
        return
    raw = shake_hands(url)
    await asyncio.sleep(0.05)
    raw.close()


@contextlib.contextmanager
def shown_at_full_speed(viewer, **options):
    """Within the block a thread shows frames without a pause; yields references to all of them, and their count."""
    stop, alive, shown = threading.Event(), weakref.WeakSet(), [0]

    def show():
        while not stop.is_set():
            each = update(shown[0], **options)
            alive.add(each)
            viewer.show(each)
            shown[0] += 1

    thread = threading.Thread(target=show)
    thread.start()
    try:
        yield alive, shown
    finally:
        stop.set()
        thread.join()


def test_fifty_pages_come_and_vanish_at_full_speed(viewer, caplog):
    async def look():
        async with opened(viewer.url) as steady:
            await asyncio.gather(*(vanish(viewer.url, number) for number in range(50)))
            before = (await steady.picture()).header["index"]
            await steady.until(lambda picture: picture.header["index"] > before)

    with shown_at_full_speed(viewer) as (alive, shown):
        asyncio.run(look())
        while clients_of(viewer):
            pass
        assert shown[0] > 50
    assert caplog.text == ""  # pages that go are no failures
    while len(alive) > 2:  # the newest, and what is under way; in time nothing of all the pages is left
        gc.collect()


def test_a_page_that_never_reads_holds_up_nobody_and_goes(open_viewer):
    viewer = open_viewer(limits=Limits(heartbeat_s=2.0))
    # Larger than what the sockets between the two ends take in.
    large = {"size_hw": (720, 1280), "labels": None}

    async def look():
        async with opened(viewer.url) as page:
            first = (await page.picture()).header["index"]
            await page.until(lambda picture: picture.header["index"] > first + 5)
            while clients_of(viewer) > 1:
                await page.picture()

    silent = [shake_hands(viewer.url) for _ in range(3)]
    with shown_at_full_speed(viewer, **large) as (alive, _):
        asyncio.run(look())
        for raw in silent:
            raw.close()
    gc.collect()
    assert len(alive) <= 4


def test_slow_pages_keep_no_frames(viewer):
    """Each has been sent another frame and does not say that it has shown it; only the newest frame stays."""
    alive = weakref.WeakSet()

    async def look():
        async with contextlib.AsyncExitStack() as stack:
            for index in range(8):
                alive.add(shown := update(index))
                viewer.show(shown)
                del shown
                page = await stack.enter_async_context(opened(viewer.url))
                await page.send(type="view", opacity=index)
                assert (await page.picture(acknowledge=False)).header["index"] == index
            viewer.show(update(8))
            for _ in range(2):  # by then the viewer's clock has ticked
                await page.status()
            gc.collect()
            assert not alive

    asyncio.run(look())


def test_show_passes_no_frame_on_while_nobody_looks(viewer):
    """The event loop is not even woken: a pipeline without spectators pays for a lock and a few entries in tables."""
    calls = []
    loop = viewer._running._loop
    original = loop.call_soon_threadsafe
    loop.call_soon_threadsafe = lambda *arguments: calls.append(arguments) or original(*arguments)
    for index in range(100):
        viewer.show(update(index))
    assert calls == []


def test_show_never_waits_for_the_event_loop(viewer):
    """With the viewer's thread stuck, frames are taken and replaced all the same."""
    release = threading.Event()

    async def look():
        async with opened(viewer.url) as page:
            await page.status()
            viewer._running._loop.call_soon_threadsafe(release.wait)
            for index in range(1000):
                viewer.show(update(index))
            release.set()
            assert (await page.until(lambda picture: picture.header["index"] == 999)) is not None

    asyncio.run(look())


def test_the_rest_of_the_package_works_without_the_library():
    script = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from sfpp.runtime.errors import MissingDependencyError\n"
        "from sfpp.runtime.viewer import ViewerUpdate, address_from\n"
        "assert address_from('80') == ('127.0.0.1', 80)\n"
        "try: from sfpp.runtime.viewer import Viewer\n"
        "except MissingDependencyError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "the browser viewer needs aiohttp, which is not installed: pip install 'sfpp[viewer]'\n"


def test_importing_the_package_loads_nothing_heavy():
    script = "import sys, sfpp.runtime.viewer; print(sorted({'aiohttp', 'cv2', 'asyncio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
