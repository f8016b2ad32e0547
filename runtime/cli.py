"""sfpp-run: segment an image, a folder, a video or a camera's pictures, or find people's keypoints in them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sfpp.runtime.arguments import exit_code_of
from sfpp.runtime.commands.options import COMMAND, check_options, files_read, parsed

if TYPE_CHECKING:
    from sfpp.runtime.pose import PoseEstimator
    from sfpp.runtime.segmentation import Segmenter


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = parsed(argv)
    return exit_code_of(COMMAND, lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    # Not at the top: --help must not wait for OpenCV, the inference library and the video library.
    from sfpp.runtime.commands.pose import estimate_pose
    from sfpp.runtime.commands.segmentation import segment
    from sfpp.runtime.commands.self_test import passes_self_test
    from sfpp.runtime.commands.session import outputs_of
    from sfpp.runtime.pose import PoseEstimator
    from sfpp.runtime.video.outputs import check_outputs
    from sfpp.runtime.video.sources import open_source

    if arguments.input is None:
        with _loaded(arguments) as model:
            return 0 if passes_self_test(model) else 1
    with open_source(arguments.input) as source:
        outputs = outputs_of(arguments, source)
        # Before the model is loaded, which may take a while.
        check_outputs(outputs, source, also_read=files_read(arguments))
        with _loaded(arguments) as model:
            check_options(arguments, model.contract.task)
            if arguments.self_test and not passes_self_test(model):
                return 1
            if isinstance(model, PoseEstimator):
                return estimate_pose(arguments, model, source, outputs)
            return segment(arguments, model, source, outputs)


def _loaded(arguments: argparse.Namespace) -> Segmenter | PoseEstimator:
    from sfpp.runtime.commands.session import note
    from sfpp.runtime.model_file import load, read_contract_file

    return load(
        arguments.model,
        contract=read_contract_file(arguments.contract) if arguments.contract else None,
        backend=arguments.backend,
        precision=arguments.precision,
        threads=arguments.threads,
        build=arguments.build,
        flip_test=bool(arguments.flip_test),
        notify=note,
    )
