"""The command ``sfpp-bench``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sfpp.runtime.bench.options import COMMAND, bench_parser
from sfpp.runtime.bench.settings import AUTO
from sfpp.runtime.cli.console import exit_code_of
from sfpp.runtime.files import check_destinations

if TYPE_CHECKING:
    from sfpp.runtime.bench.report import BenchReport

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = bench_parser().parse_args(argv)
    return exit_code_of(COMMAND, lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    import logging

    from sfpp.runtime.bench import bench  # not at the top: --help must be instant
    from sfpp.runtime.bench.inputs import input_shape

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


def _note(line: str) -> None:
    print(f"{COMMAND}: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
