"""The tables of the pages, written from benchmarks/results and, on hardware, from runtime/tensorrt/facts.json.

    python -m benchmarks.tables

A page says where a table goes: what stands between ``<!-- table: NAME -->`` and ``<!-- end -->`` is replaced by the
table of that name, in README.md and in every page of docs/. The text around them stays. Run this after a measurement;
a test fails while a page and the results differ.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import bounds, camvid_accuracy, engines, hardware, int8, isr_time, lsp_pck, memory, pipeline, precision
from benchmarks.live.crash import Crash
from benchmarks.live.freshness import Freshness
from benchmarks.live.memory import Memory
from benchmarks.live.parts import Part
from benchmarks.live.reconnecting import Reconnecting
from benchmarks.live.viewers import Viewers
from benchmarks.machine import RESULTS
from benchmarks.motion import live as motion_live, quality as motion_quality, speed as motion_speed
from benchmarks.paired import Difference
from benchmarks.speed.results import LOCAL, TRANSFORMERS, SpeedRow, read_results
from benchmarks.speed.table import backend_name, overview_tables, time_text, times_text
from sfpp.runtime.files import write_text
from sfpp.runtime.typed_json import dataclass_from_json

_Row = TypeVar("_Row")

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_SECTION = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PARTS: tuple[type[Part], ...] = (Reconnecting, Memory, Crash, Freshness, Viewers)
_SUMMARY_ROWS = (TRANSFORMERS, "original", "hq", "fast", f"fast{LOCAL}", "fast+", "2x2")
_SUMMARY_COLUMNS = [
    (backend, size) for size in ("1024x1024", "2048x2048") for backend in ("onnxruntime", "openvino:fp32")
]

# What a difference is of: the result's name, the measure and the column's title.
_DIFFERENCES = (
    ("camvid_accuracy", "mean_iou", "mIoU, 480x360"),
    ("camvid_accuracy", "boundary_f", "boundary F, 480x360"),
    ("camvid_accuracy_960x720", "mean_iou", "mIoU, 960x720"),
    ("camvid_accuracy_960x720", "boundary_f", "boundary F, 960x720"),
    ("lsp_pck", "pck", "pose, PCK@0.2"),
)
_PAIRS = (
    ("fast:sized", "fast"),
    ("fast+", "fast"),
    ("fast+", "fast:local"),
    ("fast+", "fast:sized"),
    ("hq+", "hq"),
)


def content(name: str) -> Any:
    """Return the JSON of ``benchmarks/results/NAME.json``."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def rows(name: str, kind: type[_Row], part: str = "results") -> list[_Row]:
    """Return the results, or another part if there is one, of ``NAME.json`` as dataclasses."""
    return [dataclass_from_json(kind, each, where=f"a row of {name}.json") for each in content(name).get(part, ())]


def speed_rows(name: str = "speed") -> list[SpeedRow]:
    """Return all rows of the speed benchmark on a CPU."""
    return read_results(RESULTS / f"{name}.json")


def summary_table() -> str:
    """Return the README's table: accuracy and speed; of ``fast+`` its time in parts of local ``fast``'s elsewhere."""
    mean_iou = {each.case: each.mean_iou for each in rows("camvid_accuracy", camvid_accuracy.CaseResult)}
    found = {(row.name, row.backend, row.size): row for row in speed_rows() if row.network == "b0"}
    header = (
        "graph",
        "mIoU",
        *(f"{backend_name(backend).split(',')[0]}, {size}" for backend, size in _SUMMARY_COLUMNS),
    )
    lines = [f"| {' | '.join(header)} |", "|---|---:" + "|---:" * len(_SUMMARY_COLUMNS) + "|"]
    for name in _SUMMARY_ROWS:
        title = "Transformers, `torch.onnx`" if name == TRANSFORMERS else f"`{name}`"
        accuracy = f"{mean_iou[name]:.1%}" if name in mean_iou else "as `original`"
        places = [(name, backend, size) for backend, size in _SUMMARY_COLUMNS]
        cells = (_with_factor(found[place]) if place in found else _to_local(*place) for place in places)
        lines.append(f"| {title} | {accuracy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _to_local(name: str, backend: str, size: str) -> str:
    """Return the time of a graph in parts of local ``fast``'s, both run in turn: the median over rounds."""
    samples = {
        row.name: row.samples_ms for row in speed_rows("speed_merging") if (row.backend, row.size) == (backend, size)
    }
    ratios = [own / other for own, other in zip(samples[name], samples[f"fast{LOCAL}"], strict=True)]
    return f"{statistics.median(ratios):.2f} of `fast{LOCAL}`"


def _with_factor(row: SpeedRow) -> str:
    return time_text(row) if row.name == TRANSFORMERS else f"{time_text(row)}, {times_text(row.to_transformers)}"


def _int8_tables() -> Iterator[str]:
    """Yield a table for each CPU that was measured."""
    for each in content("int8"):
        sets = ", ".join(each["machine"]["instruction_sets"])
        yield f"{each['machine']['processor']} ({sets}):\n\n{int8.markdown_table(each['results'])}"


def _live_list() -> Iterator[str]:
    results = content("live")["results"]
    for kind in _PARTS:
        name = kind.__name__.lower()
        yield f"* {dataclass_from_json(kind, results[name], where=f'{name} in live.json').sentence()}"


def _pipeline_table(name: str) -> str:
    found = content(name)
    rounds = [
        dataclass_from_json(pipeline.Throughput, each, where=f"a round of {name}.json") for each in found["rounds"]
    ]
    return pipeline.markdown_table(rounds, cores=found["machine"]["usable_cores"])


def motion_rows(part: str, kind: type[_Row]) -> list[_Row]:
    """Return what was measured of a part of the motion benchmark."""
    results = content("motion").get(part, {}).get("results", ())
    return [dataclass_from_json(kind, each, where=f"{part} in motion.json") for each in results]


def motion_quality_rows() -> list[motion_quality.Quality]:
    """Return all rows of labels that were carried in files."""
    return motion_rows("quality", motion_quality.Quality)


def compared(name: str) -> list[Difference]:
    """Return the differences between cases in ``NAME.json``."""
    return rows(name, Difference, part="differences")


def _accuracy_table(name: str) -> str:
    return camvid_accuracy.markdown_table(rows(name, camvid_accuracy.CaseResult), compared(name))


def _merging_table() -> str:
    """Return how our ways of merging differ from the published ones, on all that was measured."""
    lines = [
        f"| case | relative to | {' | '.join(title for *_, title in _DIFFERENCES)} |",
        "|---" * (len(_DIFFERENCES) + 2) + "|",
    ]
    found = {
        (name, each.measure, each.case, each.than): each.text()
        for name in dict.fromkeys(name for name, *_ in _DIFFERENCES)
        for each in compared(name)
    }
    for case, than in _PAIRS:
        cells = (found.get((name, measure, case, than), "") for name, measure, _ in _DIFFERENCES)
        lines.append(f"| `{case}` | `{than}` | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "summary": summary_table,
    "accuracy": lambda: _accuracy_table("camvid_accuracy"),
    "accuracy-xeon": lambda: _accuracy_table("camvid_accuracy_xeon"),
    "accuracy-960x720": lambda: _accuracy_table("camvid_accuracy_960x720"),
    "accuracy-960x720-xeon": lambda: _accuracy_table("camvid_accuracy_960x720_xeon"),
    "merging": _merging_table,
    "speed": lambda: overview_tables(speed_rows()),
    "speed-merging": lambda: overview_tables(speed_rows("speed_merging")),
    "precision-segmentation": lambda: precision.markdown_table(content("precision_segmentation")["results"]),
    "precision-pose": lambda: precision.markdown_table(content("precision_pose")["results"]),
    "int8": lambda: "\n\n".join(_int8_tables()),
    "engines": lambda: engines.markdown_table(rows("engines", engines.Build)),
    "isr": lambda: isr_time.markdown_table(rows("isr_time", isr_time.IsrTime)),
    "pose": lambda: lsp_pck.markdown_table(rows("lsp_pck", lsp_pck.CaseResult), compared("lsp_pck")),
    "live": lambda: "\n".join(_live_list()),
    "pipeline": lambda: _pipeline_table("pipeline"),
    "pipeline-waiting": lambda: _pipeline_table("pipeline_waiting"),
    "memory": lambda: memory.markdown_table(memory.read(RESULTS / "memory.json")),
    "motion": lambda: motion_quality.full_table(motion_quality_rows(), "original", "480x360"),
    "motion-classes": lambda: motion_quality.classes_table(motion_quality_rows(), "original", "480x360"),
    "motion-graphs": lambda: motion_quality.cases_table(motion_quality_rows()),
    "motion-live": lambda: motion_live.markdown_table(motion_rows("live", motion_live.Live)),
    "motion-speed": lambda: motion_speed.speed_table(motion_rows("speed", motion_speed.Speed)),
    "jetpack": hardware.jetpack_table,
    "cuda-python": hardware.cuda_python_table,
    "power-modes": hardware.power_table,
    "checked-versions": hardware.checked_table,
    "peaks": hardware.peaks_table,
    "bounds": lambda: bounds.markdown_table(rows("bounds", bounds.Counted)),
    "sources": hardware.sources_table,
    "motion-cost": lambda: motion_speed.cost_table(motion_rows("cost", motion_speed.Cost)),
}


def filled(text: str) -> str:
    """Return a page with each table that it asks for as the results have it now.

    Raises:
        KeyError: it asks for a table that there is none of.
    """
    return _SECTION.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text)


def main(pages: Sequence[Path] = PAGES) -> None:
    """Write the tables into the pages, and name those that changed."""
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if (new := filled(text)) != text:
            write_text(page, new.removesuffix("\n"))
            print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
