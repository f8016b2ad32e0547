"""Accuracy and speed of the demonstration pose model on LSP Extended's test crops, variant by variant.

    python -m benchmarks.lsp_pck --data lsp_extended

PCK@0.2: a visible joint counts as right within 0.2 times the torso, the distance from left shoulder to right hip; crops
in which one of these two is not annotated are left out. The crops are the persons' boxes already grown, so the box
handed to the runtime is the crop shrunk by what the runtime adds. Differences have the range from 5 to 95 % of a paired
bootstrap over the crops. Writes JSON into benchmarks/results and prints the table of docs/results.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
from sfpp.runtime.agreement import unmoved_keypoints
from sfpp.runtime.crops import box_of_crop
from sfpp.tooling.metrics import KeypointHits

NEAR = 0.2
CASES = ["original", "original:flip", "hq", "hq+", "fast", "fast:sized", "fast+", "2x2"]
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


def pck_from_counts(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of right joints, (...), of counts (..., joints, 2): right ones, and all."""
    right, all_joints = np.moveaxis(counts.sum(axis=-2), -1, 0)
    return np.asarray(right / all_joints, np.float64)


MEASURES: Mapping[str, tuple[str, Score]] = {"pck": ("hits", pck_from_counts)}


@dataclass(frozen=True)
class CaseResult(Row):
    """One row of the table: the share of right joints, in all and by joint, left and right together.

    The agreement is that of all joints, annotated or not.
    """

    pck: float
    pck_by_joint: dict[str, float]


def measure(data: Path, cases: Sequence[Case], *, every: int, folder: Path) -> list[Contestant]:
    """Export the cases and run them all, in turn, over the test crops that have a torso."""
    found = contestants(cases, folder, task="pose")
    names = found[0].model.contract.keypoints.names
    for path, truth in tqdm(list(_crops(data, names))[::every], unit="crop", disable=None):
        crop = read_image(path)
        box = box_of_crop(crop.shape[:2], padding=found[0].model.contract.keypoints.box_padding)
        predictions = [each.run(crop, box).keypoints_xy for each in found]
        for each, joints in zip(found, predictions, strict=True):
            unmoved = unmoved_keypoints(joints, predictions[0], box)
            each.note(hits=_hits(names, joints[0], truth), agreement=unmoved.mean())
    return found


def _crops(data: Path, names: Sequence[str]) -> Iterator[tuple[Path, NDArray[Any]]]:
    """Yield the files and the true joints (joints, 3) of the test crops in which anything counts."""
    with np.load(data / "joints.npz") as stored:
        files, joints, test = stored["names"], stored["joints"], stored["test"]
    for index in np.flatnonzero(test):
        if _hits(names, joints[index, :, :2], joints[index]).any():
            yield data / "images" / str(files[index]), joints[index]


def _hits(names: Sequence[str], joints: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.int64]:
    """Return (joints, 2): whether each is right, and whether it counts."""
    hits = KeypointHits(names, near=NEAR)
    hits.update(joints, truth)
    return np.stack([hits.right, hits.counted], axis=1)


def results(seen: Seen) -> list[CaseResult]:
    """Sum up over the crops."""
    rows = []
    for case, found in seen.items():
        hits = found["hits"].sum(axis=0)
        by_joint = {name: float(pck_from_counts(hits[list(each)])) for name, each in PAIRS.items()}
        rows.append(CaseResult(**row_values(case, found), pck=float(pck_from_counts(hits)), pck_by_joint=by_joint))
    return rows


def markdown_table(rows: Sequence[CaseResult], compared: Sequence[Difference]) -> str:
    """Return the table of docs/results.md."""
    first = rows[0].case
    found = {each.case: each.text() for each in compared if each.than == first}
    header = f"| case | PCK@0.2 | difference | joints as `{first}` | {' | '.join(PAIRS)} | time |"
    lines = [header, "|---" * (len(PAIRS) + 5) + "|"]
    for row in rows:
        joints = " | ".join(f"{share:.0%}" for share in row.pck_by_joint.values())
        lines.append(
            f"| `{row.case}` | {row.pck:.2%} | {found.get(row.case, '')} | {row.agreement_with_original:.2%} "
            f"| {joints} | {row.time_text(first)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the measurement and keep its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with joints.npz and images/")
    add_arguments(parser, CASES, "lsp_pck")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.data, cases_to_run(arguments), every=arguments.every, folder=Path(folder))
    seen = keep(arguments, seen_by(found))
    rows = results(seen)
    compared = differences(seen, MEASURES, np.arange(len(found[0].seen["hits"])))
    store(
        arguments.output,
        crops_every=arguments.every,
        results=[asdict(row) for row in rows],
        differences=[asdict(each) for each in compared],
    )
    print(markdown_table(rows, compared), chance_text(compared), sep="\n\n")


if __name__ == "__main__":
    main()
