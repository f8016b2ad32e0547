"""Running a model on frames to see what values its tensors take."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sfpp.calibration.int8.histogram import Histogram
from sfpp.calibration.probing import Sampler, outputs_on
from sfpp.runtime.errors import BackendError, UsageError
from sfpp.tooling.graph import add_integers, copy_of, opset_of, remove_unused, running_order, shapes_of

_OPSET_OF_AXES_AS_INPUT = 18
_REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceSum")


def observe(
    model: onnx.ModelProto,
    tensors: Collection[str],
    inputs: Iterable[Mapping[str, NDArray[Any]]],
    *,
    progress: Callable[[int], object] = lambda frames: None,
) -> dict[str, Histogram]:
    """Run a float32 model in ONNX Runtime, frame by frame, and return the histogram of each tensor.

    The largest magnitude is exact. The rest is counted on at most ``SAMPLE`` values of a frame, evenly spread over the
    tensor and all its channels, and always the same ones. The graph itself takes the sample, so that no more memory is
    needed than for running it.

    Args:
        model: with the shape of every tensor, as :func:`sfpp.tooling.graph.read_model` gives it.
        tensors: names of float32 tensors.
        inputs: the arrays of each frame by input name.
        progress: called after each frame with how many there were.

    Raises:
        UsageError: a tensor that is not in the graph or whose shape is not known, or no frame.
        BackendError: a tensor holds NaN or infinity, or ONNX Runtime cannot run the model.
        MissingDependencyError: onnxruntime is not installed.
    """
    histograms = {name: Histogram() for name in tensors}
    for frame, results in outputs_on(with_samples(model, list(histograms)), inputs):
        for name, histogram in histograms.items():
            _add(histogram, name, results, frame)
        progress(frame + 1)
    return histograms


def channel_magnitudes(
    model: onnx.ModelProto,
    axes: Mapping[str, int],
    inputs: Iterable[Mapping[str, NDArray[Any]]],
) -> dict[str, NDArray[np.float32]]:
    """Return the largest magnitude of each channel, (channels,), of tensors whose channels lie along ``axes``.

    Args:
        model, inputs: as for :func:`observe`.
        axes: the axis of the channels by tensor.

    Raises:
        UsageError, BackendError, MissingDependencyError: as for :func:`observe`.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for frame, results in outputs_on(with_channel_limits(model, axes), inputs):
        for name in axes:
            limits = (np.abs(results[f"{name}/{operator}"].ravel()) for operator in _REDUCTIONS[:2])
            largest = np.maximum(*limits)
            if not np.isfinite(largest).all():
                raise _not_finite(name, frame)
            found[name] = np.maximum(found[name], largest) if name in found else largest
    return found


def _add(histogram: Histogram, name: str, results: Mapping[str, NDArray[Any]], frame: int) -> None:
    highest, lowest, total = (float(results[f"{name}/{operator}"]) for operator in _REDUCTIONS)
    # Maximum and minimum may pass over a NaN, the sum does not.
    if not all(map(math.isfinite, (highest, lowest, total))):
        raise _not_finite(name, frame)
    histogram.add(results[f"{name}/sample"], extremes=(lowest, highest))


def _not_finite(name: str, frame: int) -> BackendError:
    return BackendError(
        f"tensor {name!r} holds values that are not finite (NaN or infinity) on calibration frame {frame}; "
        "check the checkpoint with sfpp-parity, or leave that frame out"
    )


def with_samples(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """Return a copy whose outputs are, for each tensor, a sample of it, its maximum, minimum and sum."""
    observed, shapes = _without_outputs(model, tensors)
    graph, sampler = observed.graph, Sampler(observed.graph)
    for name in _latest_first(graph, tensors):
        for operator in _REDUCTIONS:
            graph.node.append(helper.make_node(operator, [name], [f"{name}/{operator}"], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(f"{name}/{operator}", TensorProto.FLOAT, []))
        sample = sampler.add(name, shapes[name])
        graph.output.append(helper.make_tensor_value_info(sample, TensorProto.FLOAT, [None]))
    remove_unused(graph)
    return observed


def with_channel_limits(model: onnx.ModelProto, axes: Mapping[str, int]) -> onnx.ModelProto:
    """Return a copy whose outputs are, for each tensor, the maximum and the minimum of each channel."""
    observed, shapes = _without_outputs(model, axes)
    graph = observed.graph
    as_input = opset_of(model) >= _OPSET_OF_AXES_AS_INPUT
    for name in _latest_first(graph, axes):
        axis = axes[name]
        others = [index for index in range(len(shapes[name])) if index != axis]
        extra = [add_integers(graph, f"observing/axes_{'_'.join(map(str, others))}", others)] if as_input else []
        for operator in _REDUCTIONS[:2]:
            result = f"{name}/{operator}"
            node = helper.make_node(operator, [name, *extra], [result], keepdims=0)
            node.attribute.extend([] if as_input else [helper.make_attribute("axes", others)])
            graph.node.append(node)
            graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, [shapes[name][axis]]))
    remove_unused(graph)
    return observed


def _latest_first(graph: onnx.GraphProto, tensors: Iterable[str]) -> list[str]:
    """Return tensors in the order in which what reads them has to be added.

    ONNX Runtime works towards the last of the nodes that nobody reads first. So each tensor is read as soon as it is
    there, and given up; in another order all are held until the end.
    """
    made = [name for index in running_order(graph.node) for name in graph.node[index].output]
    place = {name: index for index, name in enumerate(made)}  # an input of the graph is there first
    return sorted(tensors, key=lambda name: place.get(name, -1), reverse=True)


def _without_outputs(
    model: onnx.ModelProto, tensors: Iterable[str]
) -> tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]:
    """Return a copy without outputs, and the shapes of the tensors that are to become some."""
    shapes = shapes_of(model)
    for name in tensors:
        if name not in shapes:
            raise UsageError(f"tensor {name!r} is not a float32 tensor of known shape in this model; read it anew")
    copied = copy_of(model)
    del copied.graph.output[:]
    return copied, shapes
