"""The command ``sfpp-parity``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial

from sfpp.export.parity.settings import ParitySettings
from sfpp.export.settings import PreparationOptions
from sfpp.runtime.cli.console import Bars, command_parser, report, run_command
from sfpp.runtime.files import check_destinations
from sfpp.runtime.options import add_options, options_of

COMMAND = "sfpp-parity"
_DISAGREES = 1

_DESCRIPTION = """\
Does a model file predict what PyTorch does? Run both on the same frames and compare: the outputs, and
every part of the network, so that an error is found where it arises. For files of any precision and
target; the tolerances are those of the precision."""

_EPILOG = """\
what is compared:
  outputs   labels at the frames' own size (for pose, keypoints), the largest and the mean error of
            the logits, and with --labels the accuracy of both sides
  parts     what each attention, feed-forward network and norm computes, by the names that
            sfpp-export gives to a graph's nodes. PyTorch goes in step: each part is given the
            graph's own values, so its "own error" is what it adds by itself, relative to what it
            computes. "so far" is the error with everything before it.
PyTorch prepares the frames as the checkpoint was trained, whatever the file's metadata say: as what lies
beside the weights tells, else RGB with ImageNet's mean and std. Where the file was exported with other
options than the checkpoint's, give the same ones here.

free and pinned (variants that match tokens: hq, fast, recipes with bsm):
  In a clear sky hundreds of tokens are alike to the last bit. Which of them is merged with which is
  then a matter of rounding, and two sound implementations differ a little.
  free      each side matches by itself; says what a user sees, and has a loose tolerance
  pinned    PyTorch is given the graph's matching, and must then agree as closely as without merging;
            each choice of the graph must be as good as PyTorch's best one up to rounding

examples:
  sfpp-parity segformer-b0-fast-960x540.onnx                 made from the demonstration weights
  sfpp-parity city.onnx --weights iter_160000.pth --images street.mp4 --frames 20
  sfpp-parity city.int8.onnx --weights iter_160000.pth --images val/ --labels val_labels/
  sfpp-parity crack.onnx --weights crack/ --images photos/ --labels masks/ --label-map 255=1
  sfpp-parity city.onnx --weights iter_160000.pth --backend openvino --precision bf16
  sfpp-parity city.onnx --weights iter_160000.pth --json parity.json --html parity.html
exit codes: 0 the file agrees, 1 it does not (the report is printed and written all the same) or failed,
2 wrong usage, 130 stopped by Ctrl-C."""
_GROUPS = {
    "which frames": ("images", "frames", "labels"),
    "what label images mean": ("label_offset", "label_map", "ignore"),
    "how the training prepared images": (*(field.name for field in fields(PreparationOptions)), "res"),
    "how the file runs, and how tokens are matched": (
        "backend",
        "precision",
        "threads",
        "mode",
        "threshold",
        "contract",
    ),
}


def parity_parser() -> argparse.ArgumentParser:
    """Return the parser; it imports nothing heavy."""
    parser = command_parser(COMMAND, description=_DESCRIPTION, epilog=_EPILOG)
    add_options(parser, ParitySettings, "model", "weights")
    for title, names in _GROUPS.items():
        add_options(parser.add_argument_group(title), ParitySettings, *names)
    group = parser.add_argument_group("what is written besides")
    group.add_argument("--json", metavar="FILE", help="everything, as JSON")
    group.add_argument("--html", metavar="FILE", help="everything, as one page with pictures of what differs")
    return parser


def command() -> int:
    """Run the command as a program of its own, supervised, and return its exit code."""
    from sfpp.tooling.supervised import supervised  # main needs none of it

    return supervised(COMMAND, main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command here and return its exit code."""
    return run_command(COMMAND, parity_parser().parse_args(argv), _run)


def _run(arguments: argparse.Namespace) -> int:
    read = (arguments.model, arguments.weights, arguments.images, arguments.contract)
    check_destinations(arguments.json, arguments.html, also_read=read)
    # Not at the top: --help must not wait for torch.
    from sfpp.export.parity import parity
    from sfpp.export.parity.report_text import next_command, report_text, write_html

    with Bars(COMMAND, unit="frame") as bars:
        found = parity(**options_of(arguments, ParitySettings), notify=bars.say, progress=partial(bars, ""))
    print(report_text(found))
    if arguments.json is not None:
        found.write_json(arguments.json)
        report(f"wrote {arguments.json}")
    if arguments.html is not None:
        write_html(found, arguments.html)
        report(f"wrote {arguments.html}")
    report(f"next: {next_command(found)}")
    return 0 if found.agrees else _DISAGREES


if __name__ == "__main__":
    sys.exit(command())
