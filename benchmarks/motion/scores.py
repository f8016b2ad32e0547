"""How good and how steady the labels of a sequence are.

Steadiness alone says little: labels that never change are perfectly steady. So all measures stand together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.motion.drive import Drive
from sfpp.runtime.imports import import_cv2
from sfpp.tooling.label_rules import IGNORED
from sfpp.tooling.metrics import (
    ConfusionMatrix,
    boundary_counts,
    f_score_from_counts,
    iou_from_counts,
    mean_iou_from_counts,
)

WINDOW = 8
BOUNDARY_PX = 3
_NOWHERE = 255

Labels: TypeAlias = NDArray[np.uint8]
Counts: TypeAlias = Mapping[str, NDArray[Any]]  # by what is counted; the first axis is frames


@dataclass(frozen=True)
class Scores:
    """Of a run; fractions 0..1.

    Attributes:
        mean_iou: over the classes that occur; ``iou_by_class`` has each one's.
        pixel_accuracy: share of pixels that are labeled right.
        boundary_f: F-score of the boundaries between classes, within 3 pixels.
        flicker: share of the pixels whose label changes from one frame to the next though the truth does not.
        vc8: video consistency over 8 frames: of the pixels whose truth stays through them, the share whose label does;
            the mean over all windows.
        tc: temporal consistency: mean IoU between labels and those of the frame before, moved along optical flow.
    """

    mean_iou: float
    pixel_accuracy: float
    boundary_f: float
    flicker: float
    vc8: float
    tc: float
    iou_by_class: dict[str, float]


class Judge:
    """Compares labels of a sequence with its truth, and with each other.

    Args:
        drive: the sequence. Its flow, for ``tc``, is dense inverse search (OpenCV's DIS, medium) at full size.
        classes: their names.
    """

    def __init__(self, drive: Drive, classes: Sequence[str]) -> None:
        self._truth, self._classes = drive.truth, tuple(classes)
        height, width = drive.truth[0].shape
        self._tolerance = BOUNDARY_PX / math.hypot(height, width)
        self._still = [(before == now) & (now != IGNORED) for before, now in pairwise(drive.truth)]
        cv2 = import_cv2(purpose="following motion")
        gray = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in drive.frames_bgr]
        both = tqdm(list(pairwise(gray)), desc="flow", unit="frame", disable=None)
        self._from = [came_from(flow_between(now, before)) for before, now in both]

    def counts(self, labels: Sequence[Labels | None]) -> dict[str, NDArray[Any]]:
        """Return what is counted, frame by frame; zeros for frames without labels, and where a frame before has none.

        ``confusion`` and ``moved`` are (N, C, C), ``boundaries`` (N, 4), ``kept`` and ``windows`` (N, 2): part, whole.
        """
        size = len(self._classes)
        shapes = {"confusion": (size, size), "moved": (size, size), "boundaries": (4,), "kept": (2,), "windows": (2,)}
        found = {name: np.zeros((len(labels), *shape)) for name, shape in shapes.items()}
        steady: list[NDArray[np.bool_]] = []
        for index, now in enumerate(labels):
            if now is None:
                steady.clear()
                continue
            truth = self._truth[index]
            found["confusion"][index] = _confusion(now, truth, size, ignore=IGNORED)
            found["boundaries"][index] = boundary_counts(now, truth, ignore=IGNORED, tolerance=self._tolerance)
            before = labels[index - 1] if index else None
            if before is None:
                continue
            found["moved"][index] = _confusion(now, moved(before, self._from[index - 1]), size, ignore=_NOWHERE)
            steady = [*steady[2 - WINDOW :], before == now]
            still = self._still[index - 1]
            found["kept"][index] = (steady[-1] & still).sum(), still.sum()
            if len(steady) == WINDOW - 1:
                found["windows"][index] = self._window(index, steady)
        return found

    def _window(self, last: int, steady: Sequence[NDArray[np.bool_]]) -> tuple[float, int]:
        still = np.logical_and.reduce(self._still[last - len(steady) : last])
        whole = still.sum()
        return ((np.logical_and.reduce(steady) & still).sum() / whole, 1) if whole else (0.0, 0)

    def scores(self, counts: Counts) -> dict[str, Any]:
        """Return the fields of :class:`Scores` for counts of one run, or of several that were added up."""
        total = {name: each.sum(axis=0) for name, each in counts.items()}
        kept, steady = total["kept"]
        part, windows = total["windows"]
        iou = map(float, iou_from_counts(total["confusion"]))
        return {
            "mean_iou": float(mean_iou_from_counts(total["confusion"])),
            "pixel_accuracy": float(np.trace(total["confusion"]) / total["confusion"].sum()),
            "boundary_f": float(f_score_from_counts(total["boundaries"])),
            "flicker": float(1 - kept / steady),
            "vc8": float(part / windows),
            "tc": float(mean_iou_from_counts(total["moved"])),
            "iou_by_class": dict(zip(self._classes, iou, strict=True)),
        }


def added(runs: Sequence[Counts]) -> dict[str, NDArray[Any]]:
    """Return the counts of several runs over the same frames, frame by frame."""
    return {name: np.sum([run[name] for run in runs], axis=0) for name in runs[0]}


def flow_between(now: NDArray[np.uint8], before: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (H, W, 2) x, y in pixels: where in the gray picture ``before`` lies what is in ``now``."""
    cv2 = import_cv2(purpose="following motion")
    flow: NDArray[np.float32] = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(now, before, None)
    return flow


def came_from(flow: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return (H, W): which pixel, counted along the rows, each one came from; -1 from outside the picture."""
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    x, y = np.rint(columns + flow[..., 0]).astype(np.int32), np.rint(rows + flow[..., 1]).astype(np.int32)
    return np.where((x >= 0) & (x < width) & (y >= 0) & (y < height), y * width + x, -1).astype(np.int32)


def moved(labels: Labels, source: NDArray[np.int32]) -> Labels:
    """Return labels moved to where they are in the next frame; 255 where they come from outside."""
    return np.where(source < 0, np.uint8(_NOWHERE), labels.ravel()[source])


def _confusion(labels: Labels, truth: NDArray[Any], classes: int, *, ignore: int) -> NDArray[np.int64]:
    confusion = ConfusionMatrix(classes, ignore=ignore)
    confusion.update(labels, truth)
    return confusion.counts


TITLES = ("mIoU", "pixel accuracy", "boundary F", "flicker", "VC8", "TC")


def cells(row: Scores) -> list[str]:
    """Return the scores for a table, in the order of ``TITLES``."""
    names = [field.name for field in fields(Scores)][: len(TITLES)]
    return [f"{getattr(row, name):.2%}" for name in names]
