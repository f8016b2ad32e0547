"""Our graphs against PyTorch and against Transformers' SegFormer through torch.onnx, on one and the same checkpoint.

    python -m benchmarks.speed --chart docs/speed.svg                      # everything: hours on two cores
    python -m benchmarks.speed --models b0 --sizes 1024x1024 --runs 20     # one group of the table
    python -m benchmarks.speed --models b5 --append                        # more groups in the same file
    python -m benchmarks.speed --report                                    # print tables and draw again

For each network and size a Transformers checkpoint with seeded random weights is made and exported. Then these take
turns, round by round in an order that changes, on the shipped street scene brought to the size:

* `pytorch`: the library's model with its eager attention, which writes the score matrix out (in float32, and under
  autocast where the processor has bfloat16);
* `transformers`: the library's model through torch.onnx, on each backend;
* our variants, written for the backend; `:local` matches tokens nearby.

Ratios are medians over rounds of the ratio within a round. The network alone counts; ours does the normalization inside
it, theirs has got it before. Peak memory is that of a process of its own. Labels are compared at the frame's size, with
theirs in float32. Random weights are a harsh judge of merging: neighboring classes differ by little everywhere, while
trained ones are sure of most pixels. `original` is the same function, so there rounding alone decides.

Where two score matrices would not fit in memory, the models that hold them are left out, with the size in the table.
After each network and size the JSON in benchmarks/results is written anew; Ctrl-C keeps what is there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.speed.chart import draw_growth
from benchmarks.speed.contestants import Field
from benchmarks.speed.models import save_checkpoint
from benchmarks.speed.options import COMMAND, speed_parser
from benchmarks.speed.race import Race
from benchmarks.speed.results import SpeedRow, read_results, without_group, write_results
from benchmarks.speed.table import markdown_tables, overview_tables
from sfpp.export.catalog import MIT_SIZES
from sfpp.export.demo import demo_frame
from sfpp.export.settings import Resolution, resolution_from
from sfpp.runtime import read_image
from sfpp.runtime.bench.chart import check_chart
from sfpp.runtime.bench.measured_model import BenchFrame
from sfpp.runtime.bench.peak import MatmulPeak, matmul_peak
from sfpp.runtime.bench.settings import BackendSpec, backend_spec
from sfpp.runtime.cli.console import exit_code_of
from sfpp.runtime.errors import SfppError, UsageError, did_you_mean

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

# For B2 to B5: three rounds of B2 at 2048x2048 take half an hour on two cores, and of B5 at 3840x2160 a day.
_LARGEST = Resolution(1024, 1024)
_SMALL_NETWORKS = {"b0", "b1"}


@dataclass(frozen=True)
class Settings:
    """What to measure, and how long."""

    specs: tuple[BackendSpec, ...]
    variants: tuple[str, ...]
    runs: int
    seconds: float
    memory_bytes: float
    folder: Path | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    arguments = speed_parser(description=__doc__).parse_args(argv)
    return exit_code_of(COMMAND, lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    _check_outputs(arguments.output, arguments.chart)
    interrupted = False
    if not arguments.report:
        interrupted = measure_all(arguments)
    rows = read_results(arguments.output)
    print(overview_tables(rows))
    print()
    print(markdown_tables(rows))
    if arguments.chart is not None:
        # The two ends of what is compared: what everybody has, and the fastest.
        backends = list(dict.fromkeys((arguments.backends[0], arguments.backends[-1])))
        draw_growth(rows, arguments.chart, network=rows[0].network, backends=backends)
        _note(f"wrote {arguments.chart}")
    return _INTERRUPTED if interrupted else 0


def _check_outputs(output: Path, chart: Path | None) -> None:
    """Refuse what could not be written before hours are spent on measuring it."""
    if chart is not None:
        check_chart(chart)
    for path in filter(None, (output, chart)):
        if not path.parent.is_dir():
            raise SfppError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")


def measure_all(arguments: argparse.Namespace) -> bool:
    """Measure group by group, writing the results after each; return whether Ctrl-C ended it."""
    settings = _settings(arguments)
    rows = read_results(arguments.output) if arguments.append and arguments.output.is_file() else []
    groups = groups_of(
        arguments.models, [resolution_from(size) for size in arguments.sizes], all_sizes=arguments.all_sizes
    )
    with _own_cache():
        peaks = _peaks(settings.specs)
        for number, (network, size) in enumerate(groups, start=1):
            _note(f"{network} at {size}, {number} of {len(groups)}")
            found, interrupted = measure_group(network, size, settings=settings, peaks=peaks)
            rows = [*without_group(rows, network=network, size=str(size)), *found]
            write_results(
                arguments.output,
                rows,
                settings={**asdict(settings), "specs": [str(spec) for spec in settings.specs], "folder": None},
                peaks={backend: asdict(peak) for backend, peak in peaks.items()},
            )
            if interrupted:
                _note("stopped early: what was measured until then is kept")
                return True
    return False


def measure_group(
    network: str, size: Resolution, *, settings: Settings, peaks: dict[str, MatmulPeak]
) -> tuple[list[SpeedRow], bool]:
    """Measure one network at one size; return the rows, and whether Ctrl-C ended it."""
    picture = BenchFrame(read_image(demo_frame()), fitted=True)
    rates = {backend: peak.multiply_adds_per_s for backend, peak in peaks.items()}
    with _folder(settings.folder, f"{network}-{size}") as folder:
        field = Field(
            network=network,
            size=size,
            checkpoint=save_checkpoint(network, folder / "checkpoint"),
            folder=folder,
            picture=picture,
            memory_bytes=settings.memory_bytes,
            notify=_note,
        )
        entries = field.entries(settings.variants, settings.specs)
        interrupted = False
        race = Race(entries, memory_bytes=settings.memory_bytes, notify=_note)
        with contextlib.closing(race):
            try:
                race.measure_memory(field.write_frame())
                race.answer()
                race.time(runs=settings.runs, seconds=settings.seconds)
            except KeyboardInterrupt:
                interrupted = True
        return race.findings.rows(network=network, size=str(size), peaks=rates), interrupted


def groups_of(
    networks: Sequence[str], sizes: Sequence[Resolution], *, all_sizes: bool = False
) -> list[tuple[str, Resolution]]:
    """Return what is measured, small sizes first; B2 to B5 at sizes above 1024x1024 only with ``all_sizes``.

    Raises:
        UsageError: there is no such network.
    """
    for network in networks:
        if network not in MIT_SIZES:
            raise UsageError(
                f"unknown network {network!r}{did_you_mean(network, MIT_SIZES)}; expected {', '.join(MIT_SIZES)}"
            )
    ordered = sorted(sizes, key=_pixels)
    return [
        (network, size)
        for network in networks
        for size in ordered
        if all_sizes or network in _SMALL_NETWORKS or _pixels(size) <= _pixels(_LARGEST)
    ]


def _pixels(size: Resolution) -> int:
    return size.width * size.height


def _peaks(specs: Sequence[BackendSpec]) -> dict[str, MatmulPeak]:
    peaks = {}
    for spec in specs:
        _note(f"measuring this machine's best in {spec}")
        peaks[str(spec)] = matmul_peak(backend=spec.name, options=spec.options(cache=False))
    return peaks


def _settings(arguments: argparse.Namespace) -> Settings:
    gib = arguments.memory_gib
    return Settings(
        specs=tuple(backend_spec(each) for each in arguments.backends),
        variants=tuple(arguments.variants),
        runs=arguments.runs,
        seconds=arguments.seconds,
        # Not all of it: the system and this process, with PyTorch in it, need some.
        memory_bytes=gib * 2**30 if gib is not None else 0.6 * (machine()["memory_bytes"] or 8e9),
        folder=arguments.folder,
    )


@contextlib.contextmanager
def _own_cache() -> Iterator[None]:
    """Keep compiled models out of the user's cache, where they would push out those in use."""
    before = os.environ.get("SFPP_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SFPP_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["SFPP_CACHE"]
            else:
                os.environ["SFPP_CACHE"] = before


@contextlib.contextmanager
def _folder(kept: Path | None, name: str) -> Iterator[Path]:
    """Yield the folder of one group's files: a kept one, or one that goes afterwards, as B5 fills gigabytes."""
    if kept is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    (kept / name).mkdir(parents=True, exist_ok=True)
    yield kept / name


def _note(line: str) -> None:
    print(f"{COMMAND}: {line}", file=sys.stderr, flush=True)
