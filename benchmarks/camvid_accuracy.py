"""Accuracy and speed of the demonstration model on CamVid's test frames, variant by variant, through the runtime.

    python -m benchmarks.camvid_accuracy --data ../shared/data/camvid/test

Every variant is exported at the frames' size and sees the same frames; the variants take turns at each frame, so that a
busy machine slows them alike. Writes JSON into benchmarks/results and prints the table of the README.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.machine import RESULTS, store
from sfpp.export import export_onnx
from sfpp.export.catalog import VARIANTS
from sfpp.runtime import Segmenter, load, read_image
from sfpp.runtime.agreement import ConfusionMatrix, label_agreement

IGNORE = 11


@dataclass(frozen=True)
class VariantResult:
    """One row of the table; ``time_ratio`` is the median over frames of this variant's time over the first one's."""

    variant: str
    mean_iou: float
    pixel_accuracy: float
    agreement_with_original: float
    latency_ms: float
    time_ratio: float
    iou_by_class: dict[str, float]


class Measured:
    """What has been seen of one variant so far."""

    def __init__(self, variant: str, model: Segmenter) -> None:
        self.variant = variant
        self.model = model
        self.confusion = ConfusionMatrix(len(model.contract.classes), ignore=IGNORE)
        self.latencies_ms: list[float] = []
        self.agreements: list[float] = []

    def see(self, frame_bgr: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Segment one labelled frame and return its labels."""
        start = time.perf_counter()
        labels = self.model(frame_bgr).labels
        self.latencies_ms.append((time.perf_counter() - start) * 1e3)
        self.confusion.update(labels, truth)
        return labels

    def result(self, first: Measured) -> VariantResult:
        """Sum up."""
        ratios = [own / other for own, other in zip(self.latencies_ms, first.latencies_ms, strict=True)]
        return VariantResult(
            variant=self.variant,
            mean_iou=float(self.confusion.mean_iou()),
            pixel_accuracy=float(self.confusion.pixel_accuracy()),
            agreement_with_original=statistics.fmean(self.agreements),
            latency_ms=statistics.median(self.latencies_ms),
            time_ratio=statistics.median(ratios),
            iou_by_class=dict(zip(self.model.contract.classes, map(float, self.confusion.iou()), strict=True)),
        )


def measure(data: Path, *, variants: Sequence[str], every: int, folder: Path) -> list[VariantResult]:
    """Export the variants at the size of the first frame and run them all over the test frames."""
    pairs = [(path, data / "labels" / f"{path.stem}.png") for path in sorted((data / "images").iterdir())][::every]
    if not pairs:
        sys.exit(f"{data} has no images/; give a folder with images/*.jpg and labels/*.png")
    height, width = read_image(pairs[0][0]).shape[:2]
    measured = []
    for variant in variants:
        report = export_onnx(path=folder / f"{variant}.onnx", variant=variant, res=(width, height))
        measured.append(Measured(variant, load(report.path, backend="onnxruntime")))
    for image, label in tqdm(pairs, unit="frame", disable=None):
        frame, truth = read_image(image), read_image(label)[..., 0]
        answers = [each.see(frame, truth) for each in measured]
        for each, labels in zip(measured, answers, strict=True):
            each.agreements.append(label_agreement(labels, answers[0]))
    return [each.result(measured[0]) for each in measured]


def markdown_table(results: Sequence[VariantResult]) -> str:
    """Return the README's table."""
    lines = [
        "| variant | mIoU | pixel accuracy | labels as `original` | time | relative |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{each.variant}` | {each.mean_iou:.2%} | {each.pixel_accuracy:.2%} | {each.agreement_with_original:.2%} "
        f"| {each.latency_ms:.0f} ms | {each.time_ratio:.2f} |"
        for each in results
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the measurement and keep its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/*.jpg and labels/*.png")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), help="default: all named ones")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th frame")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "camvid_accuracy.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(arguments.data, variants=arguments.variants, every=arguments.every, folder=Path(folder))
    store(arguments.output, frames_every=arguments.every, results=[asdict(each) for each in results])
    print(markdown_table(results))


if __name__ == "__main__":
    main()
