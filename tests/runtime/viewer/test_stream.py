import asyncio
import contextlib
import threading

import cv2
import numpy as np
import pytest

from sfpp.runtime.events import Event
from sfpp.runtime.viewer import Limits
from tests.runtime.viewer.looking import PALETTE, Shown, aiohttp, ask, close_to, opened, update

LARGE_HW = (90, 320)


def third(image, number):
    """The inside of one of the three columns of classes, away from its borders."""
    width = image.shape[1] // 3
    return image[:, number * width + 12 : (number + 1) * width - 12]


def blended(number, *, grey=40, alpha=0.5):
    return [(1 - alpha) * grey + alpha * value for value in PALETTE[number][::-1]]


async def pause(page):
    """Pause, and change the view too: the picture of it says that the server has heard."""
    await page.send(type="view", playing=False, opacity=10)
    await page.picture()


def test_a_page_gets_the_newest_frame_with_its_colors(viewer):
    async def look():
        for index in range(5):
            viewer.show(update(index, size_hw=LARGE_HW))
        viewer.show(update(0, size_hw=LARGE_HW))
        async with opened(viewer.url) as page:
            picture = await page.picture()
            assert picture.image.shape == (*LARGE_HW, 3)
            for number in range(3):
                assert close_to(third(picture.image, number), blended(number))
            assert picture.header["source"] == "front"
            assert (picture.header["width"], picture.header["height"]) == LARGE_HW[::-1]

    asyncio.run(look())


def test_pictures_follow_the_frames(viewer):
    async def look():
        async with opened(viewer.url) as page:
            for index in (0, 7, 8, 30):
                viewer.show(update(index))
                assert (await page.picture()).header["index"] == index

    asyncio.run(look())


def test_settings_are_each_pages_own(viewer):
    async def look():
        viewer.show(update(size_hw=LARGE_HW))
        async with opened(viewer.url) as first, opened(viewer.url) as second:
            await first.picture()
            await second.picture()
            await first.send(type="view", hidden=[1], opacity=100)
            changed = (await first.picture()).image
            assert close_to(third(changed, 0), PALETTE[0][::-1], tolerance=12)
            assert close_to(third(changed, 1), (40, 40, 40))
            await second.send(type="view", view="mask", width=160)
            other = (await second.picture()).image
            assert other.shape[1] == 160
            assert close_to(third(other, 1), PALETTE[1][::-1], tolerance=12)
            viewer.show(update(1, size_hw=LARGE_HW))
            assert close_to(third((await first.picture()).image, 1), (41, 41, 41))

    asyncio.run(look())


def test_there_is_one_picture_on_its_way_and_old_ones_are_replaced(viewer):
    async def look():
        async with opened(viewer.url) as page:
            viewer.show(update(0))
            assert (await page.picture(acknowledge=False)).header["index"] == 0
            for index in range(1, 50):
                viewer.show(update(index))
            # Statuses go on without the acknowledgment, pictures do not.
            for _ in range(3):
                assert not isinstance(await page.next(), Shown)
            await page.send(type="shown")
            assert (await page.picture()).header["index"] == 49

    asyncio.run(look())


def test_a_paused_page_keeps_its_frame_and_may_change_the_view_of_it(viewer):
    async def look():
        viewer.show(update(3, size_hw=LARGE_HW))
        async with opened(viewer.url) as page:
            await page.picture()
            await pause(page)
            viewer.show(update(50, size_hw=LARGE_HW))
            await page.send(type="view", playing=False, view="original")
            still = await page.picture()
            assert still.header["index"] == 3
            assert close_to(still.image, (43, 43, 43))
            snapshot = ask(viewer.url, f"/snapshot?view=original&client={page.hello['client']}")
            assert "front-000003-original.png" in snapshot.headers["content-disposition"]
            await page.send(type="view", view="original")
            assert (await page.picture()).header["index"] == 50

    asyncio.run(look())


def test_paused_frames_are_bounded_and_the_first_one_goes(open_viewer):
    viewer = open_viewer(limits=Limits(held=1))

    async def look():
        viewer.show(update())
        async with opened(viewer.url) as first, opened(viewer.url) as second:
            for page in (first, second):
                await page.picture()
                await pause(page)
            assert ask(viewer.url, f"/snapshot?client={first.hello['client']}").status == 410
            assert ask(viewer.url, f"/snapshot?client={second.hello['client']}").status == 200

    asyncio.run(look())
    assert ask(viewer.url, "/snapshot?client=nobody").status == 410


def test_a_hidden_page_gets_no_pictures(viewer):
    async def look():
        viewer.show(update(source="rear"))
        viewer.show(update())
        async with opened(viewer.url) as page:
            await page.picture()
            await page.send(type="view", visible=False, source="front")
            while (await page.status())["source"] != "front":
                pass
            viewer.show(update(9))
            assert (await page.next())["type"] == "status"
            await page.send(type="view", source="front")
            assert (await page.picture()).header["index"] == 9

    asyncio.run(look())


def test_sources_can_be_chosen_and_an_unknown_one_is_the_first(viewer):
    async def look():
        viewer.show(update(1, source="front"))
        viewer.show(update(2, source="rear"))
        async with opened(viewer.url) as page:
            assert (await page.picture()).header["source"] == "front"
            await page.send(type="view", source="rear")
            assert (await page.picture()).header["source"] == "rear"
            while (status := await page.status())["source"] != "rear":
                pass
            assert [each["name"] for each in status["sources"]] == ["front", "rear"]
            await page.send(type="view", source="nowhere")
            assert (await page.picture()).header["source"] == "front"

    asyncio.run(look())


def test_figures_and_events_come_once(viewer):
    async def look():
        viewer.event(Event("opened", "front", "64x36"))
        viewer.show(update())
        async with opened(viewer.url) as page:
            status = await page.status()
            assert status["shares"] == pytest.approx([1 / 3] * 3, abs=1e-3)
            assert [each["kind"] for each in status["events"]] == ["opened"]
            assert status["samples"][0]["stages"] == {"decode": 2.0, "infer": 20.0}
            assert status["sources"][0]["fps"] == 25.0
            viewer.event(Event("dropped", "front", "late", count=2))
            viewer.show(update(1))
            status = await page.status()
            while not status["events"]:
                status = await page.status()
            assert [(each["number"], each["kind"]) for each in status["events"]] == [(1, "dropped")]
        async with opened(viewer.url) as later:
            assert [each["number"] for each in (await later.status())["events"]] == [0, 1]

    asyncio.run(look())


def test_equal_views_are_drawn_once(viewer):
    pages = 12

    async def look():
        async with contextlib.AsyncExitStack() as stack:
            looking = [await stack.enter_async_context(opened(viewer.url)) for _ in range(pages)]
            for index in range(10):
                viewer.show(update(index))
                pictures = await asyncio.gather(*(page.picture() for page in looking))
                assert {picture.header["index"] for picture in pictures} == {index}

    asyncio.run(look())
    assert "\nsfpp_viewer_pictures_total 10\n" in ask(viewer.url, "/metrics").text


def test_the_rate_is_limited(open_viewer):
    """A hundred frames come while a limit of five a second lets one picture through, or two."""
    viewer = open_viewer(limits=Limits(frames_per_second=5))

    async def look():
        viewer.show(update(0))
        async with opened(viewer.url) as page:
            assert (await page.picture()).header["index"] == 0
            for index in range(1, 101):
                viewer.show(update(index))
            assert (await page.until(lambda each: each.header["index"] == 100)).header["index"] == 100

    asyncio.run(look())
    drawn = int(ask(viewer.url, "/metrics").text.rpartition("sfpp_viewer_pictures_total ")[2])
    assert drawn <= 4


def test_nothing_is_drawn_for_nobody(viewer):
    for index in range(20):
        viewer.show(update(index, labels=None, draw=lambda image: pytest.fail("nobody looks")))
    assert "\nsfpp_viewer_pictures_total 0\n" in ask(viewer.url, "/metrics").text


def test_a_painter_that_fails_does_not_end_the_viewer(viewer, caplog):
    def fail(image):
        raise RuntimeError("out of paint")

    async def look():
        viewer.show(update(0, labels=None, draw=fail))
        async with opened(viewer.url) as page:
            await page.status()
            for index in range(1, 4):
                viewer.show(update(index, labels=None, draw=fail))
                await page.status()
            viewer.show(update(9))
            assert (await page.picture()).header["index"] == 9

    asyncio.run(look())
    assert caplog.text.count("\nRuntimeError: out of paint") == 1


@pytest.mark.parametrize("text", ["", "nonsense", '{"type": "view", "hidden": [999]}', "[" * 8000])
def test_a_page_that_talks_nonsense_is_sent_away(viewer, text):
    async def look():
        async with opened(viewer.url) as page:
            await page.socket.send_str(text)
            while (await page.socket.receive(timeout=20)).type is not aiohttp.WSMsgType.CLOSE:
                pass

    asyncio.run(look())
    assert ask(viewer.url, "/").status == 200


def test_a_message_without_end_is_refused(viewer):
    async def look():
        async with opened(viewer.url) as page:
            await page.socket.send_str("x" * 1_000_000)
            while (message := await page.socket.receive(timeout=20)).type not in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
                aiohttp.WSMsgType.ERROR,
            ):
                pass
            assert message.data in (aiohttp.WSCloseCode.MESSAGE_TOO_BIG, None)

    asyncio.run(look())
    assert ask(viewer.url, "/").status == 200


def test_only_so_many_pages_may_look(open_viewer):
    viewer = open_viewer(limits=Limits(clients=2))

    async def look():
        async with opened(viewer.url), opened(viewer.url):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with opened(viewer.url):
                    pass
            assert refused.value.status == 503
            assert ask(viewer.url, "/stream").status == 503
        async with opened(viewer.url) as page:
            assert page.hello["type"] == "hello"

    asyncio.run(look())


def test_a_page_can_stop_the_pipeline_only_where_it_listens(open_viewer):
    heard, told = [], threading.Event()

    def on_stop():
        heard.append("stop")
        told.set()
        raise RuntimeError("the pipeline does not like that")

    async def stop(viewer):
        async with opened(viewer.url) as page:
            await page.send(type="stop")
            await page.status()
            return page.hello["canStop"]

    assert asyncio.run(stop(open_viewer(on_stop=on_stop))) is True
    assert told.wait(10)
    assert heard == ["stop"]
    assert asyncio.run(stop(open_viewer())) is False


def test_asking_a_thousand_times_is_asking_once(open_viewer):
    heard, release = [], threading.Event()

    def on_stop():
        heard.append("stop")
        release.wait(20)

    async def ask_often():
        async with opened(open_viewer(on_stop=on_stop).url) as page:
            for _ in range(1000):
                await page.send(type="stop")
            await page.send(type="view", source="x")
            await page.status()
            await page.status()
        release.set()

    asyncio.run(ask_often())
    assert heard == ["stop"]


def test_a_page_learns_that_the_viewer_ends(viewer):
    async def look():
        viewer.show(update())
        async with opened(viewer.url) as page:
            await page.picture()
            await asyncio.get_running_loop().run_in_executor(None, viewer.close)
            while (message := await page.socket.receive(timeout=20)).type is not aiohttp.WSMsgType.CLOSE:
                pass
            assert message.data == aiohttp.WSCloseCode.GOING_AWAY

    asyncio.run(look())


def test_snapshots_have_the_frames_own_size(viewer):
    assert ask(viewer.url, "/snapshot").status == 503
    viewer.show(update(12, source="cam/../1: éß", size_hw=(70, 2000)))
    answer = ask(viewer.url, "/snapshot?view=mask&hidden=0,2&format=png")
    assert answer.headers["content-type"] == "image/png"
    assert 'filename="cam-..-1-000012-mask.png"' in answer.headers["content-disposition"]
    image = decoded(answer.body)
    assert image.shape == (70, 2000, 3)
    assert not third(image, 0).any()
    assert close_to(third(image, 1), PALETTE[1][::-1], tolerance=0)
    jpeg = ask(viewer.url, "/snapshot?format=jpeg&opacity=0")
    assert jpeg.headers["content-type"] == "image/jpeg"
    assert close_to(decoded(jpeg.body), (52, 52, 52))


@pytest.mark.parametrize("query", ["format=gif", "opacity=x", "hidden=a", "hidden=999", "view=none", "opacity=1.5"])
def test_a_wrong_snapshot_is_a_bad_request(viewer, query):
    viewer.show(update())
    assert ask(viewer.url, f"/snapshot?{query}").status == 400


def decoded(body):
    return cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
