"""What FP16 and INT8 cost in accuracy, and what they bring in speed: the demonstration models on their test frames.

    python -m benchmarks.precision segmentation --data camvid
    python -m benchmarks.precision pose --data lsp_extended

Every variant is exported, calibrated on training frames as `sfpp-calibrate` does it, and judged by all test frames in
ONNX Runtime and in OpenVINO. Writes JSON into benchmarks/results and prints the table of docs/results.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, points_text, store
from sfpp.calibration import CalibrationReport, calibrate
from sfpp.calibration.results import FileResult
from sfpp.export import export_onnx

VARIANTS = ["original", "hq", "fast", "2x2", "hq:local", "fast:local"]


@dataclass(frozen=True)
class Case:
    """A model and the frames that belong to it."""

    task: str
    data: Path
    res: str

    def frames(self, folder: Path) -> dict[str, Any]:
        """Return the arguments of a calibration: training frames to calibrate with, all test frames to judge by."""
        if self.task == "segmentation":
            test = self.data / "test"
            return {
                "images": self.data / "train" / "images",
                "validation": test / "images",
                "labels": test / "labels",
                "held_out": len(list((test / "images").iterdir())),
            }
        return self._crops(folder)

    def _crops(self, folder: Path) -> dict[str, Any]:
        """Write the lists of training and of test crops."""
        with np.load(self.data / "joints.npz") as stored:
            names, test = stored["names"], stored["test"]
        lists = {}
        for part, chosen in (("train", ~test), ("test", test)):
            lists[part] = folder / f"{part}.txt"
            paths = [str((self.data / "images" / str(name)).resolve()) for name in names[chosen]]
            lists[part].write_text("\n".join(paths), encoding="utf-8")
        return {
            "images": lists["train"],
            "validation": lists["test"],
            "labels": self.data / "joints.npz",
            "held_out": int(test.sum()),
        }


def measure(
    case: Case, variants: Sequence[str], *, max_drop: float | None, rest: str, folder: Path
) -> list[dict[str, Any]]:
    """Calibrate each variant and return the rows of the table."""
    frames = case.frames(folder)
    rows = []
    for variant in variants:
        name, _, matching = variant.partition(":")
        path = folder / f"{variant.replace(':', '-')}.onnx"
        export_onnx(path=path, task=case.task, variant=name, matching=matching or None, res=case.res)
        report = calibrate(
            path, **frames, rest=rest, max_drop=max_drop, output=folder, cache=False, report=False, notify=_say
        )
        rows += [_row(variant, each, report) for each in report.files]
    return rows


def _say(line: str) -> None:
    print(f"benchmarks.precision: {line}", file=sys.stderr, flush=True)


def _row(variant: str, file: FileResult, report: CalibrationReport) -> dict[str, Any]:
    facts = asdict(file)
    del facts["path"]
    return {"variant": variant, **facts, "seconds": report.seconds if file is report.files[0] else {}}


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of docs/results.md."""
    metric = "PCK@0.2" if rows[0]["accuracy"]["pck"] is not None else "mIoU"
    backends = list(dict.fromkeys(each["backend"] for row in rows for each in row["latencies"]))
    lines = [
        f"| variant | precision | {metric} | lost | agreement with FP32 | size | {' | '.join(backends)} |",
        "|---" * (6 + len(backends)) + "|",
    ]
    for row in rows:
        accuracy = row["accuracy"]["pck" if metric == "PCK@0.2" else "mean_iou"]
        by_backend = {each["backend"]: each for each in row["latencies"]}
        times = [_time(by_backend.get(name)) for name in backends]
        lost = "" if row["precision"] == "fp32" else points_text(row["drop"])
        lines.append(
            f"| `{row['variant']}` | {row['precision'].upper()} | {accuracy:.2%} | {lost} | "
            f"{row['accuracy']['agreement']:.2%} | {row['size_bytes'] / 1e6:.1f} MB | {' | '.join(times)} |"
        )
    return "\n".join(lines)


def _time(latency: dict[str, Any] | None) -> str:
    if latency is None or latency["p50_ms"] is None:
        return ""
    ratio = "" if latency["speedup"] is None else f" ({latency['speedup']:.2f}x)"
    return f"{latency['p50_ms']:.0f} ms{ratio}"


def main() -> None:
    """Run the measurement and keep its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("segmentation", "pose"))
    parser.add_argument("--data", type=Path, required=True, help="CamVid's folder, or that of LSP Extended")
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    parser.add_argument("--res", metavar="WxH", help="default: 480x360, for pose 192x256")
    parser.add_argument("--max-drop", type=float, metavar="X", help="what INT8 may lose (default: no limit)")
    parser.add_argument("--rest", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    res = arguments.res or ("480x360" if arguments.task == "segmentation" else "192x256")
    case = Case(arguments.task, arguments.data, res)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(case, arguments.variants, max_drop=arguments.max_drop, rest=arguments.rest, folder=Path(folder))
    budget = "" if arguments.max_drop is None else f"_within_{arguments.max_drop:g}"
    output = arguments.output or RESULTS / f"precision_{arguments.task}{budget}.json"
    store(output, res=res, max_drop=arguments.max_drop, rest=arguments.rest, results=rows)
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
