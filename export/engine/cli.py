"""The command ``sfpp-engine``."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sfpp.export.engine.options import COMMAND, engine_parser
from sfpp.runtime.cli.console import exit_code_of, notes_of, progress_bar
from sfpp.runtime.files import check_destinations
from sfpp.runtime.tensorrt.building import EngineSettings, PhaseProgress, bytes_from, devices_from
from sfpp.runtime.tensorrt.engines import EngineReport, build_engine
from sfpp.runtime.tensorrt.sidecar import SUFFIX, sidecar_of

# What is over sooner needs no bar.
_PATIENCE_S = 2.0
_note = notes_of(COMMAND)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = engine_parser().parse_args(argv)
    return exit_code_of(COMMAND, lambda: _check(arguments) if arguments.check else _build(arguments))


def _build(arguments: argparse.Namespace) -> int:
    from sfpp.runtime.model_file import read_contract_file

    if arguments.contract:
        engine = Path(arguments.path) if arguments.path else Path(arguments.model).with_suffix(SUFFIX)
        check_destinations(sidecar_of(engine), also_read=[arguments.contract])
    with _progress() as progress:
        report = build_engine(
            arguments.model,
            arguments.path,
            backend=arguments.backend,
            settings=_settings(arguments),
            contract=read_contract_file(arguments.contract) if arguments.contract else None,
            notify=_note,
            progress=progress,
        )
    print(describe(report))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from sfpp.export.engine.checking import check, checked_text  # needs onnx, which a device may lack

    with _progress() as progress:
        found = check(arguments.model, backend=arguments.backend, notify=_note, progress=progress)
    print(checked_text(found))
    return 0 if found.builds else 1


def _settings(arguments: argparse.Namespace) -> EngineSettings:
    return EngineSettings(
        devices=devices_from(arguments.device),
        workspace_bytes=None if arguments.workspace is None else bytes_from(arguments.workspace),
        timing_cache=None if arguments.timing_cache is None else Path(arguments.timing_cache),
        dla=arguments.dla,
        version_compatible=arguments.version_compatible,
        hardware_compatible=arguments.hardware_compatible,
    )


def describe(report: EngineReport) -> str:
    """Return what was built, what for, and the next command."""
    contract, spec = report.contract, report.contract.input
    record = contract.engine
    assert record is not None
    where = ", ".join(record.devices) or ("cards from sm80 on" if record.library == "tensorrt-rtx" else "this card")
    card = f" ({record.card})" if record.card else ""
    engine = shlex.quote(str(report.path))
    has_test = contract.self_test is not None
    clip = "demo" if contract.task == "segmentation" else "PEOPLE.mp4"
    return "\n".join(
        [
            f"{report.path}  ({report.size_bytes / 1e6:.1f} MB, {report.seconds:.1f} s)",
            f"  {contract.family}-{contract.size} {contract.variant}, {spec.width}x{spec.height} (width x height), "
            f"{contract.precision}, for {where}{card}, {record.library} {record.version}",
            f"  contract: {report.sidecar}; keep it beside the engine",
            f"next: sfpp-run {engine} {'--self-test' if has_test else clip}",
        ]
    )


@contextlib.contextmanager
def _progress() -> Iterator[PhaseProgress]:
    """A bar on stderr for the builder's current phase, if a person looks at it and it takes a while."""
    with progress_bar(delay=_PATIENCE_S, leave=False) as bar:

        def update(phase: str, done: int, total: int) -> None:
            if bar is None:
                return
            bar.set_description(phase, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        yield update


if __name__ == "__main__":
    sys.exit(main())
