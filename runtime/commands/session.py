"""What every run of `sfpp-run` needs whatever its task: outputs, progress, signals, the printed end."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from sfpp.runtime.commands.options import COMMAND
from sfpp.runtime.model import SelfTestState
from sfpp.runtime.video.frame import Source
from sfpp.runtime.video.outputs import Outputs, open_keypoints, open_outputs
from sfpp.runtime.video.run import RunReport, expected_frames
from sfpp.runtime.video.sinks.opening import Sink, sink_name
from sfpp.runtime.video.sinks.records import KeypointsFile
from sfpp.runtime.video.stopping import StopRequest, stop_on_signals

# Shells report a program that a signal has ended as this plus the signal's number.
SIGNAL_EXIT = 128


@dataclass(frozen=True, eq=False)
class Session:
    """An opened run: sinks, and in ``loop`` the arguments that the loop over the frames takes for every task."""

    overlays: list[Sink]
    masks: list[Sink]
    keypoints: list[KeypointsFile]
    loop: dict[str, Any]
    stop: StopRequest

    def exit_code(self, report: RunReport[Any]) -> int:
        """Return 0, or what shells expect of a program that a signal has ended."""
        return SIGNAL_EXIT + self.stop.signal_number if report.stopped and self.stop.signal_number else 0


@contextlib.contextmanager
def open_session(arguments: argparse.Namespace, source: Source, outputs: Outputs) -> Iterator[Session]:
    """Open the outputs and hear signals; at the end of the block the outputs are complete.

    Raises:
        SfppError: an output cannot be written.
    """
    frames = {"every": arguments.every, "max_frames": arguments.max_frames}
    with (
        stop_on_signals() as stop,
        open_outputs(outputs, source, **frames) as (overlays, masks),
        open_keypoints(outputs) as keypoints,
        stop.heard_within(),
        _progress(expected_frames(source, **frames)) as on_frame,
    ):
        loop = {**frames, "should_stop": stop, "on_frame": on_frame}
        yield Session(overlays, masks, keypoints, loop, stop)


def print_report(
    report: RunReport[Any],
    outputs: Outputs,
    source: Source,
    *,
    self_test: SelfTestState,
    about: str = "",
    stages: bool = True,
) -> None:
    """Print the ``stages`` and the self-test, how many frames there were (with ``about`` them), what was written."""
    for line in report.timer.summary() if stages else ():
        print(line)
    if stages:
        print(self_test_line(self_test))
    ending = ": stopped early, and what is written is complete" if report.stopped else ""
    print(f"{report.frames} frame{'s' * (report.frames != 1)} of {source.name}{about}{ending}")
    print_written(outputs.all())


def self_test_line(state: SelfTestState) -> str:
    """Return how the model's self-test stands, in a line."""
    return f"self-test: {state}{'; do not trust these answers' * (state.outcome == 'failed')}"


def print_written(places: Iterable[str], *, file: TextIO | None = None) -> None:
    """Print what was written, a line a place; addresses without what may be secret."""
    for place in places:
        print(f"wrote {sink_name(place)}", file=file)


def warn(line: str) -> None:
    """Print a warning on stderr."""
    note(f"warning: {line}")


def note(line: str) -> None:
    """Print a line on stderr, where it is not part of the result."""
    print(f"{COMMAND}: {line}", file=sys.stderr)


@contextlib.contextmanager
def _progress(expected: int | None) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr, if a person looks at it and there is more than one frame to wait for."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda done: None
        return
    hidden = expected == 1 or not sys.stderr.isatty()
    with tqdm(total=expected, unit="frame", disable=hidden, file=sys.stderr) as bar:
        yield lambda done: bar.update(1)
