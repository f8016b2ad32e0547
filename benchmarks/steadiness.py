"""What `--smooth` does on a labelled sequence: flicker, and accuracy.

    python -m benchmarks.steadiness --data camvid/val

Flicker is the part of the pixels whose label changes from one frame to the next where the truth does not. The frames
are 1/15 s apart: at 30 frames a second the same amount reaches half as far back. Writes JSON into benchmarks/results
and prints the table of docs/results.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.machine import RESULTS, store
from sfpp.export import export_onnx
from sfpp.runtime import Segmenter, load_segmenter
from sfpp.runtime.video import Pipeline, open_source
from sfpp.tooling.label_images import LabelFolder
from sfpp.tooling.label_rules import IGNORED
from sfpp.tooling.metrics import ConfusionMatrix

AMOUNTS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Steadied:
    """One row; all fractions 0..1."""

    variant: str
    smooth: float
    flicker: float
    mean_iou: float
    pixel_accuracy: float


def measure(data: Path, variant: str, folder: Path, *, amounts: Sequence[float], res: str) -> list[Steadied]:
    """Segment the sequence once for each amount."""
    path = export_onnx(path=folder / f"{variant}.onnx", variant=variant, res=res).path
    with load_segmenter(path, backend="onnxruntime", precision="fp32") as model:
        truth = LabelFolder(data / "labels", classes=model.contract.classes, palette=model.contract.palette)
        return [_steadied(model, data, truth, variant, amount) for amount in tqdm(amounts, desc=variant)]


def _steadied(model: Segmenter, data: Path, truth: LabelFolder, variant: str, amount: float) -> Steadied:
    confusion = ConfusionMatrix(len(model.contract.classes), ignore=IGNORED)
    changed = steady = 0
    before: tuple[NDArray[np.uint8], NDArray[np.int16]] | None = None
    with Pipeline(model, [open_source(str(data / "images"))], policy="every-frame", smooth=amount) as pipeline:
        for answer in pipeline:
            true = truth.find(answer.frame.name, answer.frame.image_bgr.shape[:2])
            confusion.update(answer.result.labels, true)
            if before is not None:
                same = (before[1] == true) & (true != IGNORED)
                steady += int(same.sum())
                changed += int((same & (before[0] != answer.result.labels)).sum())
            before = answer.result.labels, true
    return Steadied(variant, amount, changed / steady, float(confusion.mean_iou()), float(confusion.pixel_accuracy()))


def markdown_table(rows: Sequence[Steadied]) -> str:
    """Return the table of docs/results.md."""
    lines = ["| variant | `--smooth` | flicker | mIoU | pixel accuracy |", "|---|---|---|---|---|"]
    lines += [
        f"| `{row.variant}` | {row.smooth:g} | {row.flicker:.2%} | {row.mean_iou:.2%} | {row.pixel_accuracy:.2%} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the measurement and keep its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and labels/ of one sequence")
    parser.add_argument("--variants", nargs="+", default=["original", "fast"])
    parser.add_argument("--amounts", type=float, nargs="+", default=list(AMOUNTS))
    parser.add_argument("--res", default="480x360", metavar="WxH")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "steadiness.json")
    arguments = parser.parse_args()
    rows: list[Steadied] = []
    with tempfile.TemporaryDirectory() as folder:
        for variant in arguments.variants:
            rows += measure(arguments.data, variant, Path(folder), amounts=arguments.amounts, res=arguments.res)
    store(arguments.output, res=arguments.res, frames_per_second=15, results=[asdict(row) for row in rows])
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
