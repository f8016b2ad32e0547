"""The options of `sfpp-bench`."""

from __future__ import annotations

import argparse
import math

from sfpp.runtime.cli.console import positive_int

COMMAND = "sfpp-bench"

_DESCRIPTION = """\
Measure models side by side: latency percentiles, memory, load time, operators, and how near
they come to what this machine can do. All models take turns, round by round, so that what else
the machine does slows them alike; compare their ratios rather than figures of different runs."""

_EPILOG = """\
examples:
  sfpp-bench model.onnx                                  one model, as sfpp-run would run it
  sfpp-bench original.onnx fast.onnx                     how many times as fast the second is
  sfpp-bench fast.onnx --backend onnxruntime openvino:fp32 openvino:bf16
  sfpp-bench fast.onnx --profile --no-peak               which operators take the time
  sfpp-bench original.onnx fast.onnx --json out.json --chart out.svg
  sfpp-bench other.onnx --input-shape 1x3x1024x1024      any ONNX file, fed with random values

Models come before --backend. A backend is NAME or NAME:PRECISION, with the names auto, onnxruntime,
onnxruntime-cuda, onnxruntime-tensorrt, openvino, tensorrt and tensorrt-rtx, and the precisions fp32,
bf16 and fp16.
Ctrl-C ends the measuring and prints what there is until then.
exit codes: 0 done, 1 nothing could be measured or a model answers wrongly (its self-test failed), 2 wrong
usage, 130 stopped by Ctrl-C.
"""


def bench_parser() -> argparse.ArgumentParser:
    """Return the parser of `sfpp-bench`; it imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", metavar="MODEL", nargs="+", help="an .onnx file that sfpp-export wrote, or any other")
    parser.add_argument(
        "--backend",
        dest="backends",
        metavar="SPEC",
        nargs="+",
        action="extend",
        default=[],
        help="library and precision, such as openvino:bf16 (default: auto, what sfpp-run chooses)",
    )
    _add_input_options(parser)
    _add_length_options(parser)
    _add_outputs(parser)
    return parser


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what the models see")
    group.add_argument(
        "--image", metavar="FILE", help="picture (default: one of the shipped clip, brought to each model's size)"
    )
    group.add_argument(
        "--input-shape",
        dest="input_shapes",
        metavar="[NAME:]SHAPE",
        action="append",
        default=[],
        help="sizes of an input that a foreign model leaves open, such as 1x3x512x512; once for each such input",
    )
    group.add_argument(
        "--threads", type=positive_int, metavar="N", help="threads within an operator (default: all cores)"
    )


def _add_length_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how long")
    group.add_argument(
        "--runs", type=positive_int, default=30, metavar="N", help="rounds, at most (default: %(default)s)"
    )
    group.add_argument(
        "--warmup", type=_count, default=2, metavar="N", help="runs before the first round (default: %(default)s)"
    )
    group.add_argument(
        "--seconds",
        type=_positive_number,
        default=60.0,
        metavar="S",
        help="no round begins later, but for the first three (default: %(default)g)",
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is measured besides, and written")
    group.add_argument("--profile", action="store_true", help="time by operator, in runs of their own")
    group.add_argument(
        "--no-peak",
        dest="peak",
        action="store_false",
        help="leave out this machine's best in matrix products and copies",
    )
    group.add_argument(
        "--no-memory", dest="memory", action="store_false", help="leave out peak memory, which loads each model again"
    )
    group.add_argument(
        "--no-self-test",
        dest="self_test",
        action="store_false",
        help="measure also what answers otherwise than when it was exported; by default each file's self-test is "
        "replayed on its first use in a backend, and what fails it is not measured",
    )
    group.add_argument("--json", metavar="FILE", help="everything, each sample and the machine's description included")
    group.add_argument("--chart", metavar="FILE", help="a chart as .svg or .png; needs matplotlib")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} given, expected a whole number from 0")
    return int(text)


def _positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} given, expected a number above 0")
    return value
