"""The command ``sfpp-calibrate``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from sfpp.calibration.settings import CalibrationSettings
from sfpp.runtime.cli.console import Bars, command_parser, example_source, report, run_command
from sfpp.runtime.options import add_options

COMMAND = "sfpp-calibrate"

_DESCRIPTION = """\
Make FP16 and INT8 files of a float32 model, and measure what each loses and how fast it is.
Precision is written into the ONNX file, so that every TensorRT and every CPU backend obeys it.
The answer may be "keep FP32 here": INT8 is often slower on a CPU, and this command says so."""

_EPILOG = """\
what it writes, into the folder of -o:
  NAME.fp16.onnx          float16, except where that was measured to cost accuracy
  NAME.int8.onnx          int8 products (Q/DQ), the rest in float32 or float16 (--rest)
  NAME.calibration.html   accuracy, speed, what was kept out and why, pictures of what changed
  NAME.calibration.json   the same as data

examples:
  sfpp-calibrate model.onnx --images frames/                       compared with the float32 labels
  sfpp-calibrate model.onnx --images frames/ --labels labels/ --max-drop 0.5
  sfpp-calibrate model.onnx --images drive.mp4 --precision fp16
  sfpp-calibrate crack.onnx --images photos/ --labels masks/ --label-map 255=1    masks of 0 and 255
  sfpp-calibrate city.onnx --images leftImg8bit/train --validation leftImg8bit/val --labels gtFine/val
  sfpp-calibrate pose.onnx --images crops/ --labels person_keypoints.json
  sfpp-calibrate model.onnx --images frames/ --rest fp16 --frames 128 -o engines/

validation frames are never calibrated with, unless there is only one."""
_GROUPS = {
    "frames": ("images", "validation", "labels", "boxes", "frames", "held_out", "select", "seed"),
    "what label images mean": ("label_offset", "label_map", "ignore"),
    "precision": ("precision", "max_drop", "ranges", "rest"),
    "measuring and output": ("output", "backends", "latency", "cache", "contract"),
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; it imports nothing heavy."""
    parser = command_parser(COMMAND, description=_DESCRIPTION, epilog=_EPILOG)
    add_options(parser, CalibrationSettings, "model")
    for title, names in _GROUPS.items():
        add_options(parser.add_argument_group(title), CalibrationSettings, *names)
    return parser


def command() -> int:
    """Run the command as a program of its own, supervised, and return its exit code."""
    from sfpp.tooling.supervised import supervised  # main needs none of it

    return supervised(COMMAND, main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command here and return its exit code."""
    return run_command(COMMAND, build_parser().parse_args(argv), _run)


def _run(arguments: argparse.Namespace) -> int:
    from sfpp.calibration import calibrate
    from sfpp.calibration.summary import recommended, summary_lines

    with Bars() as bars:
        found = calibrate(**vars(arguments), notify=bars.say, progress=bars)
    print("\n".join(summary_lines(found)))
    report(f"report: {CalibrationSettings(**vars(arguments)).page_path}")
    report(f"next: sfpp-run {shlex.quote(str(recommended(found).path))} {example_source(found.contract.task)}")
    return 0 if found.budget_held is not False else 1


if __name__ == "__main__":
    sys.exit(command())
