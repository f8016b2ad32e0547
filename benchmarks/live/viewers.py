"""What pages that look, come and vanish cost the pipeline: its frames a second with them and without, in turns."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks.waiting import blank_frame, waiting
from sfpp.runtime import Segmenter, load_segmenter
from sfpp.runtime.files import python_module
from sfpp.runtime.video import Delivery, Pipeline
from sfpp.runtime.viewer import Viewer

PAGES = 50
_WAIT_S = 0.04
_ROUNDS = 5
_ROUND_S = 8.0
_SETTLING_S = 2.0
_STEADY = "benchmarks.live.lookers"
_RESTLESS = "benchmarks.live.pages"
_SOURCE = "test://?width=960&height=540&fps=30"
_FAST_SOURCE = "test://?width=960&height=540&pace=0"


@dataclass(frozen=True)
class Pair:
    """Frames a second of one round, without pages and with them, and how many pictures the pages got."""

    alone: float
    watched: float
    pictures: int

    @property
    def ratio(self) -> float:
        """With pages to without."""
        return self.watched / self.alone


@dataclass(frozen=True)
class Viewers:
    """Rounds with a network that waits, and with one that computes on the same cores as everything else.

    In the first, ``steady``, the pages stay, and do so little that they take no cores from what is measured.
    """

    pages: int
    steady: tuple[Pair, ...]
    waiting: tuple[Pair, ...]
    computing: tuple[Pair, ...]

    def sentence(self) -> str:
        """Return it in words."""
        return (
            f"{self.pages} pages that stay, with a network that waits: {_words(self.steady)}; the same that connect, "
            f"watch and vanish: {_words(self.waiting)}; with a network on the same cores as the pages "
            f"{_words(self.computing)}"
        )


def _words(rounds: tuple[Pair, ...]) -> str:
    ratio = statistics.median(each.ratio for each in rounds)
    alone = statistics.median(each.alone for each in rounds)
    return f"{ratio:.0%} of the {alone:.1f} frames per second without them"


def viewers(model: Path) -> Viewers:
    """Measure both."""
    with load_segmenter(model) as segmenter:
        slow = waiting(segmenter, blank_frame(segmenter), wait_s=_WAIT_S)
        return Viewers(
            PAGES,
            _rounds(slow, _SOURCE, "steady pages, waiting", pages=_STEADY),
            _rounds(slow, _SOURCE, "pages, waiting"),
            _rounds(segmenter, _FAST_SOURCE, "pages, computing"),
        )


def _rounds(model: Segmenter, source: str, name: str, *, pages: str = _RESTLESS) -> tuple[Pair, ...]:
    with Viewer(model, port=0) as viewer, Pipeline(model, [source], policy="freshest") as pipeline:
        frames = _Frames(pipeline, Delivery(viewer=viewer))
        frames.a_second(_SETTLING_S)
        return tuple(_pair(frames, viewer.url, pages) for _ in tqdm(range(_ROUNDS), desc=name))


def _pair(frames: _Frames, url: str, pages: str) -> Pair:
    alone = frames.a_second(_ROUND_S)
    with _pages(url, pages) as process:
        frames.a_second(_SETTLING_S)
        watched = frames.a_second(_ROUND_S)
        process.terminate()
        told, _ = process.communicate()
    frames.a_second(_SETTLING_S)
    return Pair(round(alone, 2), round(watched, 2), int(told.split()[-1]))


class _Frames:
    """A pipeline at work, and how fast it is."""

    def __init__(self, pipeline: Pipeline, delivery: Delivery) -> None:
        self._answers = iter(pipeline)
        self._delivery = delivery

    def a_second(self, seconds: float) -> float:
        """Let it run so long; return the frames a second."""
        start_s, count = time.perf_counter(), 0
        while time.perf_counter() - start_s < seconds:
            self._delivery.take(next(self._answers))
            count += 1
        return count / (time.perf_counter() - start_s)


@contextlib.contextmanager
def _pages(url: str, pages: str) -> Iterator[subprocess.Popen[str]]:
    # Browsers are other processes, on other machines as a rule; here they share the cores.
    with subprocess.Popen(**python_module(pages, url, str(PAGES)), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
