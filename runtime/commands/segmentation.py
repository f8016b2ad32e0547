"""`sfpp-run` with a segmentation model."""

from __future__ import annotations

import argparse

from sfpp.runtime.commands.options import given
from sfpp.runtime.commands.session import open_session, print_report, warn
from sfpp.runtime.segmentation import Segmentation, Segmenter
from sfpp.runtime.video.frame import Source
from sfpp.runtime.video.outputs import Outputs
from sfpp.runtime.video.segmentation_run import run_segmentation

_SMALLEST_SHARE = 0.0005


def segment(arguments: argparse.Namespace, model: Segmenter, source: Source, outputs: Outputs) -> int:
    """Segment until the source ends or a signal asks to stop, print what was done, and return the exit code."""
    with open_session(arguments, source, outputs) as session:
        report = run_segmentation(
            model,
            source,
            session.overlays,
            masks=session.masks,
            **given(arguments, "alpha", "legend"),
            **session.loop,
        )
    for warning in report.warnings:
        warn(warning)
    if report.frames == 1:
        _print_shares(report.last)
    print_report(report, outputs, source, self_test=model.self_test, stages=len(arguments.sources) == 1)
    return session.exit_code(report)


def _print_shares(result: Segmentation) -> None:
    shares = {name: share for name, share in result.shares().items() if share >= _SMALLEST_SHARE}
    width = max(map(len, shares))
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"{name:<{width}}  {share:6.1%}")
    print()
