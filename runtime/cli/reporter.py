"""What `sfpp-run` says while frames come, and at the end."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from sfpp.runtime.cli.console import COMMAND, notes_of, progress_bar, report, terminal
from sfpp.runtime.events import Event
from sfpp.runtime.model import SelfTestState
from sfpp.runtime.video.pipeline import Answer, Pipeline
from sfpp.runtime.video.sinks.opening import output_from

if TYPE_CHECKING:
    from sfpp.runtime.viewer import Viewer

# Dropped frames are the rule for a live source; a line each second would hide what else happens.
_DROPS_EVERY_S = 10.0
_KEPT_AGES = 100_000
_OLD_MS = 500.0  # labels of things that move this long before are beside them, however well they are carried
_WELL, _FAIRLY = 0.6, 0.4  # mean belief in carried labels
_PROBLEMS = ("lost", "gave-up", "sink-failed")  # events that --quiet does not hold back

note = notes_of(COMMAND)
announce = notes_of(COMMAND, always=True)


def warn(line: str) -> None:
    """Print a warning on stderr."""
    note(f"warning: {line}")


def self_test_line(state: SelfTestState) -> str:
    """Return how the model's self-test stands, in a line."""
    return f"self-test: {state}{'; do not trust these answers' * (state.outcome == 'failed')}"


def print_written(outputs: Iterable[str], *, file: TextIO | None = None) -> None:
    """Print what was written, a line for each output; addresses without what may be secret."""
    for text in outputs:
        report(f"wrote {output_from(text).name}", file=file)


class _Carried:
    """Of how many frames the labels were carried, and from how many; counted, since a camera runs for weeks."""

    def __init__(self) -> None:
        self.count = 0
        self._frames = 0
        self._keys = 0
        self._key_of: dict[str, int] = {}
        self._beliefs: list[float] = [0.0, 0.0]  # their sum, and how many

    def add(self, answer: Answer) -> None:
        """Count an answer; those of a source come in order, and so do the frames that their labels come from."""
        source, from_key = answer.frame.source, getattr(answer.result, "from_key", None)
        key = answer.frame.index if from_key is None else from_key.index
        self._frames += 1
        self._keys += key != self._key_of.get(source)
        self._key_of[source] = key
        if from_key is not None:
            self.count += 1
            if from_key.belief is not None:
                self._beliefs = [self._beliefs[0] + from_key.belief, self._beliefs[1] + 1]

    def lines(self, *, asked: bool) -> Iterator[str]:
        """Yield a line, if labels were carried, or ``asked`` for and never could be."""
        if not (self.count or asked):
            return
        saw = f"the network saw {self._keys} of {self._frames} frames"
        total, count = self._beliefs
        if not count:  # none was carried, or keypoints, which go on lines and not along what is seen
            yield saw
            return
        belief = total / count
        how = "well" if belief >= _WELL else "fairly well" if belief >= _FAIRLY else "badly"
        more = "" if belief >= _FAIRLY else "; let it see more of them"
        yield f"{saw}; the motion to the others was followed {how} (trusted to {belief:.0%}){more}"


class Reporter:
    """Events as lines, progress for whoever looks at a terminal, and what is printed at the end of a run.

    Attributes:
        viewer: takes the events too.
        seen: the names of the sources of which this run has had a frame.
    """

    def __init__(self) -> None:
        self.viewer: Viewer | None = None
        self._counts: Counter[tuple[str, str]] = Counter()
        self._dropped: Counter[str] = Counter()
        self._told_s = time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._lock = threading.RLock()
        self._bar: Any = None
        self._begin()

    def _begin(self) -> None:
        self.seen: set[str] = set()
        self._frames = 0
        self._frames_by_people: Counter[int] = Counter()  # and not a list: a camera runs for weeks
        self._last: Any = None
        self._ages_ms: deque[float] = deque(maxlen=_KEPT_AGES)
        self._labels_ages_ms: deque[float] = deque(maxlen=_KEPT_AGES)
        self._carried = _Carried()

    @contextlib.contextmanager
    def run(self, pipeline: Pipeline) -> Iterator[None]:
        """Within the block, which is one run, progress is shown; at its end the terminal is left clean."""
        self._begin()
        try:
            # Of one frame there is nothing to see.
            expected = pipeline.expected
            with progress_bar(total=expected, unit="frame", hidden=expected == 1) as self._bar:
                yield
        finally:
            self._bar = None
            with self._lock:
                self._tell_dropped()
                self._clear()

    def saw(self, answer: Answer) -> None:
        """Count an answer."""
        self._frames += 1
        self.seen.add(answer.frame.source)
        self._last = answer.result
        if isinstance(answer.result, Sized):
            self._frames_by_people[len(answer.result)] += 1
        self._ages_ms.append(answer.age_ms)
        self._labels_ages_ms.append(answer.labels_age_ms)
        self._carried.add(answer)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{answer.age_ms:.0f} ms old when done", refresh=False)
            self._bar.update(1)

    def event(self, event: Event) -> None:
        """Say what happened, in one line; dropped frames are summed up."""
        if self.viewer is not None:
            self.viewer.event(event)
        with self._lock:
            self._counts[event.source, event.kind] += max(1, event.count)
            if event.kind != "dropped":
                self._line(event.line(), announce if event.kind in _PROBLEMS else note)
                return
            self._dropped[event.source] += event.count
            if time.monotonic() - self._told_s >= _DROPS_EVERY_S:
                self._tell_dropped()

    def unwritten(self, outputs: Iterable[str]) -> dict[str, str]:
        """Return the outputs that were not written, or not to the end, with what to say of each."""
        failed = {}
        for text in outputs:
            output = output_from(text)
            name = output.thread_name
            if self._counts[name, "sink-failed"] or self._counts[name, "gave-up"]:
                failed[text] = f"not all was written to {name}; why is said above"
            elif output.kind == "receiver" and not self._counts[name, "opened"]:
                failed[text] = (
                    f"nothing was sent to {name}, which was never connected; check that a server listens there"
                )
        return failed

    def finish(
        self,
        pipeline: Pipeline,
        *,
        found_by: str = "",
        self_test: SelfTestState | None = None,
        advice: str | None = None,
        file: TextIO | None = None,
    ) -> None:
        """Print what one run has found, how fast it was, and how many frames there were.

        Args:
            pipeline: that was run.
            found_by: how people are found, which explains that nobody was.
            self_test: the model's; None leaves it and the table of stages to the end of all runs.
            advice: a line on how it would run better.
            file: where to print; None is standard output.
        """
        for warning in pipeline.warnings:
            warn(warning)
        if not self._frames:
            print("no frame came", file=file)
            return
        if self._frames_by_people and not self._people():
            # Overlays without a line on them look like a failure; how people were found explains them.
            warn(f"nobody is shown in any frame; {found_by}")
        if self._frames == 1:
            print(*self._last.summary(), sep="\n", file=file)
            report("", file=file)
        lines = [] if self_test is None else [*pipeline.timer.summary(), self_test_line(self_test)]
        asked = pipeline.motion.still or not pipeline.motion.key_every.is_every_frame
        lines += [self._frames_line(pipeline), *self._carried.lines(asked=asked), *self._age_lines(pipeline)]
        for line in (*lines, *([] if advice is None else [advice])):
            report(line, file=file)

    def _people(self) -> int:
        return sum(count * frames for count, frames in self._frames_by_people.items())

    def _frames_line(self, pipeline: Pipeline) -> str:
        names = ", ".join(source.name for source in pipeline.sources if source.name in self.seen)
        dropped = f", {sum(pipeline.dropped.values())} dropped" if pipeline.policy != "every-frame" else ""
        ending = ": stopped early, and what is written is complete" if pipeline.stopped else ""
        return f"{self._frames} frame{'s' * (self._frames != 1)} of {names}{self._people_words()}{dropped}{ending}"

    def _people_words(self) -> str:
        if not self._frames_by_people:
            return ""
        people, nobody = self._people(), self._frames_by_people[0]
        if self._frames == 1:
            return f", {people} {'person' if people == 1 else 'people'}"
        return f", {people / self._frames:.1f} people a frame" + (f", nobody in {nobody} of them" if nobody else "")

    def _age_lines(self, pipeline: Pipeline) -> Iterator[str]:
        if not any(source.live for source in pipeline.sources):
            return
        p50, p99 = np.percentile(self._ages_ms, (50, 99))
        yield f"age from a frame's coming to its answer: {p50:.0f} ms (median), {p99:.0f} ms (99 %)"
        if not self._carried.count:
            return
        p50, p99 = np.percentile(self._labels_ages_ms, (50, 99))
        yield f"age of the labels, from frames that the network saw: {p50:.0f} ms (median), {p99:.0f} ms (99 %)"
        # What does not move needs no newer ones.
        if p50 > _OLD_MS and not pipeline.motion.still:
            warn(
                f"labels are old, {p50 / 1000:.1f} s in the median: what moves or comes in may be labeled wrong; "
                "take a faster model, or fewer sources"
            )

    def _tell_dropped(self) -> None:
        seconds = time.monotonic() - self._told_s
        for name, count in self._dropped.items():
            self._line(f"{name}: dropped: {count} in {seconds:.0f} s, to stay fresh")
        self._dropped.clear()
        self._told_s = time.monotonic()

    def _line(self, line: str, say: Callable[[str], None] = note) -> None:
        self._clear()
        say(line)

    def _clear(self) -> None:
        if self._on_terminal:
            print("\r\x1b[K", end="", file=terminal(), flush=True)
