"""A stream whose server is killed and comes back."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks.live.parts import Resources, resources
from sfpp.runtime import load_segmenter
from sfpp.runtime.video import Answer, Event, Pipeline
from tests.runtime.video.sources.servers import MjpegServer  # the one that the tests use

_TIMES = 20
_FRAMES_BETWEEN = 10
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Reconnecting:
    """How often it was killed and came back, how long after the server did, and what was held before and after."""

    times: int
    recovered: int
    median_s: float
    longest_s: float
    before: Resources
    after: Resources

    def sentence(self) -> str:
        """Return it in words."""
        return (
            f"{self.recovered} of {self.times} disconnects recovered, {self.median_s:.1f} s after the server was back "
            f"(longest {self.longest_s:.1f} s); threads {self.before.threads} and {self.after.threads}, handles "
            f"{self.before.handles} and {self.after.handles}, memory {self.before.memory_mb:.0f} and "
            f"{self.after.memory_mb:.0f} MB, after the first time and after the last"
        )


def reconnecting(model: Path) -> Reconnecting:
    """Kill the server of a running pipeline's only source, again and again."""
    told = _Told()
    took_s: list[float] = []
    held: list[Resources] = []
    with (
        load_segmenter(model) as segmenter,
        MjpegServer() as server,
        Pipeline(segmenter, [server.url()], on_event=told.take) as pipeline,
    ):
        answers = iter(pipeline)
        for _ in tqdm(range(_TIMES), desc="disconnects"):
            _take(answers, _FRAMES_BETWEEN)
            server.kill()
            told.wait_for("lost", len(took_s) + 1)
            server.start()
            back_s = time.monotonic()
            answer = next(answers)
            while answer.frame.taken_s < back_s:  # one that was on its way
                answer = next(answers)
            took_s.append(time.monotonic() - back_s)
            held.append(resources())
    recovered = told.count("back")
    return Reconnecting(_TIMES, recovered, statistics.median(took_s), max(took_s), held[0], held[-1])


def _take(answers: Iterator[Answer], count: int) -> None:
    for _ in range(count):
        next(answers)


class _Told:
    """Events, counted by kind."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._kinds: list[str] = []

    def take(self, event: Event) -> None:
        with self._changed:
            self._kinds.append(event.kind)
            self._changed.notify_all()

    def count(self, kind: str) -> int:
        return self._kinds.count(kind)

    def wait_for(self, kind: str, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count(kind) >= count, _PATIENCE_S), f"no {kind} came"
