"""Pages that ask for ever new views, and go in every way in which a page can go.

    python -m benchmarks.live.restless 'http://127.0.0.1:8080/?token=TOKEN' 12

They go on until SIGTERM, and print at last how many pages there were and how many pictures they got.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
from typing import Any

import aiohttp
from yarl import URL

_STAY_S = (0.1, 3.0)
_WIDTHS = (160, 320, 480, 640)


class Restless:
    """So many pages at a time; ``pages`` and ``pictures`` count all there were."""

    def __init__(self, url: str, count: int) -> None:
        self.pages = self.pictures = 0
        self._url = URL(url)
        self._count = count

    async def look(self) -> None:
        """Look until cancelled; beside the pages there are snapshots, and strangers without the token."""
        async with aiohttp.ClientSession() as client:
            others = (self._snapshots(client), self._strangers())
            await asyncio.gather(*(self._come_and_go(client, seed) for seed in range(self._count)), *others)

    async def _come_and_go(self, client: aiohttp.ClientSession, seed: int) -> None:
        chance = random.Random(seed)
        while True:
            await asyncio.sleep(0.01)
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                socket = await client.ws_connect((self._url / "stream").with_query(self._url.query), max_msg_size=0)
                self.pages += 1
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._watch(socket, chance), chance.uniform(*_STAY_S))
                await self._leave(socket, chance)

    async def _watch(self, socket: aiohttp.ClientWebSocketResponse, chance: random.Random) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                self.pictures += 1
                await socket.send_str('{"type":"shown"}')
            await socket.send_str(json.dumps(_view(chance)))

    async def _leave(self, socket: aiohttp.ClientWebSocketResponse, chance: random.Random) -> None:
        """Go politely, or without a word after a time in which nothing is read; aiohttp has no public way to that."""
        if chance.random() < 0.5:
            await socket.close()
            return
        await asyncio.sleep(chance.random())
        connection: Any = socket._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()

    async def _snapshots(self, client: aiohttp.ClientSession) -> None:
        while True:
            await asyncio.sleep(0.5)
            with contextlib.suppress(aiohttp.ClientError):
                async with client.get((self._url / "snapshot").with_query(self._url.query)) as answer:
                    await answer.read()

    async def _strangers(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self._url.host, self._url.port)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
                asyncio.get_running_loop().call_later(5, writer.transport.abort)


def _view(chance: random.Random) -> dict[str, Any]:
    return {
        "type": "view",
        "source": f"camera {chance.randrange(12)}",
        "view": chance.choice(("original", "overlay", "mask")),
        "opacity": chance.randrange(101),
        "hidden": [chance.randrange(256) for _ in range(chance.randrange(4))],
        "width": chance.choice(_WIDTHS),
        "playing": chance.random() < 0.8,
        "visible": chance.random() < 0.9,
    }


async def main(url: str, count: int) -> None:
    """Look until SIGTERM."""
    restless = Restless(url, count)
    looking = asyncio.ensure_future(restless.look())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, looking.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    print(restless.pages, restless.pictures)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
