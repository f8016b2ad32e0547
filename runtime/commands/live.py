"""`sfpp-run` on cameras and streams, on several sources, or with a page in the browser."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sfpp.runtime.commands.options import given
from sfpp.runtime.commands.session import note, warn
from sfpp.runtime.errors import UsageError
from sfpp.runtime.people import choose_finder
from sfpp.runtime.pose import PoseEstimator
from sfpp.runtime.segmentation import Segmenter
from sfpp.runtime.video.events import Event
from sfpp.runtime.video.frames import Source
from sfpp.runtime.video.outlets import SinkThread, record_lines
from sfpp.runtime.video.outputs import default_overlay
from sfpp.runtime.video.sinks import folder_sink, open_sink, sink_name, snapshot_sink
from sfpp.runtime.video.stopping import stop_on_signals
from sfpp.runtime.video.streaming import Pipeline, Policy
from sfpp.runtime.video.streaming.delivery import Delivery, Outlets, draw_with

if TYPE_CHECKING:
    from sfpp.runtime.viewer import Viewer

_SOURCE = "{source}"
_SIGNAL_EXIT = 128  # shells report a program ended by a signal as this plus the signal's number
# Dropped frames are the rule for a live source; a line each second would hide what else happens.
_DROPS_EVERY_S = 10.0
_STATUS_EVERY_S = 1.0
_KEPT_AGES = 100_000
_HEARING_S = 0.1


@dataclass(frozen=True)
class Places:
    """What is written, as the command line names it; ``{source}`` stands for each source's name.

    Attributes:
        pictures: videos, pictures, folders and addresses for frames with what was found drawn over them.
        masks: a folder for PNGs of label values.
        records: a file for lines of JSON, or ``-``.
        snapshot: a picture from the run.
    """

    pictures: tuple[str, ...] = ()
    masks: str | None = None
    records: str | None = None
    snapshot: str | None = None

    def all(self) -> tuple[str, ...]:
        """Every place."""
        others = (self.masks, self.records, self.snapshot)
        return (*self.pictures, *(place for place in others if place is not None))


def run_live(
    arguments: argparse.Namespace,
    model: Segmenter | PoseEstimator,
    sources: Sequence[Source],
    places: Places,
    reporter: Reporter,
) -> int:
    """Run until the sources end or a signal asks to stop, print what was done, and return the exit code.

    Args:
        arguments: of the command line.
        model: what is run.
        sources: opened.
        places: what is written.
        reporter: told of events by the sources already.

    Raises:
        SfppError: a source, an outlet or the model failed.
    """
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        viewer = _viewer(arguments, model, stack)
        reporter.viewer = viewer
        pipeline = stack.enter_context(_pipeline(arguments, model, sources, reporter, stack))
        note(f"policy {pipeline.policy}: " + _POLICY_WORDS[pipeline.policy])
        outlets = {
            source.name: _outlets(places, source, pipeline.policy, reporter, pipeline, stack) for source in sources
        }
        drawing = given(arguments, "alpha", "legend", "threshold")
        delivery = Delivery(draw_with(**drawing), outlets, viewer)
        stack.enter_context(_heard(stop, pipeline))
        with reporter.shown():
            for answer in pipeline:
                reporter.saw(answer.age_ms)
                delivery.take(answer, frames_per_second=reporter.frames_per_second)
                if arguments.max_frames is not None and reporter.frames >= arguments.max_frames:
                    break
    _report(pipeline, reporter, places, sources)
    return _SIGNAL_EXIT + stop.signal_number if stop.signal_number else 0


_POLICY_WORDS: dict[Policy, str] = {
    "freshest": "frames that are old by the time the model is free are dropped",
    "every-frame": "no frame is dropped, and the sources wait",
}


def _pipeline(
    arguments: argparse.Namespace,
    model: Segmenter | PoseEstimator,
    sources: Sequence[Source],
    reporter: Reporter,
    stack: contextlib.ExitStack,
) -> Pipeline:
    if arguments.every > 1:
        raise UsageError("--every is for files; a live pipeline takes as many frames as the model can: leave it off")
    options: dict[str, Any] = given(arguments, "policy", "smooth")
    if isinstance(model, PoseEstimator):
        finder, line = choose_finder(**given(arguments, "detector", "boxes", "person", "threads"))
        stack.enter_context(contextlib.closing(finder))
        note(line)
        options |= {"finder": finder, **given(arguments, "detect_every", "threshold")}
    return Pipeline(model, sources, on_event=reporter.event, **options)


def _viewer(
    arguments: argparse.Namespace, model: Segmenter | PoseEstimator, stack: contextlib.ExitStack
) -> Viewer | None:
    if arguments.view is None:
        return None
    from sfpp.runtime.viewer import Viewer

    host, port = arguments.view
    contract = model.contract
    viewer = Viewer(
        classes=contract.classes,
        palette=contract.palette,
        task=contract.task,
        title=model.description,
        host=host,
        port=port,
        token=arguments.token,
    )
    stack.enter_context(viewer)
    note(f"open {viewer.url} in a browser")
    return viewer


def places_of(arguments: argparse.Namespace, sources: Sequence[Source]) -> Places:
    """Return what is to be written: a video of each source if nothing else was asked for.

    Raises:
        UsageError: several sources would write over each other.
    """
    wanted = tuple(arguments.outlets) or ((arguments.output,) if arguments.output is not None else ())
    others = arguments.masks, arguments.json, arguments.snapshot, arguments.view
    if not wanted and all(each is None for each in others):
        wanted = (default_overlay(sources[0]).replace(sources[0].name, _SOURCE),)
    places = Places(wanted, arguments.masks, arguments.json, arguments.snapshot)
    _check_places(places, sources)
    return places


def _check_places(places: Places, sources: Sequence[Source]) -> None:
    """Refuse what several sources would write over each other.

    Raises:
        UsageError: a place for pictures or masks that is the same for all.
    """
    if len(sources) < 2:
        return
    for place in (*places.pictures, *filter(None, (places.masks, places.snapshot))):
        if _SOURCE not in place:
            stem = Path(place)
            hint = f"{stem.with_name(f'{stem.stem}-{_SOURCE}{stem.suffix}')}"
            raise UsageError(
                f"{sink_name(place)} cannot hold {len(sources)} sources; put {_SOURCE} into the name, such as {hint}"
            )


def _outlets(
    places: Places,
    source: Source,
    policy: Policy,
    reporter: Reporter,
    pipeline: Pipeline,
    stack: contextlib.ExitStack,
) -> Outlets:
    """Open everything that is written for a source, each in a thread of its own."""

    def threaded(opening: Any, name: str) -> SinkThread[Any]:
        return stack.enter_context(SinkThread(opening, name=name, policy=policy, on_event=reporter.event))

    def own(place: str) -> str:
        return place.replace(_SOURCE, source.name)

    rate = None if source.live else source.frames_per_second
    pictures = []
    for place in map(own, places.pictures):
        opening = open_sink(
            place,
            frames_per_second=rate,
            count=source.count,
            live=source.live,
            on_event=reporter.event,
            on_stop=pipeline.stop,
        )
        pictures.append(threaded(opening, sink_name(place)))
    if places.snapshot is not None:
        pictures.append(threaded(snapshot_sink(Path(own(places.snapshot)), count=source.count), own(places.snapshot)))
    labels = [threaded(folder_sink(Path(own(places.masks))), own(places.masks))] if places.masks is not None else []
    return Outlets(pictures, labels, reporter.records(places.records, source, threaded))


class Reporter:
    """What is said while a pipeline runs: events as lines, and a line of status for whoever looks at a terminal."""

    def __init__(self) -> None:
        self.frames = 0
        self.viewer: Viewer | None = None
        self.ages_ms: deque[float] = deque(maxlen=_KEPT_AGES)
        self.counts: Counter[tuple[str, str]] = Counter()
        self._start_s = time.monotonic()
        self._recent: deque[float] = deque(maxlen=30)
        self._dropped: Counter[str] = Counter()
        self._told_s = self._start_s
        self._shown_s = 0.0
        self._records: SinkThread[Any] | None = None
        self._on_terminal = sys.stderr.isatty()
        self._lock = threading.Lock()

    @property
    def frames_per_second(self) -> float | None:
        """Of the latest answers."""
        if len(self._recent) < 2:
            return None
        return (len(self._recent) - 1) / max(self._recent[-1] - self._recent[0], 1e-6)

    def saw(self, age_ms: float) -> None:
        """Count an answer."""
        self.frames += 1
        self.ages_ms.append(age_ms)
        self._recent.append(time.monotonic())
        self._show_status()

    def event(self, event: Event) -> None:
        """Say what happened, in one line; dropped frames are summed up."""
        if self.viewer is not None:
            self.viewer.event(event)
        with self._lock:
            self.counts[event.source, event.kind] += max(1, event.count)
            if event.kind != "dropped":
                self._line(event.line())
                return
            self._dropped[event.source] += event.count
            if time.monotonic() - self._told_s >= _DROPS_EVERY_S:
                self._tell_dropped()

    def records(self, place: str | None, source: Source, threaded: Any) -> list[SinkThread[Any]]:
        """Return the sink for lines of JSON, which is the same for all sources."""
        if place is None:
            return []
        if self._records is None:
            opening = record_lines(place, live=source.live, on_event=self.event)
            self._records = threaded(opening, "standard output" if place == "-" else place)
        return [self._records]

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Within the block the status is shown; at its end the terminal is left clean."""
        try:
            yield
        finally:
            with self._lock:
                self._tell_dropped()
                if self._on_terminal:
                    print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _tell_dropped(self) -> None:
        seconds = time.monotonic() - self._told_s
        for name, count in self._dropped.items():
            self._line(f"{name}: dropped: {count} in {seconds:.0f} s, to stay fresh")
        self._dropped.clear()
        self._told_s = time.monotonic()

    def _line(self, line: str) -> None:
        if self._on_terminal:
            print("\r\x1b[K", end="", file=sys.stderr)
        note(line)

    def _show_status(self) -> None:
        now = time.monotonic()
        if not self._on_terminal or now - self._shown_s < _STATUS_EVERY_S:
            return
        self._shown_s = now
        rate = self.frames_per_second or 0.0
        with self._lock:
            status = f"{self.frames} frames, {rate:.1f} a second, {self.ages_ms[-1]:.0f} ms old when done"
            print(f"\r\x1b[K{status}", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _heard(stop: Any, pipeline: Pipeline) -> Iterator[None]:
    """Within the block a signal ends the pipeline, even while no frame comes that could be asked after."""
    done = threading.Event()

    def listen() -> None:
        while not done.wait(_HEARING_S):
            if stop():
                pipeline.stop()
                return

    thread = threading.Thread(target=listen, name="sfpp-signals", daemon=True)
    thread.start()
    try:
        with stop.heard_within():
            yield
    finally:
        done.set()
        thread.join()


def _report(pipeline: Pipeline, reporter: Reporter, places: Places, sources: Sequence[Source]) -> None:
    """Print the stages, frames, ages and what was written."""
    for warning in pipeline.warnings:
        warn(warning)
    if not reporter.frames:
        print("no frame came")
        return
    # Standard output may be the place of the frames themselves.
    out = sys.stderr if any(place == "-" or place.startswith("raw://-") for place in places.all()) else sys.stdout
    for line in pipeline.timer.summary():
        print(line, file=out)
    dropped = sum(pipeline.dropped.values())
    names = ", ".join(source.name for source in sources)
    p50, p99 = np.percentile(reporter.ages_ms, (50, 99))
    print(f"{reporter.frames} frames of {names}, {dropped} dropped", file=out)
    print(f"age from a frame's coming to its answer: {p50:.0f} ms (median), {p99:.0f} ms (99 %)", file=out)
    for place in places.all():
        for source in sources if _SOURCE in place else sources[:1]:
            print(f"wrote {sink_name(place.replace(_SOURCE, source.name))}", file=out)
