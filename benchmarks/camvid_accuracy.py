"""Accuracy and speed of the demonstration model on CamVid's test frames, variant by variant, through the runtime.

    python -m benchmarks.camvid_accuracy --data camvid/test
    python -m benchmarks.camvid_accuracy --data camvid/test --res 960x720 --cases original fast:local

Beside mIoU stands the F-score of the boundaries, within 4 pixels, over all frames. Differences have the range from 5 to
95 % of a paired bootstrap over blocks of 12 frames that follow each other, a second apart. Writes JSON into
benchmarks/results and prints the table of docs/results.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.machine import store
from benchmarks.paired import (
    Case,
    Contestant,
    Difference,
    Row,
    Score,
    Seen,
    add_arguments,
    cases_to_run,
    chance_text,
    contestants,
    differences,
    keep,
    row_values,
    seen_by,
)
from sfpp.runtime import read_image
from sfpp.runtime.agreement import label_agreement
from sfpp.tooling.metrics import (
    ConfusionMatrix,
    boundary_counts,
    f_score_from_counts,
    iou_from_counts,
    mean_iou_from_counts,
)

IGNORE = 11
BLOCK_FRAMES = 12
CASES = ["original", "hq", "hq:local", "hq+", "fast", "fast:local", "fast:sized", "fast+", "2x2", "downsample", "kv2x2"]
MEASURES: Mapping[str, tuple[str, Score]] = {
    "mean_iou": ("confusion", mean_iou_from_counts),
    "boundary_f": ("boundaries", f_score_from_counts),
}


@dataclass(frozen=True)
class CaseResult(Row):
    """One row of the table, fractions 0..1; ``boundary_f`` is None where it was not measured."""

    mean_iou: float
    pixel_accuracy: float
    iou_by_class: dict[str, float]
    boundary_f: float | None = None


def measure(data: Path, cases: Sequence[Case], *, res: str | None, every: int, folder: Path) -> list[Contestant]:
    """Export the cases at ``res``, or at the size of the first frame, and run them all over the test frames."""
    pairs = [(path, data / "labels" / f"{path.stem}.png") for path in sorted((data / "images").iterdir())][::every]
    if not pairs:
        sys.exit(f"{data} has no images/; give a folder with images/*.jpg and labels/*.png")
    height, width = read_image(pairs[0][0]).shape[:2]
    found = contestants(cases, folder, res=res or (width, height))
    for image, label in tqdm(pairs, unit="frame", disable=None):
        frame, truth = read_image(image), read_image(label)[..., 0]
        predictions = [each.run(frame).labels for each in found]
        for each, labels in zip(found, predictions, strict=True):
            observe(each, labels, truth, predictions[0])
    return found


def observe(contestant: Contestant, labels: NDArray[Any], truth: NDArray[Any], first: NDArray[Any]) -> None:
    """Compare the labels of a frame with the truth, and with those of the first case."""
    confusion = ConfusionMatrix(len(contestant.model.contract.classes), ignore=IGNORE)
    confusion.update(labels, truth)
    contestant.note(
        confusion=confusion.counts,
        boundaries=boundary_counts(labels, truth, ignore=IGNORE),
        agreement=label_agreement(labels, first),
    )


def results(seen: Seen, classes: Sequence[str]) -> list[CaseResult]:
    """Sum up over the frames."""
    return [_result(case, found, classes) for case, found in seen.items()]


def _result(case: str, found: Mapping[str, NDArray[Any]], classes: Sequence[str]) -> CaseResult:
    confusion = found["confusion"].sum(axis=0)
    return CaseResult(
        **row_values(case, found),
        mean_iou=float(mean_iou_from_counts(confusion)),
        pixel_accuracy=float(np.trace(confusion) / confusion.sum()),
        boundary_f=float(f_score_from_counts(found["boundaries"].sum(axis=0))),
        iou_by_class=dict(zip(classes, map(float, iou_from_counts(confusion)), strict=True)),
    )


def markdown_table(rows: Sequence[CaseResult], compared: Sequence[Difference]) -> str:
    """Return the table of docs/results.md, without the columns that no row has."""
    first = rows[0].case
    found = {(each.case, each.measure): each.text() for each in compared if each.than == first}
    titles = ["case", "mIoU"]
    titles += ["difference", "boundary F", "difference"] * bool(compared)
    titles += ["pixel accuracy", f"labels as `{first}`", "time"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        iou, boundary = (found.get((row.case, name), "") for name in MEASURES)
        cells = [f"`{row.case}`", f"{row.mean_iou:.2%}"]
        cells += [iou, "" if row.boundary_f is None else f"{row.boundary_f:.2%}", boundary] * bool(compared)
        cells += [f"{row.pixel_accuracy:.2%}", f"{row.agreement_with_original:.2%}", row.time_text(first)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the measurement and keep its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/*.jpg and labels/*.png")
    parser.add_argument("--res", metavar="WxH", help="input size of the models (default: that of the frames)")
    add_arguments(parser, CASES, "camvid_accuracy")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            arguments.data, cases_to_run(arguments), res=arguments.res, every=arguments.every, folder=Path(folder)
        )
    seen = keep(arguments, seen_by(found))
    rows = results(seen, found[0].model.contract.classes)
    # By the recording's frames, of which only every N-th was seen.
    block = np.arange(len(found[0].seen["agreement"])) * arguments.every // BLOCK_FRAMES
    compared = differences(seen, MEASURES, block)
    store(
        arguments.output,
        res=arguments.res,
        frames_every=arguments.every,
        results=[asdict(row) for row in rows],
        differences=[asdict(each) for each in compared],
    )
    print(markdown_table(rows, compared), chance_text(compared), sep="\n\n")


if __name__ == "__main__":
    main()
