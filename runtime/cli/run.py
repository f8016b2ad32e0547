"""sfpp-run: segment an image, a folder, a video or a camera's pictures, or find people's keypoints in them."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sfpp.runtime.cli.console import exit_code_of
from sfpp.runtime.commands.options import (
    COMMAND,
    asks_for_live,
    check_options,
    check_sources,
    parsed,
    told_of_second,
)

if TYPE_CHECKING:
    from sfpp.runtime.commands.places import Plan
    from sfpp.runtime.commands.reporter import Reporter
    from sfpp.runtime.people.detections import PersonFinder
    from sfpp.runtime.pose import PoseEstimator
    from sfpp.runtime.segmentation import Segmenter
    from sfpp.runtime.video.frame import Source


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = parsed(argv)
    return exit_code_of(COMMAND, lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    # Not at the top: --help must not wait for OpenCV, the inference library and the video library.
    from sfpp.runtime.commands.live import run_live
    from sfpp.runtime.commands.places import plan_for
    from sfpp.runtime.commands.reporter import Reporter
    from sfpp.runtime.commands.session import note
    from sfpp.runtime.video.sinks.opening import folder_sink

    if not arguments.sources:
        with _loaded(arguments) as model:
            return 0 if _passes_self_test(model) else 1
    if (hint := told_of_second(arguments)) is not None:
        note(hint)
    reporter = Reporter()
    with contextlib.ExitStack() as stack:
        sources, waiting = _opened(arguments, reporter, stack)
        # Before the model is loaded, which may take a while.
        check_sources(arguments)
        plan = plan_for(arguments, sources, live=not waiting)
        model = _loaded(arguments)
        stack.callback(model.close)
        check_options(arguments, model.contract.task)
        if arguments.self_test and not _passes_self_test(model):
            return 1
        for folder in plan.shared:
            stack.enter_context(folder_sink(folder))  # it is made, and taken away if nothing comes into it
        if waiting:
            return _run_files(arguments, model, sources, plan, reporter)
        return run_live(arguments, model, sources, plan, reporter)


def _opened(
    arguments: argparse.Namespace, reporter: Reporter, stack: contextlib.ExitStack
) -> tuple[list[Source], bool]:
    """Open the sources; several files only to look at them, since there may be thousands.

    Returns:
        The sources, of different names, and whether they wait: they run one after the other then, every frame of them.
    """
    from sfpp.runtime.video.sources.opening import apart, each_source, open_source, reads_files

    arguments.sources = texts = [each for text in arguments.sources for each in each_source(text)]
    waiting = not asks_for_live(arguments)
    if waiting and len(texts) > 1 and all(map(reads_files, texts)):
        sources = []
        for text in texts:
            with open_source(text) as source:
                sources.append(source)
    else:
        sources = [stack.enter_context(open_source(text, on_event=reporter.event)) for text in texts]
        waiting = waiting and len(sources) == 1 and not sources[0].live
    for source, name in zip(sources, apart([source.name for source in sources]), strict=True):
        source.name = name
    return sources, waiting


def _run_files(
    arguments: argparse.Namespace,
    model: Segmenter | PoseEstimator,
    sources: Sequence[Source],
    plan: Plan,
    reporter: Reporter,
) -> int:
    """Run sources that wait: every frame, and files that appear when they are complete; a broken one ends no other.

    Raises:
        SfppError: the model or writing failed, or the only source.
    """
    from sfpp.runtime.commands.pose import opened_finder
    from sfpp.runtime.commands.session import note, self_test_line
    from sfpp.runtime.errors import MediaError
    from sfpp.runtime.pose import PoseEstimator
    from sfpp.runtime.video.sources.opening import open_source

    failed = []
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(opened_finder(arguments)) if isinstance(model, PoseEstimator) else None
        if len(sources) == 1:
            return _run_file(arguments, model, sources[0], plan, found)
        for text, looked_at in zip(arguments.sources, sources, strict=True):
            try:
                with open_source(text, on_event=reporter.event) as source:
                    source.name = looked_at.name
                    code = _run_file(arguments, model, source, plan, found)
            except MediaError as error:
                note(f"error: {error}; the others go on")
                failed.append(looked_at.name)
                continue
            if code:  # by a signal
                return code
    print(self_test_line(model.self_test))
    print(f"{len(sources) - len(failed)} of {len(sources)} sources are done")
    return 1 if failed else 0


def _run_file(
    arguments: argparse.Namespace,
    model: Segmenter | PoseEstimator,
    source: Source,
    plan: Plan,
    found: tuple[PersonFinder, str] | None,
) -> int:
    from sfpp.runtime.commands.pose import estimate_pose
    from sfpp.runtime.commands.segmentation import segment
    from sfpp.runtime.pose import PoseEstimator
    from sfpp.runtime.video.outputs import Outputs

    places = plan.by_source[source.name]
    outputs = Outputs(next(iter(places.pictures), None), places.masks, places.snapshot, places.keypoints)
    if isinstance(model, PoseEstimator):
        assert found is not None
        finder, found_by = found
        return estimate_pose(arguments, model, source, outputs, finder=finder, found_by=found_by)
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
