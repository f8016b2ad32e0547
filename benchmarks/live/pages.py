"""Pages that look at a viewer as its own page does, for a moment each, and vanish without a word.

    python -m benchmarks.live.pages http://127.0.0.1:8080/ 50

They go on until SIGTERM, and print at last how many pictures they got.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys

import aiohttp

_STAY_S = (0.5, 3.0)
_SHOWN = '{"type":"shown"}'


class Pages:
    """So many pages at a time; ``pictures`` counts what all of them got."""

    def __init__(self, url: str, count: int) -> None:
        self.pictures = 0
        self._url = url
        self._count = count

    async def look(self) -> None:
        """Look until cancelled."""
        async with aiohttp.ClientSession() as client:
            await asyncio.gather(*(self._come_and_go(client, seed) for seed in range(self._count)))

    async def _come_and_go(self, client: aiohttp.ClientSession, seed: int) -> None:
        chance = random.Random(seed)
        while True:
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                socket = await client.ws_connect(f"{self._url}stream", max_msg_size=0)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._watch(socket), chance.uniform(*_STAY_S))
                # Without a word, as where a cable is pulled; aiohttp has no public way to that.
                socket._response.connection.transport.abort()

    async def _watch(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                self.pictures += 1
                await socket.send_str(_SHOWN)


async def main(url: str, count: int) -> None:
    """Look until SIGTERM."""
    pages = Pages(url, count)
    looking = asyncio.ensure_future(pages.look())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, looking.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    print(pages.pictures)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
