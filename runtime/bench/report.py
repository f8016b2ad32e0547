"""What a run of the benchmark found: one row for each model on each backend, and everything as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfpp.runtime.backends.choice import AUTO
from sfpp.runtime.bench.chart import draw_chart
from sfpp.runtime.bench.row import Row, backend_label, row_labels
from sfpp.runtime.bench.settings import BenchSettings
from sfpp.runtime.files import write_text
from sfpp.runtime.text import aligned

_NOTHING = "-"
_TEXT_COLUMNS = 3  # model, backend and self-test; what follows are numbers
_OPERATORS = 12
_LEGEND = """\
self-test: whether it gives the results of its export, known from now or an earlier use; what fails is not timed
p50, p90, p99, mean: the network alone; spread: distance of the quartiles, relative to p50
speed: how many times as fast as the first row, median over the rounds (its quartiles)
frame ms: median from frame to labels or keypoints; load ms: without a cache, and from it
peak MiB: of a whole process that opens the model, without a cache, and runs it twice"""
_ROOFLINE_LEGEND = "G madds: multiply-adds of a run, in 10^9; of peak: their rate, relative to large matrix products"
_LATENCIES = ["p50 ms", "p90 ms", "p99 ms", "mean ms", "spread", "speed", "frame ms", "load ms"]
_HEADER = ["model", "backend", "self-test", *_LATENCIES, "peak MiB", "G madds", "G madds/s", "of peak"]


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
        """The rows whose self-test fails: they differ from the model as it was exported."""
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


def table_lines(rows: Sequence[Row], *, copy_bytes_per_s: float | None = None) -> list[str]:
    """Return the table, what its columns mean, and below it peaks, failures and profiles."""
    labels = row_labels(rows)
    measured = [row for row in rows if row.network is not None]
    cells = [_cells(row, label) for row, label in zip(rows, labels, strict=True)]
    lines = aligned([_HEADER, *cells], text_columns=_TEXT_COLUMNS)
    if measured:
        lines += ["", *_LEGEND.splitlines()]
    if any(row.multiply_adds for row in measured):
        lines.append(_ROOFLINE_LEGEND)
    lines += _peak_lines(rows, copy_bytes_per_s)
    chosen = zip(rows, labels, strict=True)
    lines += [
        f"{label}, {row.backend}: runs in {row.description}"
        for row, label in chosen
        if row.backend.partition(":")[0] == AUTO and row.description is not None  # the runtime's choice
    ]
    for row, label in zip(rows, labels, strict=True):
        lines += [f"{label}, {row.backend}: {reason}" for reason in (row.failure, row.memory_failure) if reason]
    for row, label in zip(rows, labels, strict=True):
        if row.operators_ms:
            lines += ["", f"{label}, {row.backend}: time by operator in a profiled run", *_operator_lines(row)]
    return lines


def _cells(row: Row, label: str) -> list[str]:
    head, network, speed = [label, backend_label(row), str(row.self_test)], row.network, row.speedup
    if network is None:
        outcome = "wrong" if row.self_test.outcome == "failed" else "failed"
        return [*head, outcome, *[_NOTHING] * (len(_HEADER) - len(head) - 1)]
    loads_ms = [f"{value:.0f}" for value in (row.load_ms, row.cached_load_ms) if value is not None]
    quartiles = f"({speed.lower_quartile:.2f}-{speed.upper_quartile:.2f})" if speed else ""
    return [
        *head,
        *(f"{value:.1f}" for value in (network.p50_ms, network.p90_ms, network.p99_ms, network.mean_ms)),
        f"{network.spread:.0%}",
        f"{speed.median:.2f}x {quartiles}" if speed else _NOTHING,
        _number(row.whole.p50_ms if row.whole else None, ".1f"),
        ", ".join(loads_ms) or _NOTHING,
        _number(row.peak_memory_bytes, ".0f", unit=2**20),
        _number(row.multiply_adds, ".1f", unit=1e9),
        _number(row.multiply_adds_per_s, ".0f", unit=1e9),
        _number(row.share_of_peak, ".0%"),
    ]


def _number(value: float | None, form: str, *, unit: float = 1) -> str:
    return _NOTHING if value is None else f"{value / unit:{form}}"


def _peak_lines(rows: Sequence[Row], copy_bytes_per_s: float | None) -> list[str]:
    lines = [
        f"peak of {peak.description}, {precision}: {peak.multiply_adds_per_s / 1e9:.0f} G multiply-adds/s "
        f"(products of {peak.chain})"
        for precision, peak in dict.fromkeys((row.precision, row.matmul_peak) for row in rows)
        if peak is not None
    ]
    if copy_bytes_per_s is not None:
        lines.append(f"memory: {copy_bytes_per_s / 1e9:.1f} GB/s read and written in a large copy")
    return lines


def _operator_lines(row: Row) -> list[str]:
    total_ms = sum(row.operators_ms.values())
    ranked = sorted(row.operators_ms.items(), key=lambda item: -item[1])
    shown = ranked[:_OPERATORS]
    rest_ms = sum(value for _, value in ranked[_OPERATORS:])
    if rest_ms:
        shown.append((f"{len(ranked) - _OPERATORS} others", rest_ms))
    share = 1 / total_ms if total_ms else 0.0
    return aligned([(f"  {name}", f"{value:.2f} ms", f"{value * share:.1%}") for name, value in shown])
