"""Running a model on frames to see what values its tensors take."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sfpp.calibration.int8.histogram import Histogram
from sfpp.runtime.backends import BackendOptions, OnnxRuntimeBackend
from sfpp.runtime.errors import BackendError, UsageError
from sfpp.tooling.graph import add_integers, copy_of, opset_of, remove_unused, running_order, shapes_of

# Of a larger tensor a sample this large is looked at, beside its largest and smallest value.
SAMPLE = 1 << 17
_OPSET_OF_AXES_AS_INPUT = 18
_REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceSum")


def observe(
    model: onnx.ModelProto,
    tensors: Collection[str],
    inputs: Iterable[Mapping[str, NDArray[Any]]],
    *,
    progress: Callable[[int], object] = lambda frames: None,
    threads: int | None = None,
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
        threads: for ONNX Runtime; None leaves the choice to it.

    Raises:
        UsageError: a tensor that is not in the graph or whose shape is not known, or no frame.
        BackendError: a tensor holds NaN or infinity, or ONNX Runtime cannot run the model.
        MissingDependencyError: onnxruntime is not installed.
    """
    histograms = {name: Histogram() for name in tensors}
    for frame, results in _results(with_samples(model, list(histograms)), inputs, threads=threads):
        for name, histogram in histograms.items():
            _add(histogram, name, results, frame)
        progress(frame + 1)
    return histograms


def channel_magnitudes(
    model: onnx.ModelProto,
    axes: Mapping[str, int],
    inputs: Iterable[Mapping[str, NDArray[Any]]],
    *,
    progress: Callable[[int], object] = lambda frames: None,
    threads: int | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Return the largest magnitude of each channel, (channels,), of tensors whose channels lie along ``axes``.

    Args:
        model, inputs, progress, threads: as for :func:`observe`.
        axes: the axis of the channels by tensor.

    Raises:
        UsageError, BackendError, MissingDependencyError: as for :func:`observe`.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for frame, results in _results(with_channel_limits(model, axes), inputs, threads=threads):
        for name in axes:
            limits = (np.abs(results[f"{name}/{operator}"].ravel()) for operator in _REDUCTIONS[:2])
            largest = np.maximum(*limits)
            if not np.isfinite(largest).all():
                raise _not_finite(name, frame)
            found[name] = np.maximum(found[name], largest) if name in found else largest
        progress(frame + 1)
    return found


def _results(
    model: onnx.ModelProto, inputs: Iterable[Mapping[str, NDArray[Any]]], *, threads: int | None
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """Yield the number of each frame, from 0, and what the model's outputs are on it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "observed.onnx"
        onnx.save(model, str(path))
        backend = OnnxRuntimeBackend(path, BackendOptions(threads=threads))
    frame = -1
    try:
        for frame, arrays in enumerate(inputs):
            yield frame, backend.run(arrays)
    finally:
        backend.close()
    if frame < 0:
        raise UsageError(
            "there is nothing to observe the model on: no frame, or nobody in the frames; give at least one"
        )


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
    graph = observed.graph
    flat = add_integers(graph, "observing/flat", [-1])
    for name in _latest_first(graph, tensors):
        for operator in _REDUCTIONS:
            graph.node.append(helper.make_node(operator, [name], [f"{name}/{operator}"], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(f"{name}/{operator}", TensorProto.FLOAT, []))
        graph.node.extend(_sample(graph, name, flat, stride_for(math.prod(shapes[name]))))
        graph.output.append(helper.make_tensor_value_info(f"{name}/sample", TensorProto.FLOAT, [None]))
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


def _sample(graph: onnx.GraphProto, name: str, flat: str, stride: int) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that take every so manieth value of a tensor."""
    sample = f"{name}/sample"
    if stride == 1:
        yield helper.make_node("Reshape", [name, flat], [sample])
        return
    yield helper.make_node("Reshape", [name, flat], [f"{name}/flat"])
    start, end, axis = (add_integers(graph, f"observing/{each}", [each]) for each in (0, np.iinfo(np.int64).max, 0))
    step = add_integers(graph, f"observing/step_{stride}", [stride])
    yield helper.make_node("Slice", [f"{name}/flat", start, end, axis, step], [sample])


def stride_for(size: int, *, sample: int = SAMPLE) -> int:
    """Return the smallest stride that leaves at most ``sample`` of ``size`` values and visits all channels alike.

    It shares no divisor with the size, hence none with any dimension: a stride of 2 along tokens of 64 channels would
    only ever see the even ones.
    """
    stride = -(-size // sample)
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride
