"""The command ``sfpp-calibrate``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfpp.runtime.cli.console import exit_code_of, positive_int
from sfpp.runtime.cli.supervised import supervised

if TYPE_CHECKING:
    from sfpp.calibration.results import CalibrationReport

COMMAND = "sfpp-calibrate"

_DESCRIPTION = """\
Make FP16 and INT8 files of a float32 model, and measure what each loses and how fast it is.
Precision is written into the ONNX file, so that every TensorRT and every CPU backend obeys it.
The answer may be "keep FP32 here": INT8 is often slower on a CPU, and this command says so."""

_EPILOG = """\
what it writes, into the folder of -o:
  NAME.fp16.onnx          float16, except where measuring says that it would harm
  NAME.int8.onnx          int8 products (Q/DQ), the rest in float32 or float16 (--rest)
  NAME.calibration.html   accuracy, speed, what was kept out and why, pictures of what changed
  NAME.calibration.json   the same as data

examples:
  sfpp-calibrate model.onnx --images frames/                       judged by the float32 labels
  sfpp-calibrate model.onnx --images frames/ --labels labels/ --max-drop 0.5
  sfpp-calibrate model.onnx --images drive.mp4 --precision fp16
  sfpp-calibrate pose.onnx --images crops/ --labels person_keypoints.json
  sfpp-calibrate model.onnx --images frames/ --rest fp16 --frames 128 -o engines/

frames to judge by are never calibrated with, unless there is only one."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; it imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL.onnx", help="the float32 file that sfpp-export wrote")
    _add_frames(parser.add_argument_group("frames"))
    _add_precision(parser.add_argument_group("precision"))
    _add_output(parser.add_argument_group("measuring and output"))
    return parser


def _add_frames(group: Any) -> None:
    add = group.add_argument
    add("--images", required=True, metavar="DIR|VIDEO|LIST", help="pictures, a video, or a .txt with one path a line")
    add("--judge-by", metavar="DIR|VIDEO|LIST", help="other frames to judge by (default: some of --images, held out)")
    add("--labels", metavar="DIR|FILE", help="the truth: label pictures named like the frames; for pose COCO or .npz")
    add("--ignore", type=int, metavar="N", help="label value that does not count (default: the one beyond the classes)")
    add("--boxes", metavar="FILE", help="for pose: people's boxes (COCO); without, a picture is one person's crop")
    add("--frames", type=positive_int, default=64, metavar="N", help="to calibrate with (default: %(default)s)")
    add("--held-out", type=positive_int, default=24, metavar="N", help="others to judge by (default: %(default)s)")
    add(
        "--select",
        choices=("diverse", "random"),
        default="diverse",
        help="frames that look least alike, or any (default: %(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of the choice (default: %(default)s)")


def _add_precision(group: Any) -> None:
    add = group.add_argument
    add("--precision", type=_names, default=("fp16", "int8"), metavar="LIST", help="fp16, int8 or both: fp16,int8")
    add(
        "--max-drop",
        type=float,
        metavar="X",
        help="what INT8 may lose: points of mIoU or PCK with --labels, else per cent of answers; what it harms most "
        "is then kept out of it (default: no limit)",
    )
    add(
        "--ranges",
        choices=("auto", "minmax", "entropy", "percentile"),
        default="auto",
        help="how INT8's ranges are cut; auto takes what does least harm (default: %(default)s)",
    )
    add(
        "--rest",
        choices=("fp32", "fp16"),
        help="what an INT8 file computes in elsewhere: fp16 for GPUs, fp32 for CPUs (default: by the export's target)",
    )


def _add_output(group: Any) -> None:
    add = group.add_argument
    add("-o", "--output", metavar="DIR", default=".", help="folder to write to (default: the current one)")
    add("--backend", dest="backends", nargs="+", default=(), metavar="NAME", help="where to time, as for sfpp-bench")
    add("--no-latency", dest="latency", action="store_false", help="do not time the files")
    add("--no-cache", dest="cache", action="store_false", help="observe ranges anew, and do not keep them")
    add("--contract", metavar="FILE", help="facts about a model that carries none (JSON)")


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def command() -> int:
    """Run the command as a program of its own, supervised, and return its exit code."""
    return supervised(COMMAND, main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command here and return its exit code."""
    arguments = build_parser().parse_args(argv)
    return exit_code_of(COMMAND, lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from sfpp.calibration import calibrate  # not at the top: --help must not wait for onnx
    from sfpp.calibration.calibrating import report_paths
    from sfpp.calibration.progress import Bars
    from sfpp.calibration.report.page import summary_lines

    with Bars() as bars:
        report = calibrate(**vars(arguments), notify=bars.say, progress=bars)
    print("\n".join(summary_lines(report)))
    page, _ = report_paths(report.model, Path(arguments.output))
    print(f"report: {page}")
    print(f"next: {_next(report)}")
    return 0 if report.budget_held is not False else 1


def _next(report: CalibrationReport) -> str:
    """Return the command to go on with: the recommended file on the shipped clip, or on a GPU the engine."""
    chosen = next(each for each in report.files if each.precision == report.recommendation.precision)
    source = "demo" if report.contract.task == "segmentation" else "PEOPLE.mp4"
    return f"sfpp-run {shlex.quote(str(chosen.path))} {source}"


if __name__ == "__main__":
    sys.exit(command())
