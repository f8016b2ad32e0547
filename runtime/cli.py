"""sfpp-run: segment an image, a folder, a video or a camera's pictures, or find people's keypoints in them."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sfpp.runtime.arguments import exit_code_of
from sfpp.runtime.commands.options import COMMAND, asks_for_live, check_options, files_read, parsed

if TYPE_CHECKING:
    from sfpp.runtime.pose import PoseEstimator
    from sfpp.runtime.segmentation import Segmenter
    from sfpp.runtime.video.frames import Source


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = parsed(argv)
    return exit_code_of(COMMAND, lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    # Not at the top: --help must not wait for OpenCV, the inference library and the video library.
    from sfpp.runtime.commands.live import run_live
    from sfpp.runtime.commands.places import places_of
    from sfpp.runtime.commands.reporter import Reporter
    from sfpp.runtime.video.sources import open_source

    if not arguments.sources:
        with _loaded(arguments) as model:
            return 0 if _passes_self_test(model) else 1
    reporter = Reporter()
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(open_source(text, on_event=reporter.event)) for text in arguments.sources]
        if not asks_for_live(arguments) and not sources[0].live:
            return _run_file(arguments, sources[0])
        # Before the model is loaded, which may take a while.
        places = places_of(arguments, sources)
        model = _loaded(arguments)
        stack.callback(model.close)
        check_options(arguments, model.contract.task)
        if arguments.self_test and not _passes_self_test(model):
            return 1
        return run_live(arguments, model, sources, places, reporter)


def _run_file(arguments: argparse.Namespace, source: Source) -> int:
    """Run one source that waits: every frame, and files that appear when they are complete."""
    from sfpp.runtime.commands.pose import estimate_pose
    from sfpp.runtime.commands.segmentation import segment
    from sfpp.runtime.commands.session import outputs_of
    from sfpp.runtime.pose import PoseEstimator
    from sfpp.runtime.video.outputs import check_outputs

    outputs = outputs_of(arguments, source)
    check_outputs(outputs, source, also_read=files_read(arguments))
    with _loaded(arguments) as model:
        check_options(arguments, model.contract.task)
        if arguments.self_test and not _passes_self_test(model):
            return 1
        if isinstance(model, PoseEstimator):
            return estimate_pose(arguments, model, source, outputs)
        return segment(arguments, model, source, outputs)


def _loaded(arguments: argparse.Namespace) -> Segmenter | PoseEstimator:
    import logging

    from sfpp.runtime.commands.session import note
    from sfpp.runtime.model_file import load, read_contract_file

    logging.getLogger("sfpp").addHandler(logging.NullHandler())  # its warnings are printed once, by ``note``
    return load(
        arguments.model,
        contract=read_contract_file(arguments.contract) if arguments.contract else None,
        backend=arguments.backend,
        precision=arguments.precision,
        threads=arguments.threads,
        build=arguments.build,
        flip_test=bool(arguments.flip_test),
        # Asked for, it comes right after: in a library that was named, no other one would take over before.
        self_test=arguments.self_test is None or (arguments.self_test and arguments.backend is None),
        notify=note,
    )


def _passes_self_test(model: Segmenter | PoseEstimator) -> bool:
    """Replay the model's own frame, print how that came out, and return whether it is as expected."""
    from sfpp.runtime.self_test import self_test

    result = self_test(model)
    model.self_test = result.state
    print(result.text())
    return result.passed
