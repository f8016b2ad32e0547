"""sfpp-run: segment an image, a folder, a video or a camera's pictures."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from sfpp.runtime.arguments import exit_code_of, positive_int, unit_interval

if TYPE_CHECKING:
    from sfpp.runtime.segmentation import Segmentation, Segmenter
    from sfpp.runtime.video.frames import Source
    from sfpp.runtime.video.outputs import Outputs
    from sfpp.runtime.video.run import RunReport

_COMMAND = "sfpp-run"
_SIGNAL_EXIT = 128  # shells report a program ended by a signal as this plus the signal's number
_SMALLEST_SHARE = 0.0005

_EPILOG = """\
examples:
  sfpp-run model.onnx demo                        the clip that ships with sfpp, to highway-sfpp.mp4
  sfpp-run model.onnx street.mp4                  to street-sfpp.mp4 in the current folder
  sfpp-run model.onnx street.mp4 out/street.mkv   to this file
  sfpp-run model.onnx photo.jpg                   to photo-sfpp.png, and the share of each class
  sfpp-run model.onnx images/ overlays/           a folder of images, one picture each
  sfpp-run model.onnx street.mp4 --masks labels/  only the labels: PNGs whose pixels are class numbers
  sfpp-run model.onnx 0 camera.mp4                a webcam, until Ctrl-C

Ctrl-C ends the run after the current frame; what was written until then is complete and can be played.
exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args(argv)
    return exit_code_of(_COMMAND, lambda: _run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_COMMAND,
        description="Segment an image, a folder of images, a video or a webcam's pictures with an exported model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="the .onnx file that sfpp-export wrote")
    parser.add_argument(
        "input", metavar="INPUT", help="an image, a folder, a video, a webcam's number, or the word demo"
    )
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        nargs="?",
        help="the frames with the classes' colors over them: .mp4, .mov or .mkv for a video (H.264), .png or .jpg for "
        "a picture, a name without suffix or with a final / for a folder (default: named after INPUT)",
    )
    _add_frame_options(parser)
    _add_output_options(parser)
    _add_model_options(parser)
    return parser


def _add_frame_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which frames")
    group.add_argument("--max-frames", type=positive_int, metavar="N", help="stop after N segmented frames")
    group.add_argument(
        "--every", type=positive_int, default=1, metavar="N", help="take every Nth frame only (default: %(default)s)"
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is written")
    group.add_argument(
        "--masks", metavar="DIR", help="write label values as PNGs into DIR; without OUTPUT, nothing else is written"
    )
    group.add_argument(
        "--snapshot", metavar="FILE", help="also write one picture from the middle of the run, to look at"
    )
    group.add_argument(
        "--alpha",
        type=unit_interval,
        default=0.5,
        metavar="X",
        help="weight of the colors, 0 to 1 (default: %(default)s)",
    )
    group.add_argument("--no-legend", dest="legend", action="store_false", help="leave the classes' names out")


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--threads", type=positive_int, metavar="N", help="threads within an operator (default: all cores)"
    )
    group.add_argument("--contract", metavar="FILE", help="the contract as JSON, for an ONNX file that carries none")


def _run(arguments: argparse.Namespace) -> int:
    # Not at the top: --help must not wait for OpenCV, the inference library and the video library.
    from sfpp.runtime.model_file import load, read_contract_file
    from sfpp.runtime.video.outputs import Outputs, check_outputs, default_overlay
    from sfpp.runtime.video.sources import open_source

    with open_source(arguments.input) as source:
        # Masks alone are a reason to run: then nothing else is written unless it is asked for.
        named = arguments.output or (None if arguments.masks else default_overlay(source))
        outputs = Outputs(overlay=named, masks=arguments.masks, snapshot=arguments.snapshot)
        check_outputs(outputs, source)  # before the model is loaded, which may take a while
        contract = read_contract_file(arguments.contract) if arguments.contract else None
        with load(arguments.model, contract=contract, threads=arguments.threads, notify=_note) as model:
            report, code = _segment(arguments, model, source, outputs)
    _print_report(report, outputs, source)
    return code


def _segment(
    arguments: argparse.Namespace, model: Segmenter, source: Source, outputs: Outputs
) -> tuple[RunReport, int]:
    """Run until the source ends or a signal asks to stop; return the report and the exit code."""
    from sfpp.runtime.video.outputs import open_outputs
    from sfpp.runtime.video.run import expected_frames, run_segmentation
    from sfpp.runtime.video.stopping import stop_on_signals

    every, max_frames = arguments.every, arguments.max_frames
    expected = expected_frames(source, every=every, max_frames=max_frames)
    with (
        stop_on_signals() as stop,
        open_outputs(outputs, source, every=every, max_frames=max_frames) as (overlays, masks),
        stop.heard_within(),
        _progress(expected) as on_frame,
    ):
        report = run_segmentation(
            model,
            source,
            overlays,
            masks=masks,
            every=every,
            max_frames=max_frames,
            alpha=arguments.alpha,
            legend=arguments.legend,
            should_stop=stop,
            on_frame=on_frame,
        )
    code = _SIGNAL_EXIT + stop.signal_number if report.stopped and stop.signal_number else 0
    return report, code


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


def _print_report(report: RunReport, outputs: Outputs, source: Source) -> None:
    for warning in report.warnings:
        print(f"{_COMMAND}: warning: {warning}", file=sys.stderr)
    if report.frames == 1:
        _print_shares(report.last)
    for line in report.timer.summary():
        print(line)
    ending = ": stopped early, and what is written is complete" if report.stopped else ""
    print(f"{report.frames} frame{'s' * (report.frames != 1)} of {source.name}{ending}")
    for path in outputs.paths():
        print(f"wrote {path}")


def _print_shares(result: Segmentation) -> None:
    shares = {name: share for name, share in result.shares().items() if share >= _SMALLEST_SHARE}
    width = max(map(len, shares))
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"{name:<{width}}  {share:6.1%}")
    print()


def _note(line: str) -> None:
    print(f"{_COMMAND}: {line}", file=sys.stderr)
