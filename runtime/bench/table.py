"""The report as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sfpp.runtime.bench.row import Row
from sfpp.runtime.bench.settings import AUTO

_NOTHING = "-"
_MIB = 2**20
_TEXT_COLUMNS = 3  # model, backend and self-test; what follows are numbers
_OPERATORS = 12
_LEGEND = """\
self-test: whether it answers as when it was exported, known from now or an earlier use; what is wrong is not timed
p50, p90, p99, mean: the network alone; spread: distance of the quartiles, relative to p50
speed: how many times as fast as the first row, median over the rounds (its quartiles)
frame ms: median from frame to labels or keypoints; load ms: without a cache, and from it
peak MiB: of a whole process that opens the model, without a cache, and runs it twice"""
_ROOFLINE_LEGEND = "G madds: multiply-adds of a run, in 10^9; of peak: their rate, relative to large matrix products"


def table_lines(rows: Sequence[Row], *, copy_bytes_per_s: float | None = None) -> list[str]:
    """Return the table, what its columns mean, and below it peaks, failures and profiles."""
    labels = row_labels(rows)
    measured = [row for row in rows if row.network is not None]
    lines = _aligned([_HEADER, *(_cells(row, label) for row, label in zip(rows, labels, strict=True))])
    if measured:
        lines += ["", *_LEGEND.splitlines()]
    if any(row.multiply_adds for row in measured):
        lines.append(_ROOFLINE_LEGEND)
    lines += _peak_lines(rows, copy_bytes_per_s)
    chosen = zip(rows, labels, strict=True)
    lines += [f"{label}, {row.backend}: runs in {row.description}" for row, label in chosen if _was_chosen(row)]
    for row, label in zip(rows, labels, strict=True):
        lines += [f"{label}, {row.backend}: {reason}" for reason in (row.failure, row.memory_failure) if reason]
    for row, label in zip(rows, labels, strict=True):
        if row.operators_ms:
            lines += ["", f"{label}, {row.backend}: time by operator in a profiled run", *_operator_lines(row)]
    return lines


def row_labels(rows: Sequence[Row]) -> list[str]:
    """Return each row's model as a file name without suffix, or as a path where two files have the same name."""
    # A model measured on several backends has several rows, and still one name.
    paths_of_name = Counter(name for name, _ in {(row.name, row.model) for row in rows})
    return [row.name if paths_of_name[row.name] == 1 else row.model for row in rows]


_HEADER = [
    *(
        "model",
        "backend",
        "self-test",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "mean ms",
        "spread",
        "speed",
        "frame ms",
        "load ms",
    ),
    *("peak MiB", "G madds", "G madds/s", "of peak"),
]


def backend_label(row: Row) -> str:
    """Return the backend as asked for, with the precision that it chose where none was asked for."""
    return row.backend if ":" in row.backend or not row.precision else f"{row.backend}:{row.precision}"


def _was_chosen(row: Row) -> bool:
    """Whether the library is the runtime's choice, which the backend's name does not tell."""
    return row.backend.partition(":")[0] == AUTO and row.description is not None


def _cells(row: Row, label: str) -> list[str]:
    head = [label, backend_label(row), str(row.self_test)]
    if row.network is None:
        return [
            *head,
            "wrong" if row.self_test.outcome == "failed" else "failed",
            *[_NOTHING] * (len(_HEADER) - len(head) - 1),
        ]
    latencies = (row.network.p50_ms, row.network.p90_ms, row.network.p99_ms, row.network.mean_ms)
    return [
        *head,
        *(f"{value:.1f}" for value in latencies),
        f"{row.network.spread:.0%}",
        _speed(row),
        f"{row.whole.p50_ms:.1f}" if row.whole else _NOTHING,
        _load(row),
        _number(row.peak_memory_bytes, unit=_MIB, digits=0),
        _number(row.multiply_adds, unit=1e9, digits=1),
        _number(row.multiply_adds_per_s, unit=1e9, digits=0),
        f"{row.share_of_peak:.0%}" if row.share_of_peak is not None else _NOTHING,
    ]


def _speed(row: Row) -> str:
    if row.speedup is None:
        return _NOTHING
    return f"{row.speedup.median:.2f}x ({row.speedup.lower_quartile:.2f}-{row.speedup.upper_quartile:.2f})"


def _load(row: Row) -> str:
    times_ms = [value for value in (row.load_ms, row.cached_load_ms) if value is not None]
    return ", ".join(f"{value:.0f}" for value in times_ms) or _NOTHING


def _number(value: float | None, *, unit: float, digits: int) -> str:
    return _NOTHING if value is None else f"{value / unit:.{digits}f}"


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
    width = max(len(name) for name, _ in shown)
    share = 1 / total_ms if total_ms else 0.0
    return [f"  {name:<{width}}  {value:9.2f} ms  {value * share:6.1%}" for name, value in shown]


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [
            text.ljust(width) if index < _TEXT_COLUMNS else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines
