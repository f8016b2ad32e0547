"""What the speed benchmark found: one row for each contestant on each backend, in and out of JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import store
from sfpp.export.settings import resolution_from
from sfpp.runtime.bench.row import Speedup
from sfpp.runtime.errors import UsageError
from sfpp.runtime.timing import Summary
from sfpp.runtime.typed_json import dataclass_from_json

# Names of contestants, and what follows a variant's name that matches nearby.
PYTORCH = "pytorch"
TRANSFORMERS = "transformers"
LOCAL = ":local"


@dataclass(frozen=True)
class SpeedRow:
    """A contestant at one network and size; None where something is not known or was not measured.

    Attributes:
        network: ``b0`` to ``b5``.
        size: width x height.
        name: ``pytorch``, ``transformers``, or a variant of ours, with ``:local`` where it matches nearby.
        backend: library and precision, as asked for.
        missing: why there are no figures, or no more of them.
        time: of the network alone.
        labels_ms: median from logits to labels at the frame's size, in the same runs.
        to_transformers: times as fast as ``transformers`` on the same backend, in the same rounds.
        to_transformers_onnxruntime: the same, against ``transformers`` on ONNX Runtime.
        to_original: the same, against our ``original`` on the same backend.
        reference: whose labels ``labels_as_reference`` compares with; in float32.
        labels_as_reference: part of the pixels, 0..1, with the same label.
        labels_as_exact: the same for a local variant, against its exact sibling on the same backend.
        peak_memory_bytes: of a process of its own.
        multiply_adds: of one run; matrix products and convolutions alone.
        share_of_peak: their rate relative to the library's best in large matrix products, 0..1.
        samples_ms: every run of the network, in the order of the rounds.
    """

    network: str
    size: str
    name: str
    backend: str
    missing: str | None = None
    time: Summary | None = None
    labels_ms: float | None = None
    to_transformers: Speedup | None = None
    to_transformers_onnxruntime: Speedup | None = None
    to_original: Speedup | None = None
    reference: str | None = None
    labels_as_reference: float | None = None
    labels_as_exact: float | None = None
    peak_memory_bytes: int | None = None
    multiply_adds: int | None = None
    share_of_peak: float | None = None
    samples_ms: tuple[float, ...] = ()

    @property
    def pixels(self) -> int:
        """Of a frame."""
        width, height = resolution_from(self.size)
        return width * height

    @property
    def missing_briefly(self) -> str:
        """Why there are no figures, in as few words as a table has room for."""
        return re.split("[:;(]", self.missing or "not reached")[0].strip()


def write_results(
    path: Path, rows: Sequence[SpeedRow], *, settings: Mapping[str, Any], peaks: Mapping[str, Any]
) -> None:
    """Write all rows with the machine's description; the file appears whole or not at all."""
    store(path, settings=dict(settings), peaks=dict(peaks), rows=[dataclasses.asdict(row) for row in rows])


def read_results(path: Path) -> list[SpeedRow]:
    """Read the rows of :func:`write_results`.

    Raises:
        UsageError: there is no such file.
        ContractError: a row lacks a field, or one is of another type.
    """
    if not path.is_file():
        raise UsageError(f"there are no results in {path}: measure first, without --report, or give another -o")
    content = json.loads(path.read_text(encoding="utf-8"))
    return [dataclass_from_json(SpeedRow, fields, where=f"a row of {path.name}") for fields in content["rows"]]


def without_group(rows: Sequence[SpeedRow], *, network: str, size: str) -> list[SpeedRow]:
    """Return the rows that are not of this network and size, which is measured again."""
    return [row for row in rows if (row.network, row.size) != (network, size)]
