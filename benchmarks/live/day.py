"""A day of the page in ten minutes: sources stall and come back by the thousand, restless pages come and vanish."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.live.parts import Resources, resources
from sfpp.runtime import load_segmenter
from sfpp.runtime.events import Event
from sfpp.runtime.files import python_module
from sfpp.runtime.viewer import Viewer, ViewerUpdate

SECONDS = 600.0
_PAGES = 12
_SOURCES = 10
_SAMPLE_S = 0.25
_SIZE_HW = (360, 640)
_PAUSE_S = 0.01  # between frames of all sources
_STALLS = 0.1  # of the frames are the last one before a stall
_STALL_S = (0.05, 2.0)
_TOKEN = "a-day-of-the-page"
_MOST_GROWTH_MB = 10.0


@dataclass(frozen=True)
class Day:
    """What the viewer's process held at most in each tenth of the time, and what it went through."""

    seconds: float
    stalls: int
    frames: int
    pages: int
    pictures: int
    tenths: tuple[Resources, ...]

    @property
    def is_flat(self) -> bool:
        """Whether the last tenth held no more than the second."""
        second, last = self.tenths[1], self.tenths[-1]
        # Of the pages some more are open at one time than at another, two handles each at most.
        return (
            last.memory_mb <= second.memory_mb + _MOST_GROWTH_MB
            and last.threads <= second.threads
            and last.handles <= second.handles + 2 * _PAGES
        )

    def sentence(self) -> str:
        """Return it in words."""
        rows = "; ".join(f"{each.memory_mb:.0f} MB, {each.threads}, {each.handles}" for each in self.tenths)
        return (
            f"{self.stalls} stalls, {self.frames} frames, {self.pages} pages, {self.pictures} pictures in "
            f"{self.seconds:.0f} s: {'flat' if self.is_flat else 'NOT FLAT'}; memory, threads and open files at most "
            f"in each tenth: {rows}"
        )


def day(model: Path, seconds: float = SECONDS) -> Day:
    """Let it pass."""
    with load_segmenter(model) as segmenter, Viewer(segmenter, port=0, token=_TOKEN) as viewer:
        sources = _Sources(viewer, len(segmenter.contract.classes))
        with _restless(viewer.url) as pages:
            tenths = tuple(_most(sources, seconds / 10) for _ in range(10))
            pages.terminate()
            told = pages.communicate()[0].split()
    return Day(seconds, sources.stalls, sources.frames, int(told[0]), int(told[1]), tenths)


def _most(sources: _Sources, seconds: float) -> Resources:
    """Let the sources deliver for so long; return the most that was held."""
    held, end_s = [resources()], time.monotonic() + seconds
    while time.monotonic() < end_s:
        sources.deliver(_SAMPLE_S)
        held.append(resources())
    most = Resources(
        max(each.memory_mb for each in held), max(each.threads for each in held), max(each.handles for each in held)
    )
    print(most, flush=True)
    return most


class _Sources:
    """Sources that deliver, stall, and come back."""

    def __init__(self, viewer: Viewer, classes: int) -> None:
        self.stalls = self.frames = 0
        self._viewer = viewer
        self._chance = random.Random(0)
        noise = np.random.default_rng(0)
        self._images = [noise.integers(0, 256, (*_SIZE_HW, 3), np.uint8) for _ in range(4)]
        self._labels = noise.integers(0, classes, _SIZE_HW, np.uint8)
        self._back_s = [0.0] * _SOURCES

    def deliver(self, seconds: float) -> None:
        """Deliver for so long."""
        end_s = time.monotonic() + seconds
        while (now_s := time.monotonic()) < end_s:
            for number, back_s in enumerate(self._back_s):
                if now_s >= back_s:
                    self._show(number, now_s)
            time.sleep(_PAUSE_S)

    def _show(self, number: int, now_s: float) -> None:
        name = f"camera {number}"
        if self._back_s[number]:
            self._back_s[number] = 0.0
            self._viewer.event(Event("back", name, "after a stall"))
        image = self._images[self.frames % 4].copy()  # each frame is memory of its own
        self._viewer.show(ViewerUpdate(name, self.frames, image, self._labels, stages_ms={"infer": 1.0}, age_ms=2.0))
        self.frames += 1
        if self._chance.random() < _STALLS:
            self.stalls += 1
            self._back_s[number] = now_s + self._chance.uniform(*_STALL_S)
            self._viewer.event(Event("lost", name, "a stall"))


@contextmanager
def _restless(url: str) -> Iterator[subprocess.Popen[str]]:
    arguments = ("benchmarks.live.restless", url, str(_PAGES))
    with subprocess.Popen(**python_module(*arguments), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
