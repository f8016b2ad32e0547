"""`sfpp-run` with a pose model."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from sfpp.runtime.commands.options import given
from sfpp.runtime.commands.session import note, open_session, print_report, warn
from sfpp.runtime.people import choose_finder
from sfpp.runtime.people.detections import PersonFinder
from sfpp.runtime.pose import PoseEstimator
from sfpp.runtime.video.frame import Source
from sfpp.runtime.video.outputs import Outputs
from sfpp.runtime.video.pose_run import PoseReport, TrackedPose, run_pose


@contextlib.contextmanager
def opened_finder(arguments: argparse.Namespace) -> Iterator[tuple[PersonFinder, str]]:
    """Open what finds people, and print how; it serves one source after the other.

    Yields:
        It, and the line that was printed.

    Raises:
        SfppError: it cannot be opened.
    """
    finder, line = choose_finder(**given(arguments, "detector", "boxes", "person", "threads"))
    note(line)
    with contextlib.closing(finder):
        yield finder, line


def estimate_pose(
    arguments: argparse.Namespace,
    model: PoseEstimator,
    source: Source,
    outputs: Outputs,
    *,
    finder: PersonFinder,
    found_by: str,
) -> int:
    """Estimate until the source ends or a signal asks to stop, print what was done, and return the exit code."""
    with open_session(arguments, source, outputs) as session:
        report = run_pose(
            model,
            source,
            session.overlays,
            finder=finder,
            keypoints=session.keypoints,
            **given(arguments, "detect_every", "threshold"),
            **session.loop,
        )
    for warning in report.warnings:
        warn(warning)
    if not report.people:
        # Overlays without a line on them look like a failure; how people were found explains them.
        warn(f"nobody is shown in any frame; {found_by}")
    if report.frames == 1:
        _print_people(report.last)
    print_report(
        report,
        outputs,
        source,
        self_test=model.self_test,
        about=_people_words(report),
        stages=len(arguments.sources) == 1,
    )
    return session.exit_code(report)


def _people_words(report: PoseReport) -> str:
    if report.frames == 1:
        return f", {report.people} {'person' if report.people == 1 else 'people'}"
    nobody = f", nobody in {report.empty_frames} of them" if report.empty_frames else ""
    return f", {report.people_per_frame:.1f} people a frame{nobody}"


def _print_people(tracked: TrackedPose) -> None:
    names = tracked.pose.names
    width = max(map(len, names))
    for row, identity in enumerate(tracked.ids):
        print(f"person {identity}, mean score {tracked.pose.scores[row].mean():.2f}")
        for name, (x, y), score in zip(names, tracked.pose.keypoints_xy[row], tracked.pose.scores[row], strict=True):
            print(f"  {name:<{width}}  {x:7.1f} {y:7.1f}  {score:4.2f}")
        print()
