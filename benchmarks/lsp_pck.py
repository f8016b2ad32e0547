"""Accuracy and speed of the demonstration pose model on LSP Extended's test crops, variant by variant.

    python -m benchmarks.lsp_pck --data lsp_extended

PCK@0.2: a visible joint counts as right within 0.2 times the torso, the distance from left shoulder to right hip; crops
in which one of these two is not annotated are left out. The crops are the persons' boxes already grown, so the box
handed to the runtime is the crop shrunk by what the runtime adds. Writes JSON into benchmarks/results and prints the
table of docs/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.machine import RESULTS, store
from sfpp.export import export_onnx
from sfpp.runtime import read_image
from sfpp.runtime.crops import box_of_crop
from sfpp.runtime.model_file import load
from sfpp.runtime.pose import PoseEstimator
from sfpp.tooling.metrics import KeypointHits

NEAR = 0.2
PAIRS = {
    "ankle": (0, 5),
    "knee": (1, 4),
    "hip": (2, 3),
    "wrist": (6, 11),
    "elbow": (7, 10),
    "shoulder": (8, 9),
    "neck": (12,),
    "head": (13,),
}


@dataclass(frozen=True)
class VariantResult:
    """One row of the table: the share of right joints, in all and by joint, left and right together."""

    variant: str
    flip_test: bool
    pck: float
    pck_by_joint: dict[str, float]
    latency_ms: float
    time_ratio: float


class Measured:
    """What has been seen of one variant so far."""

    def __init__(self, variant: str, model: PoseEstimator) -> None:
        self.variant = variant
        self.model = model
        assert model.contract.keypoints is not None
        self.hits = KeypointHits(model.contract.keypoints.names, near=NEAR)
        self.latencies_ms: list[float] = []

    def see(self, crop_bgr: NDArray[Any], truth: NDArray[Any]) -> None:
        """Find the joints of one crop and compare."""
        height, width = crop_bgr.shape[:2]
        assert self.model.contract.keypoints is not None
        box = box_of_crop((height, width), padding=self.model.contract.keypoints.box_padding)
        start = time.perf_counter()
        pose = self.model(crop_bgr, box)
        self.latencies_ms.append((time.perf_counter() - start) * 1e3)
        self.hits.update(pose.keypoints_xy[0], truth)

    def result(self, first: Measured) -> VariantResult:
        """Sum up."""
        ratios = [own / other for own, other in zip(self.latencies_ms, first.latencies_ms, strict=True)]
        right, counted = self.hits.right, self.hits.counted
        by_joint = {name: float(right[list(each)].sum() / counted[list(each)].sum()) for name, each in PAIRS.items()}
        return VariantResult(
            variant=self.variant,
            flip_test=self.model.flip_test,
            pck=self.hits.pck(),
            pck_by_joint=by_joint,
            latency_ms=statistics.median(self.latencies_ms),
            time_ratio=statistics.median(ratios),
        )


def measure(data: Path, *, variants: Sequence[str], every: int, folder: Path) -> list[VariantResult]:
    """Export the variants and run them all, in turn, over the test crops; `original` also with the flip test."""
    with np.load(data / "joints.npz") as stored:
        names, joints, test = stored["names"], stored["joints"], stored["test"]
    chosen = np.flatnonzero(test)[::every]
    models = {
        variant: export_onnx(path=folder / f"{variant}.onnx", task="pose", variant=variant).path for variant in variants
    }
    measured = [Measured(variant, _pose_model(path)) for variant, path in models.items()]
    measured.append(Measured(variants[0], _pose_model(models[variants[0]], flip_test=True)))
    for index in tqdm(chosen, unit="crop", disable=None):
        crop = read_image(data / "images" / str(names[index]))
        for each in measured:
            each.see(crop, joints[index])
    return [each.result(measured[0]) for each in measured]


def _pose_model(path: Path, *, flip_test: bool = False) -> PoseEstimator:
    model = load(path, flip_test=flip_test, backend="onnxruntime")
    assert isinstance(model, PoseEstimator)
    return model


def markdown_table(results: Sequence[VariantResult]) -> str:
    """Return the table of docs/results.md."""
    lines = [f"| variant | PCK@0.2 | {' | '.join(PAIRS)} | time | relative |", "|---" * (len(PAIRS) + 4) + "|"]
    for each in results:
        joints = " | ".join(f"{share:.0%}" for share in each.pck_by_joint.values())
        name = f"`{each.variant}`" + (" with flip test" if each.flip_test else "")
        lines.append(f"| {name} | {each.pck:.2%} | {joints} | {each.latency_ms:.0f} ms | {each.time_ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Run the measurement and keep its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with joints.npz and images/")
    parser.add_argument("--variants", nargs="+", default=["original", "hq", "fast", "2x2"])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th crop")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "lsp_pck.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(arguments.data, variants=arguments.variants, every=arguments.every, folder=Path(folder))
    store(arguments.output, crops_every=arguments.every, results=[asdict(each) for each in results])
    print(markdown_table(results))


if __name__ == "__main__":
    main()
