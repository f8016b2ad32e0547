"""What a list of latencies says: percentiles, spread, and how much faster one model is than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfpp.runtime.errors import UsageError


@dataclass(frozen=True)
class Summary:
    """Latencies in milliseconds; percentiles are interpolated, so p99 of a few runs is close to the slowest one.

    ``spread`` is the distance between the quartiles over the median: 0.02 on a quiet machine, 0.3 on a busy one.
    """

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    fastest_ms: float
    spread: float


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as another model: the median over the rounds, and its quartiles."""

    median: float
    lower_quartile: float
    upper_quartile: float


def summarize(samples_ms: Sequence[float]) -> Summary:
    """Summarize latencies.

    Raises:
        UsageError: no sample.
    """
    if not samples_ms:
        raise UsageError("there is no sample to summarize: run at least once")
    # Quartiles rather than the standard deviation: one run that the system interrupted would dominate it.
    q1, p50, q3, p90, p99 = (float(value) for value in np.percentile(samples_ms, (25, 50, 75, 90, 99)))
    return Summary(
        count=len(samples_ms),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        mean_ms=float(np.mean(samples_ms)),
        fastest_ms=float(np.min(samples_ms)),
        spread=(q3 - q1) / p50 if p50 > 0 else 0.0,
    )


def speedup(first_ms: Sequence[float], samples_ms: Sequence[float]) -> Speedup:
    """Compare latencies of the same rounds: above 1 where ``samples_ms`` are shorter than ``first_ms``.

    Each round is compared with itself before the median is taken: when another program slows the machine for a while,
    both models of a round suffer, and the ratio stays. The ratio of two medians would move.

    Args:
        first_ms: latencies of the model compared with, one a round.
        samples_ms: latencies of the same rounds; one list may be shorter where measuring was interrupted.

    Raises:
        UsageError: no round in common, or a latency that is not positive.
    """
    common = min(len(first_ms), len(samples_ms))
    if common == 0:
        raise UsageError("there is no round in which both models ran: run at least once")
    first, other = np.asarray(first_ms[:common], float), np.asarray(samples_ms[:common], float)
    if min(first.min(), other.min()) <= 0:
        raise UsageError("a latency is 0 ms or less, so no ratio can be given: the clock is too coarse for this model")
    lower, median, upper = (float(value) for value in np.percentile(first / other, (25, 50, 75)))
    return Speedup(median=median, lower_quartile=lower, upper_quartile=upper)
