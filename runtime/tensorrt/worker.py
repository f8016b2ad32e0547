"""The process that builds an engine: reads what to build from standard input, and tells how far it is.

It speaks in lines of JSON on standard output, each an object with one of the keys ``phase`` (name, steps done, steps),
``error`` (kind, message) and ``done`` (this machine's card, or null). The engine goes into a file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from sfpp.runtime.errors import SfppError
from sfpp.runtime.files import disk_errors_named
from sfpp.runtime.tensorrt.building import EngineSettings, engine_bytes
from sfpp.runtime.tensorrt.cuda import card_of_this_machine
from sfpp.runtime.tensorrt.library import library_of

# Progress is not shown more often.
_INTERVAL_S = 0.1


def main() -> int:
    """Build what standard input asks for and return an exit code."""
    channel = _own_channel()
    job = json.loads(sys.stdin.readline())
    # Ctrl-C in a terminal reaches this process too; whoever started it decides, and ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _send(channel, done=_build(job, _Reporter(channel)))
    except SfppError as error:
        _send(channel, error={"kind": type(error).__name__, "message": str(error)})
        return 1
    return 0


def _build(job: dict[str, Any], reporter: _Reporter) -> dict[str, str] | None:
    built = engine_bytes(
        library_of(job["library"], purpose="building an engine"),
        Path(job["model"]),
        EngineSettings(**job["settings"]),
        precision=job["precision"],
        progress=reporter,
        parse_only=job["parse_only"],
    )
    with disk_errors_named(Path(job["shown"])):
        Path(job["engine"]).write_bytes(built)
    card = card_of_this_machine()
    return None if card is None else asdict(card)


class _Reporter:
    """Reports phases, the inner ones no more often than they are shown."""

    def __init__(self, channel: TextIO) -> None:
        self._channel = channel
        self._last = 0.0
        self._lock = threading.Lock()

    def __call__(self, phase: str, done: int, total: int) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._last < _INTERVAL_S:
                return
            self._last = now
            _send(self._channel, phase=[phase, done, total])


def _own_channel() -> TextIO:
    """Return what was standard output; what native code prints goes to standard error from now on."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def _send(channel: TextIO, **message: Any) -> None:
    print(json.dumps(message), file=channel, flush=True)


def _end_with_parent() -> None:
    """End this process when standard input is closed: nothing waits for it any more."""
    while sys.stdin.readline():
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
