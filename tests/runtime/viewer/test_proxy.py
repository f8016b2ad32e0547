"""The page behind a reverse proxy that has it in a folder, as in ``https://host/cam1/``."""

import asyncio
import contextlib
import re
from urllib.parse import urljoin, urlsplit

import pytest

from tests.runtime.viewer.looking import Page, aiohttp, update

TOKENS = {"cam1": "the-token-of-the-first-camera", "cam2": "the-token-of-the-second-camera"}


async def passed_on(request, viewers):
    """Take the folder away and ask the viewer for the rest, with the headers that a proxy sets."""
    headers = {name: request.headers[name] for name in ("Cookie", "Origin", "Authorization") if name in request.headers}
    headers |= {"X-Forwarded-Host": request.host, "X-Forwarded-Proto": "http"}
    parts = urlsplit(viewers[request.match_info["camera"]].url)
    address = f"http://127.0.0.1:{parts.port}/{request.match_info['rest']}"
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        if "Upgrade" in request.headers:
            return await both_ways(request, client, address, headers)
        async with client.get(address, params=request.query, headers=headers) as answer:
            kept = {k: v for k, v in answer.headers.items() if k in ("Content-Type", "Set-Cookie")}
            return aiohttp.web.Response(status=answer.status, body=await answer.read(), headers=kept)


async def both_ways(request, client, address, headers):
    outer = aiohttp.web.WebSocketResponse()
    async with client.ws_connect(address, headers=headers, max_msg_size=0) as inner:
        await outer.prepare(request)

        async def say():
            async for message in outer:
                await inner.send_str(message.data)

        saying = asyncio.create_task(say())
        async for message in inner:
            binary = message.type is aiohttp.WSMsgType.BINARY
            with contextlib.suppress(ConnectionError):
                await (outer.send_bytes if binary else outer.send_str)(message.data)
            if outer.closed:
                break
        saying.cancel()
    return outer


@contextlib.asynccontextmanager
async def proxied(viewers):
    import aiohttp.web

    async def handler(request):
        return await passed_on(request, viewers)

    application = aiohttp.web.Application()
    application.router.add_get("/{camera:cam[12]}/{rest:.*}", handler)
    runner = aiohttp.web.AppRunner(application)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def viewers(open_viewer):
    opened = {name: open_viewer(token=token) for name, token in TOKENS.items()}
    for name, viewer in opened.items():
        viewer.show(update(source=name))
    return opened


def test_two_viewers_live_in_folders_of_one_host(viewers):
    async def look():
        jar = aiohttp.CookieJar(unsafe=True)  # a host without a name may have cookies too
        async with proxied(viewers) as origin, aiohttp.ClientSession(cookie_jar=jar) as browser:
            for name, token in TOKENS.items():
                async with browser.get(f"{origin}/{name}/?token={token}&width=640") as welcome:
                    onward = re.search(r"url=([^\"]+)\"", await welcome.text())[1]
                    assert "secure" not in welcome.headers["Set-Cookie"].lower()
                assert urljoin(f"{origin}/{name}/", onward) == f"{origin}/{name}/?width=640"
            for name in TOKENS:
                await walk(browser, f"{origin}/{name}/", name)
            paths = sorted(cookie["path"] for cookie in jar)
            assert paths == ["/cam1", "/cam2"]  # neither viewer is sent the other's token

    asyncio.run(look())


async def walk(browser, folder, name):
    """Open a page, all that it names, and its stream."""
    async with browser.get(folder) as answer:
        assert answer.status == 200
        wanted = {urljoin(folder, each) for each in re.findall(r'(?:src|href)="(?!#)([^"]+)"', await answer.text())}
    assert len(wanted) >= 4
    for address in wanted:
        assert address.startswith(folder)
        async with browser.get(address) as answer:
            assert answer.status == 200, address
    async with browser.get(urljoin(folder, "snapshot?view=mask")) as answer:
        assert answer.status == 200
    origin = folder.rpartition(f"/{name}/")[0]
    async with browser.ws_connect(urljoin(folder, "stream"), max_msg_size=0, headers={"Origin": origin}) as socket:
        assert (await Page(socket).picture()).header["source"] == name


def test_no_file_of_the_page_has_an_address_from_the_root():
    from sfpp.runtime.viewer.routes import _FILES

    for path in _FILES.values():
        text = path.read_text("utf-8")
        assert not re.search(r"""(?:src|href|from|fetch\(|URL\(|url\()\s*=?\s*["'`(]?/[^/*]""", text), path.name


def test_behind_https_the_cookie_never_goes_without_it(viewers):
    from tests.runtime.viewer.looking import ask

    path = f"/?token={TOKENS['cam1']}"
    cookie = ask(viewers["cam1"].url, path, X_Forwarded_Proto="https").headers["set-cookie"]
    assert "; Secure" in cookie
    assert "Path" not in cookie
    assert "Secure" not in ask(viewers["cam1"].url, path).headers["set-cookie"]
