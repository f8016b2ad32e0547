"""Our graphs on an NVIDIA card against PyTorch and Transformers' export, measured on a machine without a network.

    python -m benchmarks.gpu prepare                  # here: graphs and libraries into .gpu/pieces
    python -m benchmarks.gpu measure --output out     # on the machine with the card: 9 minutes
    python -m benchmarks.gpu table out/results_cuda_full.json   # print the tables, draw the chart, keep the results

The machine with the card needs this repository, the folder .gpu/pieces, Python 3.12, PyTorch for its card, transformers
and onnx; the package itself need not be installed there. Copy the pieces in one or several transfers: `measure` says
which are missing. It goes on where an earlier run ended.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ROOT / ".gpu"


def make_importable(folder: Path = PARTS / "links") -> None:
    """Make ``sfpp`` importable where it is not installed: a folder of links to its parts, and its version."""
    if importlib.util.find_spec("sfpp") is not None:
        return
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    about = folder / f"sfpp-{version[1]}.dist-info"
    for made in (folder / "sfpp", about):
        made.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: sfpp\nVersion: {version[1]}\n", encoding="utf-8")
    parts = {part: ROOT / part for part in ("runtime", "tooling", "export", "calibration")}
    for name, place in {"__init__.py": ROOT / "package/__init__.py", **parts}.items():
        if not (link := folder / "sfpp" / name).is_symlink():
            link.symlink_to(place)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a step and return its exit code."""
    arguments = _parser().parse_args(argv)
    make_importable()
    from sfpp.runtime.cli.console import exit_code_of

    steps = {"prepare": _prepare, "measure": _measure, "table": _table}
    return exit_code_of("benchmarks.gpu", lambda: steps[arguments.step](arguments))


def _prepare(arguments: argparse.Namespace) -> int:
    from benchmarks.gpu.graphs import prepare
    from benchmarks.gpu.matrix import PRESETS
    from benchmarks.gpu.parts import Parts

    parts = Parts(arguments.folder)
    prepare(
        parts,
        PRESETS[arguments.preset],
        libraries=not arguments.no_libraries,
        fresh=arguments.fresh,
        notify=_note,
    )
    for piece in parts.pieces:
        print(f"{piece}: {piece.stat().st_size / 2**20:.1f} MiB")
    print("copy these to the machine with the card, then run there: python -m benchmarks.gpu measure --output out")
    return 0


def _measure(arguments: argparse.Namespace) -> int:
    from benchmarks.gpu.results import read_gpu_results, tables
    from benchmarks.gpu.watch import Settings, Watch

    settings = Settings(
        folder=arguments.folder,
        device=arguments.device,
        preset=arguments.preset,
        minutes=arguments.minutes,
        step_seconds=arguments.step_seconds,
        tests=not arguments.no_tests,
        retry=arguments.retry,
        output=arguments.output,
    )
    watch = Watch(settings, notify=_note)
    watch.run()
    print(tables(read_gpu_results(watch.results_path)))
    print(f"\nresults: {watch.results_path}")
    return 0


def _table(arguments: argparse.Namespace) -> int:
    from benchmarks.gpu.results import keep, read_gpu_results, tables

    results = read_gpu_results(arguments.results)
    print(tables(results))
    if arguments.chart is not None:
        from benchmarks.speed.chart import draw_growth

        networks = {row.network for row in results.rows}
        network = "b5" if "b5" in networks else min(networks, default="none")
        draw_growth(results.rows, arguments.chart, network=network, backends=["gpu:fp16", "gpu:fp32"])
        _note(f"wrote {arguments.chart}")
    if not arguments.no_keep:
        _note(f"kept as {keep(arguments.results, results.facts)}")
    return 0


def _note(line: str) -> None:
    print(f"benchmarks.gpu: {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    prepare = steps.add_parser("prepare", help="export the graphs, and pack them with the libraries")
    prepare.add_argument("--no-libraries", action="store_true", help="pack the graphs alone")
    prepare.add_argument("--fresh", action="store_true", help="export graphs anew that are there")
    measure = steps.add_parser("measure", help="measure on the card, as long as --minutes allows")
    measure.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu is for trying it out")
    measure.add_argument("--minutes", type=float, default=9.0, help="for all of it (default: %(default)g)")
    measure.add_argument(
        "--step-seconds", type=float, default=100.0, help="for opening one contestant (default: %(default)g)"
    )
    measure.add_argument("--output", type=Path, metavar="DIR", help="gets a copy of the results after each step")
    measure.add_argument("--no-tests", action="store_true", help="leave out the tests that need a card")
    measure.add_argument("--retry", action="store_true", help="measure again what failed in an earlier run")
    for step in (prepare, measure):
        step.add_argument("--preset", choices=["full", "tiny"], default="full", help="tiny is for trying it out")
        step.add_argument("--folder", type=Path, default=PARTS, help="default: .gpu")
    table = steps.add_parser("table", help="print tables, keep the results in benchmarks/results")
    table.add_argument("results", type=Path)
    table.add_argument("--chart", type=Path, metavar="FILE", help=".svg or .png")
    table.add_argument("--no-keep", action="store_true", help="do not copy the results to benchmarks/results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
