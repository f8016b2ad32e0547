"""Files: how good labels are where the network sees every K-th frame only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from tqdm import tqdm

from benchmarks.motion.drive import Drive, answers_of, recorded
from benchmarks.motion.scores import TITLES, Counts, Judge, Labels, Scores, added, cells
from benchmarks.paired import Difference, differences
from sfpp.runtime import Segmenter
from sfpp.runtime.motion.carry import MIX
from sfpp.runtime.video import Pipeline
from sfpp.tooling.metrics import mean_iou_from_counts

CASES = ("original", "hq", "fast", "fast:local", "fast+", "2x2")
BLOCK_FRAMES = 10
_KEYS = (2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Setting:
    """How a file is run: as ``--key-every``, ``--smooth`` and ``--no-look-ahead`` say."""

    key_every: int = 1
    smooth: float = 0.0
    look_ahead: bool = False

    @property
    def phases(self) -> tuple[int, ...]:
        """Where runs begin, so that other frames are key frames: the first one always is."""
        return (0,) if self.key_every == 1 else (0, self.key_every // 2)


EVERY_FRAME = Setting()
SETTINGS = (
    EVERY_FRAME,
    Setting(1, MIX),
    *(Setting(key_every, MIX) for key_every in _KEYS),
    *(Setting(key_every, MIX, look_ahead=True) for key_every in _KEYS),
)


@dataclass(frozen=True)
class Quality(Scores):
    """One row; ``to_every_frame`` compares mIoU with the network on every one of the same frames."""

    case: str
    res: str
    key_every: int
    smooth: float
    look_ahead: bool
    to_every_frame: Difference | None = None

    @property
    def way(self) -> str:
        """Return where labels come from, in words."""
        if self.key_every == 1:
            return f"`--smooth {self.smooth:g}`" if self.smooth else "as they are"
        return "both sides" if self.look_ahead else "before"


def measure(
    case: str, res: str, model: Segmenter, drive: Drive, judge: Judge, settings: Sequence[Setting] = SETTINGS
) -> list[Quality]:
    """Run the sequence with each setting, of which the first is the network on every frame."""
    known = recorded(model.contract, answers_of(model, drive))
    every: Counts = {}
    rows = []
    for setting in tqdm(settings, desc=f"{case}, {res}", unit="setting", disable=None):
        counts = added([judge.counts(labels_of(known, drive, setting, first)) for first in setting.phases])
        every = every or counts
        difference = None if setting == EVERY_FRAME else compared(counts, every, setting.phases)
        rows.append(Quality(**judge.scores(counts), case=case, res=res, **asdict(setting), to_every_frame=difference))
    return rows


def labels_of(model: Segmenter, drive: Drive, setting: Setting, first: int) -> list[Labels | None]:
    """Run the frames from ``first`` on; None for those before."""
    labels: list[Labels | None] = [None] * len(drive)
    with Pipeline(
        model,
        [drive.file(first)],
        policy="every-frame",
        key_every=setting.key_every,
        smooth=setting.smooth,
        look_ahead=setting.look_ahead,
    ) as pipeline:
        for answer in pipeline:
            labels[first + answer.frame.index] = answer.result.labels
    return labels


def compared(counts: Counts, every: Counts, phases: Sequence[int]) -> Difference:
    """Compare mIoU with every frame's, where each frame counts as often as there are runs that have it."""
    frames = np.arange(len(every["confusion"]))
    times = np.sum([frames >= first for first in phases], axis=0)
    seen = {
        "every frame": {"confusion": every["confusion"] * times[:, np.newaxis, np.newaxis]},
        "carried": {"confusion": counts["confusion"]},
    }
    (difference,) = differences(seen, {"mean_iou": ("confusion", mean_iou_from_counts)}, frames // BLOCK_FRAMES)
    return difference


def full_table(rows: Sequence[Quality], case: str, res: str) -> str:
    """Return all settings of one case."""
    titles = ("network sees", "labels from", *TITLES, "mIoU to every frame")
    chosen = (row for row in rows if (row.case, row.res) == (case, res))
    return _table(titles, ([_keys(row), row.way, *cells(row), _to_every(row)] for row in chosen))


def cases_table(rows: Sequence[Quality]) -> str:
    """Return of each case what matters most: every frame, the same smoothed, and every 4th frame either way."""
    titles = ("graph", "input", "network sees", "labels from", *TITLES, "mIoU to every frame")
    chosen = (row for row in rows if row.key_every in (1, 4))
    return _table(
        titles, ([f"`{row.case}`", row.res, _keys(row), row.way, *cells(row), _to_every(row)] for row in chosen)
    )


def classes_table(rows: Sequence[Quality], case: str, res: str) -> str:
    """Return each class's IoU for the same settings of one case."""
    chosen = [row for row in rows if (row.case, row.res) == (case, res) and row.key_every in (1, 4)]
    names = chosen[0].iou_by_class if chosen else ()
    values = ([_keys(row), row.way, *(f"{iou:.1%}" for iou in row.iou_by_class.values())] for row in chosen)
    return _table(("network sees", "labels from", *names), values)


def _keys(row: Quality) -> str:
    return "every frame" if row.key_every == 1 else f"1 of {row.key_every}"


def _to_every(row: Quality) -> str:
    return row.to_every_frame.text() if row.to_every_frame else ""


def _table(titles: Sequence[str], rows: Iterator[list[str]]) -> str:
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])
