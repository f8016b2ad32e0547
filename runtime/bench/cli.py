"""The command ``sfpp-bench``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sfpp.runtime.backends.choice import AUTO
from sfpp.runtime.bench.settings import BenchSettings
from sfpp.runtime.cli.console import INTERRUPTED, command_parser, example_source, notes_of, report, run_command
from sfpp.runtime.files import check_destinations
from sfpp.runtime.options import add_options

if TYPE_CHECKING:
    from sfpp.runtime.bench.report import BenchReport

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
exit codes: 0 done, 1 nothing could be measured or a model gives wrong results (its self-test failed), 2 wrong
usage, 130 stopped by Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(COMMAND, bench_parser().parse_args(argv), _run)


def _run(arguments: argparse.Namespace) -> int:
    from sfpp.runtime.bench import bench  # not at the top: --help must be instant

    options = vars(arguments)
    json_path, chart_path = options.pop("json"), options.pop("chart")
    _check_outputs(arguments, json_path, chart_path)
    found = bench(**options, notify=_note)
    print(found.table())
    if json_path is not None:
        found.write_json(json_path)
        report(f"wrote {json_path}")
    if chart_path is not None:
        found.write_chart(chart_path)
        report(f"wrote {chart_path}")
    # After the files: a run of an hour is worth keeping, also when it was cut short.
    if found.interrupted:
        _note("stopped early: what was measured until then is above")
        return INTERRUPTED
    report(f"next: {next_command(found)}")
    if found.wrong:
        _note(f"{len(found.wrong)} of {len(found.rows)} give wrong results and were not measured; what failed is above")
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
    option = f" --precision {precision}" if precision else ""
    return f"sfpp-run {shlex.quote(fastest.model)} {example_source(fastest.task)}{backend}{option}"


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
    parser = command_parser(COMMAND, description=_DESCRIPTION, epilog=_EPILOG)
    add_options(parser, BenchSettings, "models", "backends")
    add_options(parser.add_argument_group("what the models see"), BenchSettings, "image", "input_shapes", "threads")
    add_options(parser.add_argument_group("how long"), BenchSettings, "runs", "warmup", "seconds")
    group = parser.add_argument_group("what is measured besides, and written")
    add_options(group, BenchSettings, "profile", "peak", "memory", "self_test")
    group.add_argument("--json", metavar="FILE", help="everything, including each sample and the machine's description")
    group.add_argument("--chart", metavar="FILE", help="a chart as .svg or .png; needs matplotlib")
    return parser


if __name__ == "__main__":
    sys.exit(main())
