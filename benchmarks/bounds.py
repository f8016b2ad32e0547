"""What the demonstration model can reach at most on GPUs, on paper; nothing is measured, and no card is needed.

    python -m benchmarks.bounds

Each graph is made for TensorRT in float16 and INT8 and its work is counted. Peaks are those of
``runtime/tensorrt/facts.json``. Writes JSON into benchmarks/results and prints the table of docs/tensorrt.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.engines import Case, files_of
from benchmarks.hardware import table
from benchmarks.machine import RESULTS, store
from sfpp.export.bounds import Work, bound_on, bounds_of
from sfpp.runtime.tensorrt.facts import gpus

CASES = tuple(
    Case("b0", variant, size) for size in ("640x480", "1024x1024", "1920x1080") for variant in ("original", "fast")
)
PRECISIONS = ("fp16", "int8")


@dataclass(frozen=True)
class Counted:
    """The work of a file: its graph, and what it takes."""

    variant: str
    size: str
    precision: str
    works: tuple[Work, ...]
    end_bytes: int


def counted(case: Case, folder: Path) -> Iterator[Counted]:
    """Yield the work of a graph in each precision."""
    for precision, path in files_of(case, folder).items():
        if precision in PRECISIONS:
            found = bounds_of(path)
            yield Counted(case.variant, case.size, precision, found.works, found.end_bytes)


def markdown_table(rows: Sequence[Counted]) -> str:
    """Return frames a second: what no engine passes, and behind it what memory allows as engines fuse."""
    cards = gpus()
    cells = [
        [
            f"`{row.variant}`, {row.size}, {row.precision.upper()}",
            f"{sum(sum(each.multiply_adds.values()) for each in row.works) / 1e9:.1f}",
            *(
                f"{bound.compute:.0f}, {bound.usual:.0f}"
                for bound in (bound_on(card, row.works, row.end_bytes) for card in cards)
            ),
        ]
        for row in rows
    ]
    return table(["graph", "G multiply-adds", *(card.name for card in cards)], cells)


def main() -> None:
    """Count them all and keep the result."""
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows += list(counted(case, Path(folder)))
    store(RESULTS / "bounds.json", results=[asdict(row) for row in rows])
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
