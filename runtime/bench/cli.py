"""The command ``sfpp-bench``."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sfpp.runtime.bench.settings import AUTO
from sfpp.runtime.cli.console import exit_code_of, notes_of, positive_int
from sfpp.runtime.files import check_destinations

if TYPE_CHECKING:
    from sfpp.runtime.bench.report import BenchReport

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
COMMAND = "sfpp-bench"
_note = notes_of(COMMAND)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = bench_parser().parse_args(argv)
    return exit_code_of(COMMAND, lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    import logging

    from sfpp.runtime.bench import bench  # not at the top: --help must be instant
    from sfpp.runtime.bench.measured_model import input_shape

    options = vars(arguments)
    json_path, chart_path = options.pop("json"), options.pop("chart")
    _check_outputs(arguments, json_path, chart_path)
    options["input_shapes"] = dict(input_shape(text) for text in arguments.input_shapes)
    logging.getLogger("sfpp").addHandler(logging.NullHandler())  # its warnings are printed once, by ``_note``
    report = bench(**options, notify=_note)
    print(report.table())
    if json_path is not None:
        report.write_json(json_path)
        print(f"wrote {json_path}")
    if chart_path is not None:
        report.write_chart(chart_path)
        print(f"wrote {chart_path}")
    # After the files: a run of an hour is worth keeping, also when it was cut short.
    if report.interrupted:
        _note("stopped early: what was measured until then is above")
        return _INTERRUPTED
    print(f"next: {next_command(report)}")
    if report.wrong:
        _note(f"{len(report.wrong)} of {len(report.rows)} answer wrongly and were not measured; what failed is above")
        return 1
    return 0


def next_command(report: BenchReport) -> str:
    """Return the command that uses the fastest model, or for one without a contract shows where its time goes."""
    fastest = min(report.measured, key=lambda row: row.network.p50_ms if row.network else float("inf"))
    name, _, precision = fastest.backend.partition(":")
    backend = "" if name == AUTO else f" --backend {name}"
    if fastest.task is None:  # without a contract, sfpp-run does not know what to do with it
        spec = "" if fastest.backend == AUTO else f" --backend {fastest.backend}"
        return f"{COMMAND} {shlex.quote(fastest.model)}{spec} --profile"
    wish = f" --precision {precision}" if precision else ""
    clip = "demo" if fastest.task == "segmentation" else "PEOPLE.mp4"
    return f"sfpp-run {shlex.quote(fastest.model)} {clip}{backend}{wish}"


def _check_outputs(arguments: argparse.Namespace, json_path: str | None, chart_path: str | None) -> None:
    """Refuse what could not be written, or would take a model's place, before minutes are spent on measuring it."""
    from sfpp.runtime.bench.chart import check_chart
    from sfpp.runtime.tensorrt.sidecar import files_of_model

    if chart_path is not None:
        check_chart(Path(chart_path))
    models = [file for model in arguments.models for file in files_of_model(Path(model))]
    check_destinations(json_path, chart_path, also_read=[*models, arguments.image])


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


if __name__ == "__main__":
    sys.exit(main())
