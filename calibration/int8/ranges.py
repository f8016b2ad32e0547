"""From where on INT8 clips the values of a tensor, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sfpp.calibration.int8.histogram import BINS, Histogram
from sfpp.calibration.int8.quantizable import Quantizable
from sfpp.calibration.results import LayerHistogram
from sfpp.calibration.settings import Ranges
from sfpp.runtime.errors import UsageError, did_you_mean

Method = Literal["minmax", "entropy", "percentile"]
METHODS: tuple[Method, ...] = get_args(Method)
# Values are rounded to -127..127 times a step: symmetric, as TensorRT wants it, so -128 stays unused.
LARGEST_INT8 = 127
_LEVELS = LARGEST_INT8 + 1
_BARS = 128  # of a picture of a histogram
_WORST = 6


class Range(NamedTuple):
    """From where to where the values of a tensor are kept; what lies beyond is clipped. ``low <= 0 <= high``."""

    low: float
    high: float

    @property
    def magnitude(self) -> float:
        """Where a range that is symmetric around zero ends."""
        return max(-self.low, self.high)


def threshold(histogram: Histogram, method: Method, *, percentile: float = 99.99) -> float:
    """Return the magnitude above which INT8 clips; 1 where all values are zero, which any threshold keeps exactly.

    Args:
        histogram: of the values.
        method: ``minmax`` clips nothing; ``percentile`` clips the largest few; ``entropy`` clips where the distribution
            of what INT8 makes of the values is most like their own.
        percentile: how many per cent of the values that are not zero keep below the threshold of ``percentile``.

    Raises:
        UsageError: an unknown method, or a percentile that is not above 0 and at most 100.
    """
    if method not in METHODS:
        raise UsageError(f"method is {method!r}{did_you_mean(str(method), METHODS)}; expected {', '.join(METHODS)}")
    if not 0 < percentile <= 100:
        raise UsageError(f"percentile is {percentile}, expected above 0 and at most 100, as a rule 99.9 or more")
    if not histogram.largest:
        return 1.0
    if method == "minmax" or not histogram.counts.any():
        return histogram.largest
    found = _by_entropy(histogram) if method == "entropy" else _by_percentile(histogram, percentile)
    return min(found, histogram.largest)


def range_of(histogram: Histogram, method: Method) -> Range:
    """Return where a form of INT8 with a zero point clips: at the threshold, but not beyond what occurs.

    Raises:
        UsageError: an unknown method.
    """
    limit = threshold(histogram, method)
    return Range(max(histogram.lowest, -limit), min(histogram.highest, limit)) if histogram.largest else Range(0.0, 1.0)


def rounding_error(histogram: Histogram, threshold: float) -> float:
    """Return the mean squared error of rounding and clipping to INT8, over the values' mean square; 0 for zeros alone.

    Values are taken as spread evenly over their bin, which makes the mean over a bin exact however wide it is.
    """
    used = histogram.counts > 0
    if not used.any():
        return 0.0
    edges, weights = histogram.edges, histogram.counts[used]
    error = np.diff(_integral_of_error(edges, threshold / LARGEST_INT8))[used]
    square = np.diff(edges**3)[used] / 3
    return float((error * weights).sum() / (square * weights).sum())


def _integral_of_error(x: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Return the integral from 0 to ``x`` of the squared error of rounding to 0, 1, .. 127 steps."""
    nearest = np.minimum(np.floor(x / step + 0.5), LARGEST_INT8)
    return nearest * step**3 / 12 + (x - nearest * step) ** 3 / 3


def _by_percentile(histogram: Histogram, percentile: float) -> float:
    """Return the magnitude with so many per cent of the values that are not zero below it."""
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    return float(np.interp(below[-1] * percentile / 100, below, histogram.edges))


def _by_entropy(histogram: Histogram) -> float:
    """Return the end of the bins whose distribution changes least when 128 levels stand for them.

    (After S. Migacz, "8-bit inference with TensorRT", 2017.)
    """
    ends = np.flatnonzero(histogram.counts) + 1
    if ends[-1] <= _LEVELS:
        return float(histogram.edges[ends[-1]])  # fewer bins than levels: every bin has a level of its own
    # An image has few values, with empty bins between them; where nothing lies nothing is cut. But the fewest bins, one
    # a level, stay possible: a single value may lie far from all others.
    candidates = np.union1d([_LEVELS], ends[ends > _LEVELS])
    divergence = relative_entropy(histogram.counts, candidates)
    # Of equally good ones the largest: it clips least.
    best = len(candidates) - 1 - int(np.argmin(divergence[::-1]))
    return float(histogram.edges[candidates[best]])


def relative_entropy(counts: NDArray[np.int64], kept: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how unlike values and levels are, in nats, (candidates,), for each number of bins that are kept.

    Two distributions over the kept bins are compared: that of the values, the clipped ones put into the last bin, and
    that of the levels, each spread evenly over those of its bins that hold values. The latter is constant within a
    level, so cumulative sums give all candidates at once.

    Args:
        counts: values by magnitude, (BINS,).
        kept: numbers of bins, (candidates,), 128 or more each.
    """
    counted, occupied, own = (_summed(each) for each in (counts, counts > 0, _x_log_x(counts)))
    total, inside = counted[-1], counted[kept]
    clipped, last = total - inside, counts[kept - 1]
    level_edges = kept[:, None] * np.arange(_LEVELS + 1) // _LEVELS
    level_counts, level_bins = np.diff(counted[level_edges]), np.diff(occupied[level_edges])
    # Clipped values make the last bin an occupied one. Where its level has no values of its own it is given one, since
    # a level that never occurs would make the divergence infinite, whatever little was clipped.
    level_bins[:, -1] += (last == 0) & (clipped > 0)
    invented = (level_counts[:, -1] == 0) & (clipped > 0)
    log_height = np.log(np.maximum(level_counts, 1) / np.maximum(level_bins, 1))
    p_log_p = own[kept] - _x_log_x(last) + _x_log_x(last + clipped)
    p_log_q = (level_counts * log_height).sum(axis=1) + clipped * log_height[:, -1]
    # Both distributions still want dividing by their sums.
    result: NDArray[np.float64] = (p_log_p - p_log_q) / total - np.log(total) + np.log(inside + invented)
    return result


def _summed(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sum of the first 0, 1, .. values."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _x_log_x(x: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(x * np.log(np.maximum(x, 1)), np.float64)


@dataclass(frozen=True)
class ChosenRanges:
    """Where each tensor is clipped, and by which method."""

    method: Method
    by_tensor: Mapping[str, Range]


def choose_ranges(
    observed: Mapping[str, Histogram],
    ranges: Ranges,
    *,
    error_with: Callable[[Mapping[str, Range]], float],
    notify: Callable[[str], object],
) -> ChosenRanges:
    """Return the ranges by the method that is asked for; for ``auto``, of the one with the least error.

    Args:
        observed: histograms by tensor.
        ranges: the method.
        error_with: tells the error of the whole network's outputs with these ranges.
        notify: called with the error of each method.
    """
    methods = METHODS if ranges == "auto" else (ranges,)
    found = [
        ChosenRanges(method, {name: range_of(each, method) for name, each in observed.items()}) for method in methods
    ]
    if len(found) == 1:
        return found[0]
    errors = [error_with(each.by_tensor) for each in found]
    errors_by_method = ", ".join(f"{each.method} {error:.2%}" for each, error in zip(found, errors, strict=True))
    notify(f"relative squared error of the outputs by range: {errors_by_method}")
    return found[int(np.argmin(errors))]


def worst_layers(
    observed: Mapping[str, Histogram], chosen: Mapping[str, Range], products: Sequence[Quantizable]
) -> tuple[LayerHistogram, ...]:
    """Return the tensors that lose most by rounding, the worst first, each by the name of a product that it feeds."""
    fed = {each.activation: each.node for each in reversed(products)}
    found = [
        LayerHistogram(
            node=fed[name],
            counts=each.counts.reshape(_BARS, BINS // _BARS).sum(axis=1),
            largest=each.limit,
            threshold=chosen[name].magnitude,
            error=rounding_error(each, chosen[name].magnitude),
        )
        for name, each in observed.items()
        if name in fed
    ]
    return tuple(sorted(found, key=lambda each: -each.error)[:_WORST])
