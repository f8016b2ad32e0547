"""The INT8 file, step by step: ranges, how they are cut, and which nodes stay out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from sfpp.calibration.graph import name_of, shapes_of
from sfpp.calibration.int8.quantizable import Quantizable
from sfpp.calibration.int8.ranges import BINS, METHODS, Histogram, Method, Range, range_of, rounding_error
from sfpp.calibration.results import LayerHistogram
from sfpp.calibration.settings import Ranges

_BARS = 128  # of a picture of a histogram
_WORST = 6


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
        notify: told the error of each method.
    """
    methods = METHODS if ranges == "auto" else (ranges,)
    found = [
        ChosenRanges(method, {name: range_of(each, method) for name, each in observed.items()}) for method in methods
    ]
    if len(found) == 1:
        return found[0]
    errors = [error_with(each.by_tensor) for each in found]
    told = ", ".join(f"{each.method} {error:.2%}" for each, error in zip(found, errors, strict=True))
    notify(f"relative squared error of the outputs by range: {told}")
    return found[int(np.argmin(errors))]


def work_of(model: onnx.ModelProto, products: Sequence[Quantizable]) -> dict[str, int]:
    """Return the multiply-adds of each product, by its node's name."""
    shapes = shapes_of(model)
    weights = {tensor.name: [int(size) for size in tensor.dims] for tensor in model.graph.initializer}
    outputs = {name_of(node): node.output[0] for node in model.graph.node}
    return {
        each.node: math.prod(shapes[outputs[each.node]])
        * (math.prod(weights[each.weight]) // weights[each.weight][each.axis])
        for each in products
    }


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
