"""How much memory the commands take for 3840x2160: the highest of each command's processes, with the time it took.

    python -m benchmarks.memory --images FRAMES                        # B0 and B2; an hour and a half on two cores
    python -m benchmarks.memory --images FRAMES --models b0 --variants fast --works export

Weights are random for B2 and those of the demonstration model for B0: they change no size. Exports of every variant
and graph, what makes lower precisions of them, and a comparison with PyTorch. Every row is written as soon as it is
there into benchmarks/results/memory.json; those that are there already are kept, unless --again is given.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from benchmarks.machine import RESULTS, store
from benchmarks.speed.models import save_checkpoint
from sfpp.export.demo import demo_checkpoint
from sfpp.runtime.errors import SfppError
from sfpp.runtime.files import python_module

VARIANTS = ("original", "hq", "hq+", "fast", "fast+", "2x2", "downsample", "kv2x2")
TARGETS = ("portable", "onnxruntime")  # OpenVINO and TensorRT take the portable graph
CALIBRATED = ("original", "fast")
WORKS = ("export", "fp16", "int8", "parity")


@dataclass(frozen=True)
class Row:
    """One command: what it did, on which model, and what it took."""

    model: str
    variant: str
    target: str
    work: str
    peak_bytes: int
    seconds: float

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the row is of."""
        return self.model, self.variant, self.target, self.work


@dataclass(frozen=True)
class Case:
    """Commands on one exported file, in order; the first makes it."""

    model: str
    variant: str
    target: str

    def commands(self, file: Path, weights: Path, images: Path, size: str) -> Iterator[tuple[str, list[str]]]:
        """Yield what each is called, and its command line as a module and its arguments."""
        options = ["--weights", weights, "--variant", self.variant, "--target", self.target, "--res", size, "-o", file]
        yield "export", ["sfpp.export.cli", *map(str, options)]
        if self.variant not in CALIBRATED:
            return
        few = ["--images", images, "--frames", 2, "--held-out", 1, "-o", file.parent]
        for precision in ("fp16", "int8"):
            yield precision, ["sfpp.calibration.cli", str(file), "--precision", precision, *map(str, few)]
        if self.target == "portable":
            yield "parity", ["sfpp.export.parity.cli", str(file), "--weights", str(weights), "--frames", "1"]


def measured(case: Case, work: str, command: list[str]) -> Row:
    """Run one command and return what it took, the processes that it starts included.

    Raises:
        SfppError: it failed.
    """
    start = time.monotonic()
    process = subprocess.Popen(**python_module(*command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process.stderr:
        errors = process.stderr.read().decode()
    # Linux counts what this process holds as the child's too, until the child's own program starts: a few 100 MB.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1) or "error:" in errors:  # parity ends with 1 where sides disagree
        raise SfppError(f"{work} of {case} failed: {errors[-2000:]}")
    return Row(case.model, case.variant, case.target, work, usage.ru_maxrss * 1024, time.monotonic() - start)


def markdown_table(rows: list[Row]) -> str:
    """Return the highest of each kind of work, a line a model and variant."""
    lines = ["| model | variant | " + " | ".join(WORKS) + " |", "|---|---|" + "---:|" * len(WORKS)]
    for model, variant in dict.fromkeys((row.model, row.variant) for row in rows):
        of = [row for row in rows if (row.model, row.variant) == (model, variant)]
        peaks = [max((row.peak_bytes for row in of if row.work == work), default=None) for work in WORKS]
        cells = ["" if peak is None else f"{peak / 1e9:.1f} GB" for peak in peaks]
        lines.append(f"| {model.upper()} | `{variant}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure(
    cases: list[Case],
    weights: dict[str, Path],
    images: Path,
    *,
    size: str,
    output: Path,
    again: bool,
    works: Sequence[str] = WORKS,
) -> None:
    """Run the commands of all cases of which the results lack one, and keep each result at once.

    An export is run also where only what follows it is missing, since that needs its file.
    """
    rows = {row.key: row for row in read(output)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        for case in cases:
            commands = dict(case.commands(file, weights[case.model], images, size))
            missing = {each for each in commands if each in works and (again or (*astuple(case), each) not in rows)}
            for work, command in commands.items():
                if not missing or work not in {"export", *missing}:
                    continue
                row = measured(case, work, command)
                print(*row.key, f"{row.peak_bytes / 1e9:.2f} GB", f"{row.seconds:.0f} s", flush=True)
                rows[row.key] = row
                store(output, res=size, rows=[asdict(each) for each in rows.values()])


def read(output: Path) -> list[Row]:
    """Return the rows that are there."""
    return [Row(**each) for each in json.loads(output.read_text())["rows"]] if output.exists() else []


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="frames to calibrate with")
    parser.add_argument("--models", nargs="+", default=["b0", "b2"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS), help="what is measured")
    parser.add_argument("--res", default="3840x2160")
    parser.add_argument("--again", action="store_true", help="measure also what is there already")
    parser.add_argument("--output", type=Path, default=RESULTS / "memory.json")
    options = parser.parse_args(argv)
    cases = [Case(*each) for each in itertools.product(options.models, options.variants, options.targets)]
    facts = {"size": options.res, "output": options.output, "again": options.again, "works": options.works}
    with tempfile.TemporaryDirectory() as folder:
        weights = {
            name: demo_checkpoint() if name == "b0" else save_checkpoint(name, Path(folder) / name)
            for name in options.models
        }
        measure(cases, weights, options.images, **facts)
    print(markdown_table(read(options.output)))


if __name__ == "__main__":
    main()
