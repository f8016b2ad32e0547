"""Live, by the clock: what a camera's frames are labeled with at the time, by a network that takes its time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.motion.drive import FRAMES_PER_SECOND, Answers, Drive, answers_of, recorded
from benchmarks.motion.scores import TITLES, Judge, Labels, Scores, added, cells
from sfpp.runtime import ModelContract, Segmenter
from sfpp.runtime.video import Pipeline
from sfpp.runtime.video.mailbox import Policy

CASES = ("original", "fast:local")
POLICIES: tuple[Policy, ...] = ("freshest", "follow")
TAKES_FRAMES = (1, 2, 4)
FRAME_S = 1 / FRAMES_PER_SECOND
# Before these nothing is shown yet, where the network is slow.
_FIRST_JUDGED = 10


class Shown(NamedTuple):
    """Labels, when they were there on ``time.monotonic``, and how old the frame and the labels were then."""

    at_s: float
    labels: Labels
    frame_age_s: float
    labels_age_s: float


@dataclass(frozen=True)
class Live(Scores):
    """One row: each camera frame, judged with the newest labels that were there before the next one came.

    Attributes:
        case: of the network.
        res: its input.
        policy: of the pipeline.
        takes_frames: how long the network takes, in frames of the camera; 0 for each frame's own labels at once.
        shown: share of the camera's frames that came out.
        frame_age_ms: of a frame from its coming until its labels are there: median and 95 % of those that came out.
        labels_age_ms: the same of the frame that its labels were made for.
    """

    case: str
    res: str
    policy: str
    takes_frames: int
    shown: float = 1.0
    frame_age_ms: tuple[float, float] = (0.0, 0.0)
    labels_age_ms: tuple[float, float] = (0.0, 0.0)


def measure(
    case: str,
    res: str,
    model: Segmenter,
    drive: Drive,
    judge: Judge,
    *,
    rounds: int,
    takes_frames: Sequence[int] = TAKES_FRAMES,
) -> list[Live]:
    """Run the sequence by the clock, ``rounds`` times for each policy and each time that the network takes."""
    answers = answers_of(model, drive)
    at_once = judge.counts(judged([model(frame).labels for frame in drive.frames_bgr]))
    rows = [Live(**judge.scores(at_once), case=case, res=res, policy="", takes_frames=0)]
    runs = [(policy, takes) for takes in takes_frames for policy in POLICIES]
    for policy, takes in tqdm(runs, desc=f"{case}, live", unit="run", disable=None):
        rows.append(_row(case, res, model.contract, answers, drive, judge, policy, takes, rounds))
    return rows


def _row(
    case: str,
    res: str,
    contract: ModelContract,
    answers: Answers,
    drive: Drive,
    judge: Judge,
    policy: Policy,
    takes: int,
    rounds: int,
) -> Live:
    model = recorded(contract, answers, takes_s=takes * FRAME_S)
    found = [run(model, drive, policy) for _ in range(rounds)]
    counts = added([judge.counts(judged(at_the_time(shown, came_s))) for shown, came_s in found])
    answered = [each for shown, _ in found for each in shown]
    return Live(
        **judge.scores(counts),
        case=case,
        res=res,
        policy=policy,
        takes_frames=takes,
        shown=len(answered) / sum(len(came_s) for _, came_s in found),
        frame_age_ms=_ages_ms([each.frame_age_s for each in answered]),
        labels_age_ms=_ages_ms([each.labels_age_s for each in answered]),
    )


def run(model: Segmenter, drive: Drive, policy: Policy) -> tuple[list[Shown], list[float]]:
    """Return what was shown, in order, and when the camera's frames came."""
    came_s: list[float] = []
    shown = []
    with Pipeline(model, [drive.camera(came_s)], policy=policy) as pipeline:
        for answer in pipeline:
            age_s = answer.age_ms / 1000
            key = answer.result.from_key
            at_s = answer.frame.taken_s + age_s
            shown.append(Shown(at_s, answer.result.labels, age_s, age_s + (key.seconds if key else 0.0)))
    return shown, came_s


def at_the_time(shown: Sequence[Shown], came_s: Sequence[float]) -> list[Labels | None]:
    """Return for each of the camera's frames the newest labels that were there a frame's time after it came."""
    newest = np.searchsorted([each.at_s for each in shown], np.array(came_s) + FRAME_S, side="right") - 1
    return [shown[index].labels if index >= 0 else None for index in newest]


def judged(labels: Sequence[Labels | None]) -> list[Labels | None]:
    """Return the labels without those of the first frames.

    Raises:
        RuntimeError: there were none yet for the first frame that counts.
    """
    kept = [None if index < _FIRST_JUDGED else each for index, each in enumerate(labels)]
    if any(each is None for each in kept[_FIRST_JUDGED:]):
        raise RuntimeError(f"nothing was shown for the first {_FIRST_JUDGED} frames; is the machine busy? Run it again")
    return kept


def _ages_ms(ages_s: Sequence[float]) -> tuple[float, float]:
    median, p95 = (1000 * np.percentile(ages_s, (50, 95))).tolist()
    return median, p95


def markdown_table(rows: Sequence[Live]) -> str:
    """Return the table of docs/results.md."""
    titles = ("graph", "network takes", "policy", "streaming mIoU", *TITLES[1:], "frames shown", "their age", "labels'")
    return "\n".join([f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *_lines(rows)])


def _lines(rows: Sequence[Live]) -> Iterator[str]:
    for row in rows:
        takes = f"{row.takes_frames} frame{'s' * (row.takes_frames > 1)}" if row.takes_frames else "no time"
        ages = [f"{median:.0f} ({p95:.0f}) ms" for median, p95 in (row.frame_age_ms, row.labels_age_ms)]
        ends = [f"{row.shown:.0%}", *ages] if row.policy else ["", "", ""]
        policy = f"`{row.policy}`" if row.policy else ""
        yield f"| {' | '.join([f'`{row.case}`', takes, policy, *cells(row), *ends])} |"
