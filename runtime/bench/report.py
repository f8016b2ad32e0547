"""What a run of the benchmark found: one row for each model on each backend, and everything as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfpp.runtime.bench.chart import draw_chart
from sfpp.runtime.bench.row import Row
from sfpp.runtime.bench.settings import BenchSettings
from sfpp.runtime.bench.table import table_lines
from sfpp.runtime.files import write_text

__all__ = ["BenchReport", "Row"]


@dataclass(frozen=True)
class BenchReport:
    """Everything that was measured.

    Attributes:
        rows: model by model, and for each the backends, in the order in which they were given.
        settings: what was asked for.
        machine: where; see :func:`sfpp.runtime.machine.machine`.
        interrupted: Ctrl-C ended the run, and later steps are missing.
        copy_bytes_per_s: the machine's memory bandwidth, of a large copy; None when it was not measured.
    """

    rows: tuple[Row, ...]
    settings: BenchSettings
    machine: Mapping[str, Any]
    interrupted: bool = False
    copy_bytes_per_s: float | None = None

    @property
    def measured(self) -> tuple[Row, ...]:
        """The rows with at least one run."""
        return tuple(row for row in self.rows if row.network is not None)

    @property
    def wrong(self) -> tuple[Row, ...]:
        """The rows that answer otherwise than when the model was exported."""
        return tuple(row for row in self.rows if row.self_test.outcome == "failed")

    def table(self) -> str:
        """Return a table for people, with what its columns mean, and failures and profiles below it."""
        return "\n".join(table_lines(self.rows, copy_bytes_per_s=self.copy_bytes_per_s))

    def to_json(self) -> str:
        """Return everything, each sample included."""
        content = {
            "machine": dict(self.machine),
            "settings": dataclasses.asdict(self.settings),
            "interrupted": self.interrupted,
            "copy_bytes_per_s": self.copy_bytes_per_s,
            "rows": [row.to_dict() for row in self.rows],
        }
        return json.dumps(content, indent=1, default=str)  # paths and specs as people write them

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_json` to a file that appears whole or not at all.

        Raises:
            SfppError: the folder does not exist, or the disk is full.
        """
        write_text(path, self.to_json())

    def write_chart(self, path: str | os.PathLike[str]) -> None:
        """Draw the latencies, and where the bytes are known the roofline, as .svg or .png.

        Raises:
            UsageError: another suffix.
            MissingDependencyError: matplotlib is not installed.
            SfppError: nothing was measured, the folder does not exist, or the disk is full.
        """
        draw_chart(self.measured, Path(path), copy_bytes_per_s=self.copy_bytes_per_s, machine=self.machine)
