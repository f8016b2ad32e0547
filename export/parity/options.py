"""The options of ``sfpp-parity``."""

from __future__ import annotations

import argparse

from sfpp.runtime.backends import PRECISIONS, backend_names
from sfpp.runtime.cli.console import positive_int

COMMAND = "sfpp-parity"

_DESCRIPTION = """\
Does a model file answer as PyTorch does? Run both on the same frames and compare: the answers, and
every part of the network, so that an error is told where it arises. For files of any precision and
target; the tolerances are those of the precision."""

_EPILOG = """\
what is compared:
  answers   labels at the frames' own size (for pose, keypoints), the largest and the mean error of
            the logits, and with --labels the accuracy of both sides
  parts     what each attention, feed-forward network and norm computes, by the names that
            sfpp-export gives to a graph's nodes. PyTorch goes in step: each part is given the
            graph's own values, so its "own error" is what it adds by itself, relative to what it
            computes. "so far" is the error with everything before it.
PyTorch prepares the frames as the checkpoint was trained, whatever the file's contract says: RGB,
ImageNet's mean and std (a Transformers folder tells its own).

free and pinned (variants that match tokens: hq, fast, recipes with bsm):
  In a clear sky hundreds of tokens are alike to the last bit. Which of them is merged with which is
  then a matter of rounding, and two sound implementations answer a little differently.
  free      each side matches by itself; says what a user sees, and is judged loosely
  pinned    PyTorch is given the graph's matching, and must then agree as closely as without merging;
            each choice of the graph must be as good as PyTorch's best one up to rounding

examples:
  sfpp-parity segformer-b0-fast-960x540.onnx                 made from the demonstration weights
  sfpp-parity city.onnx --weights iter_160000.pth --images street.mp4 --frames 20
  sfpp-parity city.int8.onnx --weights iter_160000.pth --images val/ --labels val_labels/ --ignore 255
  sfpp-parity city.onnx --weights iter_160000.pth --backend openvino --precision bf16
  sfpp-parity city.onnx --weights iter_160000.pth --json parity.json --html parity.html
exit codes: 0 the file agrees, 1 it does not (the report is printed and written all the same) or failed,
2 wrong usage, 130 stopped by Ctrl-C."""


def parity_parser() -> argparse.ArgumentParser:
    """Return the parser; it imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="the file that sfpp-export or sfpp-calibrate wrote")
    parser.add_argument(
        "--weights",
        metavar="PATH",
        help="the checkpoint that it was exported from (default: the demonstration model, if it was made from that)",
    )
    _add_frames(parser)
    _add_running(parser)
    group = parser.add_argument_group("what is written besides")
    group.add_argument("--json", metavar="FILE", help="everything, as JSON")
    group.add_argument("--html", metavar="FILE", help="everything, as one page with pictures of what differs")
    return parser


def _add_frames(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which frames")
    group.add_argument(
        "--images",
        metavar="PATH",
        help="an image, a folder of images or a video (default: a picture that comes with sfpp); for pose models each "
        "picture is taken for one person",
    )
    group.add_argument(
        "--frames",
        type=positive_int,
        default=8,
        metavar="N",
        help="how many, spread evenly over the source (default: %(default)s)",
    )
    group.add_argument(
        "--labels", metavar="DIR", help="label pictures (PNG, class numbers) named like the frames: accuracy of both"
    )
    group.add_argument(
        "--ignore",
        type=int,
        default=255,
        metavar="N",
        help="the label pictures' value of pixels that do not count (default: %(default)s)",
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how the file runs, and how tokens are matched")
    group.add_argument(
        "--backend",
        default="onnxruntime",
        choices=("auto", *backend_names()),
        metavar="NAME",
        help="what runs it: onnxruntime, the strictest (default), another backend, or auto, as sfpp-run would choose: "
        f"{', '.join(backend_names())}",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="what the backend computes in (default: its own choice; OpenVINO takes bf16 where the CPU has it)",
    )
    group.add_argument(
        "--threads", type=positive_int, metavar="N", help="threads within an operator (default: all cores)"
    )
    group.add_argument(
        "--mode",
        choices=("free", "pinned", "both"),
        default="both",
        help="each side matches tokens by itself, PyTorch takes the graph's matching, or both (default: %(default)s)",
    )
    group.add_argument("--contract", metavar="FILE", help="JSON with the contract of a file that carries none")
