"""`sfpp-run` on cameras and streams, on several sources, or with a page in the browser."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sfpp.runtime.commands.options import given
from sfpp.runtime.commands.places import Opening, Plan, outlet_name
from sfpp.runtime.commands.pose import opened_finder
from sfpp.runtime.commands.reporter import Reporter
from sfpp.runtime.commands.session import SIGNAL_EXIT, note, print_written, self_test_line, warn
from sfpp.runtime.errors import UsageError
from sfpp.runtime.pose import PoseEstimator
from sfpp.runtime.segmentation import Segmenter
from sfpp.runtime.video.delivery import Delivery, draw_with
from sfpp.runtime.video.frame import Source
from sfpp.runtime.video.pipeline import Pipeline
from sfpp.runtime.video.sinks.push import is_receiver
from sfpp.runtime.video.sinks.thread import Policy
from sfpp.runtime.video.stopping import stop_on_signals

if TYPE_CHECKING:
    from sfpp.runtime.viewer import Viewer

_HEARING_S = 0.1


def run_live(
    arguments: argparse.Namespace,
    model: Segmenter | PoseEstimator,
    sources: Sequence[Source],
    plan: Plan,
    reporter: Reporter,
) -> int:
    """Run until the sources end or a signal asks to stop, print what was done, and return the exit code.

    Args:
        arguments: of the command line.
        model: what is run.
        sources: opened.
        plan: what is written.
        reporter: told of events by the sources already.

    Raises:
        SfppError: a source, an outlet or the model failed.
    """
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        viewer = _viewer(arguments, model, stack)
        reporter.viewer = viewer
        pipeline = stack.enter_context(_pipeline(arguments, model, sources, reporter, stack))
        note(f"policy {pipeline.policy}: " + _policy_words(pipeline))
        outlets = Opening(stack, pipeline.policy_of, reporter.event, pipeline.stop).outlets(plan, sources)
        drawing = given(arguments, "alpha", "legend", "threshold")
        delivery = Delivery(draw_with(**drawing), outlets, viewer, model.self_test)
        stack.enter_context(_heard(stop, pipeline))
        with reporter.shown():
            for answer in pipeline:
                reporter.saw(answer.age_ms)
                delivery.take(answer)
                if arguments.max_frames is not None and reporter.frames >= arguments.max_frames:
                    break
    failed = _failed(plan.all(), reporter)
    _report(pipeline, reporter, plan, failed, self_test_line(model.self_test))
    if stop.signal_number:
        return SIGNAL_EXIT + stop.signal_number
    return 1 if failed else 0


_POLICY_WORDS: dict[Policy, str] = {
    "freshest": "frames that are old by the time the model is free are dropped",
    "every-frame": "no frame is dropped, and the sources wait",
}


def _policy_words(pipeline: Pipeline) -> str:
    waiting = [source.name for source in pipeline.sources if pipeline.policy_of(source) != pipeline.policy]
    return _POLICY_WORDS[pipeline.policy] + (f", but none of {', '.join(waiting)}" if waiting else "")


def _pipeline(
    arguments: argparse.Namespace,
    model: Segmenter | PoseEstimator,
    sources: Sequence[Source],
    reporter: Reporter,
    stack: contextlib.ExitStack,
) -> Pipeline:
    if arguments.every > 1:
        raise UsageError("--every is for files with one output each; a pipeline takes what the model can: leave it off")
    options: dict[str, Any] = given(arguments, "policy", "smooth")
    if isinstance(model, PoseEstimator):
        finder, _ = stack.enter_context(opened_finder(arguments))
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
        self_test=model.self_test,
        host=host,
        port=port,
        token=arguments.token,
    )
    stack.enter_context(viewer)
    note(f"open {viewer.url} in a browser")
    return viewer


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


def _failed(places: Sequence[str], reporter: Reporter) -> dict[str, str]:
    """Return the places that were not written, or not to the end, with what to say of each."""
    failed = {}
    for place in places:
        name = outlet_name(place)
        if reporter.has_failed(name):
            failed[place] = f"not all was written to {name}; why is said above"
        elif is_receiver(place) and not reporter.was_opened(name):
            failed[place] = f"nothing was sent to {name}, which was never connected; check that a server listens there"
    return failed


def _report(pipeline: Pipeline, reporter: Reporter, plan: Plan, failed: dict[str, str], self_test: str) -> None:
    """Print the stages, the self-test, frames, ages and what was written."""
    for warning in (*pipeline.warnings, *failed.values()):
        warn(warning)
    # Standard output may be the place of the frames themselves.
    file = sys.stderr if plan.writes_to_standard_output() else sys.stdout
    if not reporter.frames:
        print("no frame came", file=file)
        return
    names = ", ".join(source.name for source in pipeline.sources)
    for line in pipeline.timer.summary():
        print(line, file=file)
    print(self_test, file=file)
    print(f"{reporter.frames} frames of {names}, {sum(pipeline.dropped.values())} dropped", file=file)
    print(reporter.ages_line(), file=file)
    print_written((place for place in plan.all() if place not in failed), file=file)
