"""Accuracy and speed of the demonstration model on CamVid's test frames, variant by variant, through the runtime.

    python -m benchmarks.camvid_accuracy --data camvid/test
    python -m benchmarks.camvid_accuracy --data camvid/test --res 960x720 --cases original fast:local

A case is a variant, with ``:local`` for local matching and ``:share2`` or ``:shareall`` for blocks that share a
matching; ``@openvino:bf16`` names a backend and what it computes in, ONNX Runtime unless told. Every case sees the same
frames and takes its turn at each, so that a busy machine slows all alike. Writes JSON into benchmarks/results and
prints the table of docs/results.md.
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
from sfpp.runtime.agreement import label_agreement
from sfpp.tooling.metrics import ConfusionMatrix

IGNORE = 11
CASES = [
    case
    for name, recipe in VARIANTS.items()
    for case in ([name, f"{name}:local"] if recipe.merges_bipartite else [name])
]


@dataclass(frozen=True)
class Case:
    """One row to be: what is exported, and what runs it."""

    name: str
    variant: str
    matching: str | None = None
    share_matching: int = 1
    backend: str = "onnxruntime"
    precision: str | None = None

    @staticmethod
    def from_text(text: str) -> Case:
        """Read such as ``fast:local:share2@openvino:bf16``."""
        model, _, place = text.partition("@")
        variant, *words = model.split(":")
        backend, _, precision = place.partition(":")
        share = next((word.removeprefix("share") for word in words if word.startswith("share")), "1")
        if unknown := set(words) - {"local", f"share{share}"}:
            sys.exit(f"the case {text!r} has the unknown part {unknown.pop()!r}; expected :local or :shareN")
        return Case(
            name=text,
            variant=variant,
            matching="local" if "local" in words else None,
            share_matching=0 if share == "all" else int(share),
            backend=backend or "onnxruntime",
            precision=precision or None,
        )


@dataclass(frozen=True)
class CaseResult:
    """One row of the table; ``time_ratio`` is the median over frames of this case's time over the first one's."""

    case: str
    mean_iou: float
    pixel_accuracy: float
    agreement_with_original: float
    latency_ms: float
    time_ratio: float
    iou_by_class: dict[str, float]


class Measured:
    """What has been seen of one case so far."""

    def __init__(self, case: Case, model: Segmenter) -> None:
        self.case = case
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

    def result(self, first: Measured) -> CaseResult:
        """Sum up."""
        ratios = [own / other for own, other in zip(self.latencies_ms, first.latencies_ms, strict=True)]
        return CaseResult(
            case=self.case.name,
            mean_iou=float(self.confusion.mean_iou()),
            pixel_accuracy=float(self.confusion.pixel_accuracy()),
            agreement_with_original=statistics.fmean(self.agreements),
            latency_ms=statistics.median(self.latencies_ms),
            time_ratio=statistics.median(ratios),
            iou_by_class=dict(zip(self.model.contract.classes, map(float, self.confusion.iou()), strict=True)),
        )


def measure(data: Path, *, cases: Sequence[Case], res: str | None, every: int, folder: Path) -> list[CaseResult]:
    """Export the cases at ``res``, or at the size of the first frame, and run them all over the test frames."""
    pairs = [(path, data / "labels" / f"{path.stem}.png") for path in sorted((data / "images").iterdir())][::every]
    if not pairs:
        sys.exit(f"{data} has no images/; give a folder with images/*.jpg and labels/*.png")
    height, width = read_image(pairs[0][0]).shape[:2]
    measured = []
    for case in cases:
        path = folder / f"{len(measured)}.onnx"
        target = "onnxruntime" if case.backend == "onnxruntime" else "portable"
        export_onnx(
            path=path,
            variant=case.variant,
            matching=case.matching,
            share_matching=case.share_matching,
            target=target,
            res=res or (width, height),
        )
        measured.append(Measured(case, load(path, backend=case.backend, precision=case.precision)))
    for image, label in tqdm(pairs, unit="frame", disable=None):
        frame, truth = read_image(image), read_image(label)[..., 0]
        answers = [each.see(frame, truth) for each in measured]
        for each, labels in zip(measured, answers, strict=True):
            each.agreements.append(label_agreement(labels, answers[0]))
    return [each.result(measured[0]) for each in measured]


def markdown_table(results: Sequence[CaseResult]) -> str:
    """Return the table of docs/results.md."""
    lines = [
        f"| case | mIoU | pixel accuracy | labels as `{results[0].case}` | time | relative |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{each.case}` | {each.mean_iou:.2%} | {each.pixel_accuracy:.2%} | {each.agreement_with_original:.2%} "
        f"| {each.latency_ms:.0f} ms | {each.time_ratio:.2f} |"
        for each in results
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the measurement and keep its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/*.jpg and labels/*.png")
    parser.add_argument(
        "--cases",
        nargs="+",
        type=Case.from_text,
        default=[Case.from_text(name) for name in CASES],
        metavar="CASE",
        help="default: all variants, those that match tokens also with local matching",
    )
    parser.add_argument("--res", metavar="WxH", help="input size of the models (default: that of the frames)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th frame")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "camvid_accuracy.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(
            arguments.data, cases=arguments.cases, res=arguments.res, every=arguments.every, folder=Path(folder)
        )
    store(arguments.output, res=arguments.res, frames_every=arguments.every, results=[asdict(each) for each in results])
    print(markdown_table(results))


if __name__ == "__main__":
    main()
