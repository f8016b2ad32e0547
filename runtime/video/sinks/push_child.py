"""The process that sends video to a receiver: reads pictures from standard input, and tells how it goes.

It is a process of its own because PyAV keeps Python's lock while a connection is being made, and knows no timeout for
it: a receiver that accepts and stays silent would stop every thread of the program that the camera and the model need.
This one may stand still, and ends itself when it does so for too long.

It is given one line of JSON, the fields of a :class:`.Receiver`, ``size_hw`` and ``patience_s``, and then for each
picture its time in seconds (a double, little endian) and its planes Y, U, V in 4:2:0, odd sides grown by one. It says
``{"connected": true}`` once the receiver takes pictures, and ``{"error": WORDS, "final": BOOLEAN}`` when it does not
any more. The address holds a password, perhaps: it comes by standard input, which no list of processes shows, and
nothing that is said repeats it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from sfpp.runtime.video.sinks.h264 import LIVE_OPTIONS, Stamps, add_h264, encode
from sfpp.runtime.video.sinks.push import TIME
from sfpp.runtime.video.sources.stream import reason_and_hint

_CRF = 23  # of libx264; 6 more halve the bits


def main() -> int:
    """Send pictures until standard input ends, and return an exit code."""
    # Ctrl-C in a terminal and a service's stop reach this process too; whoever started it closes its input.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    given = sys.stdin.buffer
    assert isinstance(given, io.BufferedReader)
    job = json.loads(given.readline())
    try:
        _push(job, given)
    except (OSError, av.FFmpegError) as error:
        reason, _ = reason_and_hint(error, timeout_s=job["patience_s"])
        _say(error=reason, final=isinstance(error, av.error.ProtocolNotFoundError))
        return 1
    return 0


def _push(job: dict[str, Any], pictures: io.BufferedReader) -> None:
    patience_s, protocol = job["patience_s"], job["protocol"]
    container = av.open(job["uri"], mode="w", format=protocol["container"], options=protocol["options"])
    stream = add_h264(container, job["size_hw"], crf=_CRF, options=LIVE_OPTIONS)
    with _limited(patience_s):
        container.start_encoding()
    _say(connected=True)
    stamps = Stamps()
    try:
        for time_s, planes in _received(pictures, *job["size_hw"]):
            stamp_ms, key = stamps.of(time_s)
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            with _limited(patience_s):
                encode(stream, picture, stamp_ms, key=key)
        with _limited(patience_s):
            encode(stream, None)
    finally:
        with _limited(patience_s):
            container.close()


def _received(pictures: io.BufferedReader, height: int, width: int) -> Iterator[tuple[float, np.ndarray[Any, Any]]]:
    """Yield times in seconds and planes, (3/2 H, W) uint8 in a buffer that is used again, until the input ends."""
    head = bytearray(TIME.size)
    planes = np.empty((height * 3 // 2, width), np.uint8)
    while _filled(pictures, memoryview(head)) and _filled(pictures, planes.data.cast("B")):
        yield TIME.unpack(head)[0], planes


def _filled(stream: io.BufferedReader, buffer: memoryview) -> bool:
    return stream.readinto(buffer) == len(buffer)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End this process should the block take longer; a thread of C's, since the block may hold Python's lock."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - the device has no path on every system
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
