"""Pages that stay, acknowledge every picture, and take little of the cores: what comes is not even copied.

    python -m benchmarks.live.lookers http://127.0.0.1:8080/ 50

They go on until SIGTERM, and print at last the seconds of a core that it took, and how many pictures they got.
Linux only.
"""

from __future__ import annotations

import selectors
import signal
import socket
import struct
import sys
import time
from urllib.parse import urlsplit

_HANDSHAKE = (
    "GET /stream?{query} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_SHOWN = b'{"type":"shown"}'
# A browser masks what it says; a mask of zeros leaves it as it is.
_SHOWN_FRAME = bytes([0x81, 0x80 | len(_SHOWN), 0, 0, 0, 0]) + _SHOWN
_PONG_FRAME = bytes([0x8A, 0x80, 0, 0, 0, 0])
_BINARY, _PING = 2, 9
_AT_ONCE = 1 << 20
_DROPPED = bytearray(_AT_ONCE)


class Looker:
    """A page; ``pictures`` counts what it got."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.pictures = 0
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80))
        self.socket.sendall(_HANDSHAKE.format(query=parts.query, host=parts.netloc).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        self.socket.setblocking(False)
        self._left = 0  # of the payload of the message that is coming
        self._kind = 0

    def read(self) -> None:
        """Drop what has come; answer the end of a picture, and a ping."""
        try:
            if self._left:
                # With this flag the system drops what it has and copies nothing.
                self._left -= self.socket.recv_into(_DROPPED, min(self._left, _AT_ONCE), socket.MSG_TRUNC)
            else:
                self._begin()
        except BlockingIOError:
            return
        if not self._left and self._kind == _BINARY:
            self.pictures += 1
            self.socket.send(_SHOWN_FRAME)
        elif not self._left and self._kind == _PING:
            self.socket.send(_PONG_FRAME)

    def _begin(self) -> None:
        """Read the header of a message, which comes as one."""
        first, length = self.socket.recv(2)
        self._kind = first & 15
        if length >= 126:
            size, form = (2, ">H") if length == 126 else (8, ">Q")
            (length,) = struct.unpack(form, self.socket.recv(size))
        self._left = length


def main(url: str, count: int) -> None:
    """Look until SIGTERM."""
    going = [True]
    signal.signal(signal.SIGTERM, lambda *_: going.clear())
    lookers = [Looker(url) for _ in range(count)]
    with selectors.DefaultSelector() as selector:
        for each in lookers:
            selector.register(each.socket, selectors.EVENT_READ, each)
        while going:
            for key, _ in selector.select(0.2):
                key.data.read()
    print(f"{time.process_time():.2f}", sum(each.pictures for each in lookers))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
