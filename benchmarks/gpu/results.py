"""What was found on a card: rows in a file that grows while measuring, and the tables of them."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.matrix import COMPILED, PRECISIONS, SDPA, Group
from benchmarks.machine import RESULTS, store
from benchmarks.speed.results import PYTORCH, TRANSFORMERS, SpeedRow
from benchmarks.speed.table import backend_name, ms_text, percent_text, time_text, times_text
from sfpp.runtime.bench.row import Speedup
from sfpp.runtime.errors import UsageError
from sfpp.runtime.typed_json import dataclass_from_json

_NAMES = {
    PYTORCH: "PyTorch, attention written out",
    SDPA: "PyTorch, fused attention",
    COMPILED: "PyTorch, compiled",
    TRANSFORMERS: "Transformers, `torch.onnx`",
}
_HEADER = (
    *("graph", "time", "with copies", "to PyTorch", "to its fused attention", "to Transformers", "to our `original`"),
    *("labels", "as same merging", "error", "memory", "nodes on the CPU", "copies between", "to open"),
)
# SegFormer++ (arXiv 2405.14467): speed-up of MiT-B5's forward pass by input, hq and fast.
PUBLISHED = {
    "512x512": (1.18, 1.27),
    "1024x1024": (1.61, 1.94),
    "2048x2048": (2.04, 2.75),
    "3840x2160": (2.66, 4.31),
}


@dataclass(frozen=True)
class GpuRow(SpeedRow):
    """A contestant of a group; ``backend`` is ``gpu:`` and the precision, and ``time`` is without copies.

    ``to_transformers`` compares with Transformers' export in ONNX Runtime, ``labels_as_reference`` with PyTorch in
    float32 without merging, and ``peak_memory_bytes`` is what the card lost by opening and running it.

    Attributes:
        whole_ms: median with the copies from and to host memory.
        to_pytorch: times as fast as PyTorch with its attention written out, in the same rounds.
        to_sdpa: the same, against its fused attention.
        logits_error: norm of the difference to the reference's logits, relative to theirs.
        labels_as_same_merging: part of the pixels with the label of PyTorch in float32 with the same merging.
        fallback_nodes: number of nodes that the CPU runs, by operator; None for PyTorch.
        copy_nodes: copies between card and host that ONNX Runtime put in; None for PyTorch.
        open_s: seconds to open it and run it once.
    """

    whole_ms: float | None = None
    to_pytorch: Speedup | None = None
    to_sdpa: Speedup | None = None
    logits_error: float | None = None
    labels_as_same_merging: float | None = None
    fallback_nodes: dict[str, int] | None = None
    copy_nodes: int | None = None
    open_s: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more is to be measured."""
        return self.time is not None or self.missing is not None


@dataclass
class Results:
    """Rows in the order in which they were measured; ``facts`` are those of card, graphs and tests."""

    rows: list[GpuRow]
    facts: dict[str, Any]

    def row(self, group: Group, name: str) -> GpuRow:
        """Return a contestant's row, an empty one where there is none yet."""
        key = group.network, group.size, group.backend, name
        found = (row for row in self.rows if (row.network, row.size, row.backend, row.name) == key)
        return next(found, GpuRow(group.network, group.size, name, group.backend))

    def put(self, row: GpuRow) -> None:
        """Add a row, or replace the one of its contestant."""
        keys = [(each.network, each.size, each.backend, each.name) for each in self.rows]
        key = row.network, row.size, row.backend, row.name
        if key in keys:
            self.rows[keys.index(key)] = row
        else:
            self.rows.append(row)

    def fail(self, group: Group, name: str, reason: str) -> None:
        """Note why a contestant has no figures, or no more of them."""
        self.put(dataclasses.replace(self.row(group, name), missing=reason))

    def pending(self, group: Group) -> bool:
        """Return whether anything of a group is left to measure."""
        return not all(self.row(group, name).is_final for name in group.names)

    def write(self, path: Path) -> None:
        """Write all, with the machine's description; the file appears whole or not at all."""
        store(path, **self.facts, rows=[dataclasses.asdict(row) for row in self.rows])


def read_gpu_results(path: Path) -> Results:
    """Read what :meth:`Results.write` wrote.

    Raises:
        UsageError: there is no such file.
        ContractError: a row lacks a field, or one is of another type.
    """
    if not path.is_file():
        raise UsageError(f"there are no results in {path}: run `python -m benchmarks.gpu measure` on a card first")
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [dataclass_from_json(GpuRow, fields, where=f"a row of {path.name}") for fields in content.pop("rows")]
    return Results(rows, content)


def keep(path: Path, facts: Mapping[str, Any]) -> Path:
    """Copy a result to those of the repository, under the card's name; return the copy.

    Raises:
        UsageError: nothing was measured.
    """
    if "device" not in facts:
        raise UsageError(f"{path} has no figures: nothing was measured before the time was over")
    card = re.sub(r"[^a-z0-9]+", "_", str(facts["device"]["card"]).lower()).strip("_")
    kept = RESULTS / f"gpu_{card}.json"
    if path.resolve() != kept.resolve():
        shutil.copyfile(path, kept)
    return kept


def tables(results: Results) -> str:
    """Return what the card is, our speed-ups beside the published ones, a table for each group, and the tests."""
    groups = dict.fromkeys((row.network, row.size, row.backend) for row in results.rows)
    parts = [headline(results.facts.get("device")), published_table(results.rows)]
    parts += [
        _table([row for row in results.rows if (row.network, row.size, row.backend) == group]) for group in groups
    ]
    if "tests" in results.facts:
        parts.append(tests_line(results.facts["tests"]))
    return "\n\n".join(filter(None, parts))


def headline(device: Mapping[str, Any] | None) -> str:
    """Return card and versions in a line."""
    if device is None:
        return "No card yet: nothing was measured."
    names = {"driver": "driver", "cuda": "CUDA", "cudnn": "cuDNN", "torch": "PyTorch", "onnxruntime": "ONNX Runtime"}
    versions = [f"{name} {device[key]}" for key, name in names.items() if device.get(key)]
    return f"{device['card']}: {', '.join(versions)}."


def published_table(rows: Sequence[GpuRow]) -> str:
    """Return the speed-ups of B5 over ``original`` as published, and ours in each precision; nothing without one."""
    found = {(row.size, row.backend, row.name): row.to_original for row in rows if row.network == "b5"}
    backends = [f"gpu:{each}" for each in PRECISIONS if any(backend == f"gpu:{each}" for _, backend, _ in found)]
    if not backends:
        return ""
    columns = [("hq", backend) for backend in backends] + [("fast", backend) for backend in backends]
    header = ["width x height", "hq, published", "fast, published"]
    header += [f"{name}, {backend_name(backend).removeprefix('GPU, ')}" for name, backend in columns]
    lines = ["Speed-up of B5 over `original`:", "", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for size, (hq, fast) in PUBLISHED.items():
        cells = [_range(found.get((size, backend, name))) for name, backend in columns]
        lines.append(f"| {' | '.join([size, f'{hq:.2f}x', f'{fast:.2f}x', *cells])} |")
    return "\n".join(lines)


def tests_line(tests: Mapping[str, Any]) -> str:
    """Return what the tests that need a card said."""
    if "passed" not in tests:
        return f"Tests that need a card: did not end ({', '.join(f'{key} {value}' for key, value in tests.items())})."
    failed, skipped = list(tests["failed"]), dict(tests["skipped"])
    line = f"Tests that need a card: {tests['passed']} passed, {len(failed)} failed, {sum(skipped.values())} skipped."
    notes = [*(f"failed: {name}" for name in failed), *(f"skipped: {reason}" for reason in skipped)]
    return "\n".join([line, *(f"* {note}" for note in notes)])


def _table(rows: Sequence[GpuRow]) -> str:
    first = rows[0]
    title = f"{first.network.upper()} at {first.size}, {backend_name(first.backend).removeprefix('GPU, ')}:"
    lines = [title, "", f"| {' | '.join(_HEADER)} |", "|---" * len(_HEADER) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(row))} |" for row in rows)])


def _cells(row: GpuRow) -> list[str]:
    return [
        _NAMES.get(row.name, f"`{row.name}`"),
        _time(row),
        "" if row.whole_ms is None else ms_text(row.whole_ms),
        _range(row.to_pytorch),
        _range(row.to_sdpa),
        _range(row.to_transformers),
        _range(row.to_original),
        percent_text(row.labels_as_reference, digits=2),
        percent_text(row.labels_as_same_merging, digits=2),
        "" if row.logits_error is None else f"{row.logits_error:.1e}",
        "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e9:.2f} GB",
        _fallback(row),
        "" if row.copy_nodes is None else str(row.copy_nodes),
        "" if row.open_s is None else f"{row.open_s:.1f} s",
    ]


def _time(row: GpuRow) -> str:
    """Return the median, or why there is none: a table for cards has room for a line of it."""
    if row.time is None and row.missing is not None:
        return textwrap.shorten(row.missing.replace("|", "/"), 100)
    return time_text(row)


def _range(ratio: Speedup | None) -> str:
    """Return a ratio with its quartiles."""
    if ratio is None:
        return ""
    return f"{times_text(ratio)} ({ratio.lower_quartile:.2f} to {ratio.upper_quartile:.2f})"


def _fallback(row: GpuRow) -> str:
    """Return how many nodes, and of which operators, the most frequent ones first."""
    if row.fallback_nodes is None:
        return ""
    total = sum(row.fallback_nodes.values())
    few = ", ".join(list(row.fallback_nodes)[:3])
    return f"{total} ({few})" if total else "0"
