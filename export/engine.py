"""The command ``sfpp-engine``: engines for TensorRT and TensorRT-RTX, and what would prevent them."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from sfpp.runtime.cli.console import Bars, command_parser, example_source, report, run_command
from sfpp.runtime.errors import UsageError
from sfpp.runtime.files import check_destinations
from sfpp.runtime.options import add_options, options_of
from sfpp.runtime.tensorrt.building import EngineSettings
from sfpp.runtime.tensorrt.engines import EngineReport, build_engine
from sfpp.runtime.tensorrt.library import LIBRARIES
from sfpp.runtime.tensorrt.sidecar import SUFFIX, sidecar_of

COMMAND = "sfpp-engine"
_DESCRIPTION = """\
Build an engine for an NVIDIA GPU from an ONNX file, with TensorRT or TensorRT-RTX, and put its
contract beside it: what it takes and gives, what it was built with and for, and the hash of the file.
The engine's precision is the file's: sfpp-export writes float32, sfpp-calibrate float16 and INT8."""
_EPILOG = """\
which library:
  tensorrt      Jetson, data centre and desktop. An engine runs with the version and on the kind of card
                that it was built with, so it is built on the machine that runs it; that takes minutes.
  tensorrt-rtx  RTX cards, compute capability 7.5 and 8.0 on. Engines are built on any machine, without a
                card, in seconds, and compiled to the end when they are first run.

examples:
  sfpp-engine model.onnx                                    model.engine and model.json, for here
  sfpp-engine model.fp16.onnx --backend tensorrt-rtx        for all RTX cards from the 30 series on
  sfpp-engine model.int8.onnx --backend tensorrt-rtx --device sm89 -o ada.engine
  sfpp-engine model.fp16.onnx --workspace 512MiB --timing-cache times.bin      a Jetson with little memory
  sfpp-engine model.onnx --check                            what each version says of the file; builds nothing
  sfpp-engine model.onnx --bounds                           frames a second at most, by published peaks
  sfpp-engine --doctor                                      what is installed here, and what to do first
then:
  sfpp-run model.engine --self-test                         does it answer as the file did?
  sfpp-run model.engine demo
exit codes: 0 built, or nothing found that prevents it; 1 failed, or found; 2 wrong usage, 130 stopped by Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = engine_parser().parse_args(argv)

    def work(arguments: argparse.Namespace) -> int:
        _check_usage(arguments)
        return _work_of(arguments)(arguments)

    return run_command(COMMAND, arguments, work)


def _work_of(arguments: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    return _doctor if arguments.doctor else _bounds if arguments.bounds else _check if arguments.check else _build


def _check_usage(arguments: argparse.Namespace) -> None:
    """Refuse options that say nothing together.

    Raises:
        UsageError: no model where one is needed, or an option without the one that it belongs to.
    """
    if arguments.model is None and not arguments.doctor:
        raise UsageError("MODEL is missing; give the .onnx file, or --doctor to look at this machine")
    if arguments.doctor + arguments.bounds + arguments.check > 1:
        raise UsageError("--check, --bounds and --doctor each print something of their own; give one of them")
    if arguments.measured and not arguments.bounds:
        raise UsageError("--measured is compared with bounds; give --bounds too")
    if arguments.json and not arguments.doctor:
        raise UsageError("--json is for --doctor; give that too")


def engine_parser() -> argparse.ArgumentParser:
    """Return the parser; it imports nothing heavy."""
    parser = command_parser(COMMAND, description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="the .onnx file; with --check also one of another tool")
    add("-o", "--path", metavar="FILE", help="the engine to write (default: named after MODEL, beside it)")
    add(
        "--backend",
        choices=LIBRARIES,
        help="the library to build with (default: what is installed, TensorRT first)",
    )
    add_options(parser, EngineSettings, *(field.name for field in fields(EngineSettings)))
    add("--contract", metavar="FILE", help="what the model takes and gives, for a file that does not say so itself")
    add(
        "--check",
        action="store_true",
        help="build nothing: say what each TensorRT from 8.6 on and TensorRT-RTX would make of the file, by node, "
        "and what NVIDIA's own parser and builder say where they are installed",
    )
    add(
        "--bounds",
        action="store_true",
        help="build nothing: say how many frames a second the file can reach at most on Jetsons and cards, by what it "
        "computes and moves and by their published peaks; measures nothing",
    )
    add(
        "--measured",
        metavar="JSON",
        action="append",
        help="with --bounds: what sfpp-bench --json wrote on a device, which is set against its bound; may be repeated",
    )
    add(
        "--doctor",
        action="store_true",
        help="build nothing: say what is installed on this machine, what does not fit together, and what to do first",
    )
    add(
        "--json",
        action="store_true",
        help="with --doctor: as JSON, for a report of a bug; it names no user and no host",
    )
    return parser


def _build(arguments: argparse.Namespace) -> int:
    from sfpp.runtime.contract import read_contract_file

    if arguments.contract:
        engine = Path(arguments.path) if arguments.path else Path(arguments.model).with_suffix(SUFFIX)
        check_destinations(sidecar_of(engine), also_read=[arguments.contract])
    with Bars(COMMAND) as bars:
        done = build_engine(
            arguments.model,
            arguments.path,
            backend=arguments.backend,
            settings=EngineSettings(**options_of(arguments, EngineSettings)),
            contract=read_contract_file(arguments.contract) if arguments.contract else None,
            notify=bars.say,
            progress=bars,
        )
    report(describe(done))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from sfpp.export.check.installed import check, checked_text  # needs onnx, which a device may lack

    with Bars(COMMAND) as bars:
        found = check(arguments.model, backend=arguments.backend, notify=bars.say, progress=bars)
    print(checked_text(found))
    return 0 if found.builds else 1


def _bounds(arguments: argparse.Namespace) -> int:
    from sfpp.export.bounds import bounds_of, bounds_text  # needs onnx, which a device may lack

    print(bounds_text(bounds_of(arguments.model, measured=arguments.measured or ())))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from sfpp.runtime.doctor.looking import look
    from sfpp.runtime.doctor.words import report_json, report_text

    print((report_json if arguments.json else report_text)(look()))
    return 0


def describe(done: EngineReport) -> str:
    """Return what was built, what for, and the next command."""
    contract, spec = done.contract, done.contract.input
    record = contract.engine
    assert record is not None
    where = ", ".join(record.devices) or ("cards from sm80 on" if record.library == "tensorrt-rtx" else "this card")
    card = f" ({record.card})" if record.card else ""
    engine = shlex.quote(str(done.path))
    has_test = contract.self_test is not None
    return "\n".join(
        [
            f"{done.path}  ({done.size_bytes / 1e6:.1f} MB, {done.seconds:.1f} s)",
            f"  {contract.family}-{contract.size} {contract.variant}, {spec.width}x{spec.height} (width x height), "
            f"{contract.precision}, for {where}{card}, {record.library} {record.version}",
            f"  contract: {done.sidecar}; keep it beside the engine",
            f"next: sfpp-run {engine} {'--self-test' if has_test else example_source(contract.task)}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
