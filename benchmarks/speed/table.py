"""The tables of speed of docs/results.md: one for each network and backend, a row for each size and contestant."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.speed.results import PYTORCH, TRANSFORMERS, SpeedRow
from sfpp.export.settings import resolution_from
from sfpp.runtime.bench.row import Speedup

_HEADER = (
    *("width x height", "graph", "time", "to Transformers", "to it on ONNX Runtime", "to our `original`"),
    *("labels", "labels as exact", "peak memory", "G multiply-adds", "of peak"),
)
_LIBRARIES = {
    "gpu": "GPU",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    PYTORCH: "PyTorch, attention written out",
}
_PRECISIONS = {"fp32": "float32", "tf32": "TF32", "bf16": "bfloat16", "fp16": "float16"}
_NAMES = {PYTORCH: "Transformers, eager", TRANSFORMERS: "Transformers, `torch.onnx`"}


def markdown_tables(rows: Sequence[SpeedRow]) -> str:
    """Return a headline and a table for each network and backend, in the order in which they were measured."""
    groups = dict.fromkeys((row.network, row.backend) for row in rows)
    return "\n\n".join(
        _table(network, backend, [row for row in rows if (row.network, row.backend) == (network, backend)])
        for network, backend in groups
    )


def overview_tables(rows: Sequence[SpeedRow]) -> str:
    """Return a table for each network: times by size, and how many times faster than Transformers' own export.

    The ratio is to ``transformers`` on the same backend where that fits in memory, else to our ``original`` there, in
    brackets. ``labels`` is the smallest agreement over the sizes.
    """
    return "\n\n".join(
        _overview(network, [row for row in rows if row.network == network])
        for network in dict.fromkeys(row.network for row in rows)
    )


def _overview(network: str, rows: Sequence[SpeedRow]) -> str:
    sizes = list(dict.fromkeys(row.size for row in rows))
    sizes.sort(key=lambda size: resolution_from(size).width)
    backends = list(dict.fromkeys(row.backend for row in rows))
    contestants = sorted(
        dict.fromkeys((row.backend, row.name) for row in rows), key=lambda each: backends.index(each[0])
    )
    found = {(row.backend, row.name, row.size): row for row in rows}
    header = ("backend", "graph", *sizes, "labels")
    lines = [f"SegFormer-{network.upper()}:", "", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for backend, name in contestants:
        cells = [_brief(found.get((backend, name, size))) for size in sizes]
        agreements = [row.labels_as_reference for row in rows if (row.backend, row.name) == (backend, name)]
        cells.append(percent_text(min((each for each in agreements if each is not None), default=None), digits=1))
        lines.append(f"| {backend_name(backend)} | {_NAMES.get(name, f'`{name}`')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _brief(row: SpeedRow | None) -> str:
    if row is None:
        return ""
    if row.to_transformers is not None and row.name != TRANSFORMERS:
        return f"{time_text(row)}, {times_text(row.to_transformers)}"
    if row.to_original is not None and row.to_transformers is None and row.name != "original":
        return f"{time_text(row)} ({times_text(row.to_original)})"
    return time_text(row)


def backend_name(backend: str) -> str:
    """Return ``OpenVINO, bfloat16`` for ``openvino:bf16``; ONNX Runtime computes in float32 unless told otherwise."""
    library, _, precision = backend.partition(":")
    if library == "onnxruntime":
        precision = precision or "fp32"
    return ", ".join(filter(None, (_LIBRARIES.get(library, library), _PRECISIONS.get(precision, precision))))


def _table(network: str, backend: str, rows: Sequence[SpeedRow]) -> str:
    lines = [
        f"{network.upper()}, {backend_name(backend)}:",
        "",
        f"| {' | '.join(_HEADER)} |",
        "|---" * len(_HEADER) + "|",
    ]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join(lines)


def _cells(row: SpeedRow) -> list[str]:
    return [
        row.size,
        _NAMES.get(row.name, f"`{row.name}`"),
        time_text(row),
        times_text(row.to_transformers),
        times_text(row.to_transformers_onnxruntime),
        times_text(row.to_original),
        percent_text(row.labels_as_reference, digits=2),
        percent_text(row.labels_as_exact, digits=2),
        "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e9:.2f} GB",
        "" if row.multiply_adds is None else f"{row.multiply_adds / 1e9:.1f}",
        percent_text(row.share_of_peak, digits=0),
    ]


def time_text(row: SpeedRow) -> str:
    """Return the median, or in few words why there is none."""
    if row.time is None:
        return row.missing_briefly
    if row.time.p50_ms >= 9_995:
        return f"{row.time.p50_ms / 1e3:.1f} s"
    return ms_text(row.time.p50_ms)


def ms_text(time_ms: float) -> str:
    """Return milliseconds with three figures or so."""
    digits = 0 if time_ms >= 99.5 else 1 if time_ms >= 9.95 else 2
    return f"{time_ms:.{digits}f} ms"


def times_text(ratio: Speedup | None) -> str:
    """Return a ratio with three figures or so, or nothing."""
    if ratio is None:
        return ""
    return f"{ratio.median:.1f}x" if ratio.median >= 9.95 else f"{ratio.median:.2f}x"


def percent_text(share: float | None, *, digits: int) -> str:
    """Return a share in percent, or nothing."""
    return "" if share is None else f"{share:.{digits}%}".replace("%", " %")
