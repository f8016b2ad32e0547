"""The age of what is shown, with a camera that is much faster than the model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.waiting import blank_frame, waiting
from sfpp.runtime import load_segmenter
from sfpp.runtime.video import Pipeline

_WAIT_S = 0.2
_ANSWERS = 150
_SOURCE = "test://?width=320&height=192&fps=60"


@dataclass(frozen=True)
class Freshness:
    """Ages of answers, from the frame's coming, in inference times."""

    inference_ms: float
    answers: int
    dropped: int
    median: float
    p90: float
    p99: float
    oldest: float

    def sentence(self) -> str:
        """Return it in words."""
        return (
            f"60 frames per second, a network that takes {self.inference_ms:.0f} ms: {self.dropped} frames dropped, "
            f"{self.answers} answered at an age of {self.median:.2f} inference times (median), {self.p90:.2f} (90 %), "
            f"{self.p99:.2f} (99 %), {self.oldest:.2f} (oldest)"
        )


def freshness(model: Path) -> Freshness:
    """Run, and keep the ages."""
    with (
        load_segmenter(model) as segmenter,
        Pipeline(waiting(segmenter, blank_frame(segmenter), wait_s=_WAIT_S), [_SOURCE], policy="freshest") as pipeline,
    ):
        answers = iter(pipeline)
        next(answers)  # how long things take is not known before
        ages_ms = [answer.age_ms for answer in islice(answers, _ANSWERS)]
        dropped = sum(pipeline.dropped.values())
        inference_ms = pipeline.timer.latency("infer").p50_ms
    median, p90, p99, oldest = np.percentile(np.array(ages_ms) / inference_ms, (50, 90, 99, 100)).tolist()
    return Freshness(inference_ms, len(ages_ms), dropped, median, p90, p99, oldest)
