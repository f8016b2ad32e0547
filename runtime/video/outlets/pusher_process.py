"""The process that sends video, as seen by the one that has the pictures."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.children import python_module

_PUSHER = "sfpp.runtime.video.outlets.pusher"

PusherState = Literal["connecting", "connected", "failed"]

TIME = struct.Struct("<d")


@dataclass(frozen=True)
class PushJob:
    """What to send where.

    Attributes:
        uri: the receiver's address.
        container: FFmpeg's name of the container format.
        options: for it.
        encoder_options: for libx264, beside those that make it live.
        crf: quality of libx264.
        patience_s: how long connecting, or sending one picture, may take.
        size_hw: height and width of the pictures, even.
    """

    uri: str = field(repr=False)
    container: str
    options: dict[str, str]
    encoder_options: dict[str, str]
    crf: int
    patience_s: float
    size_hw: tuple[int, int] = (0, 0)


class PusherProcess:
    """Starts to connect at once; :meth:`close` ends it in every state.

    Attributes:
        state: where it stands, to be asked again and again.
        reason: why it failed, for people, without the address.
        final: whether it is of no use to try again.
    """

    def __init__(self, job: PushJob) -> None:
        self.state: PusherState = "connecting"
        self.reason = ""
        self.final = False
        self._job = job
        self._started_s = time.monotonic()
        self._process = subprocess.Popen(
            **python_module(_PUSHER),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a traceback could hold the address, and in it a password
            bufsize=0,
        )
        self._listener = threading.Thread(target=self._listen, name="sfpp-pusher", daemon=True)
        self._listener.start()
        self._write(json.dumps(asdict(job)).encode() + b"\n")

    def send(self, time_s: float, planes: NDArray[np.uint8]) -> None:
        """Hand over a picture, (3/2 H, W) uint8 in 4:2:0; wait, up to the job's patience, for the one before."""
        self._write(TIME.pack(time_s))
        self._write(np.ascontiguousarray(planes).data.cast("B"))

    def close(self, *, patience_s: float) -> None:
        """Let it say farewell to the receiver for so long, then end it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _write(self, data: bytes | memoryview) -> None:
        assert self._process.stdin is not None
        rest = memoryview(data)
        # It may have ended; why, the listener hears.
        with contextlib.suppress(BrokenPipeError, ValueError):
            while rest:
                rest = rest[self._process.stdin.write(rest) or 0 :]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if message.get("connected"):
                self.state = "connected"
            else:
                self.reason, self.final = message["error"], message["final"]
        code = self._process.wait()
        if not self.reason:
            # When its patience is at an end, it ends itself without a word.
            overdue = time.monotonic() - self._started_s >= self._job.patience_s
            self.reason = "no answer in time" if overdue else f"the sending process ended with code {code}"
        self.state = "failed"
