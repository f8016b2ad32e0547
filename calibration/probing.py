"""Graphs that say more of themselves: small samples of large tensors, and what they give on frames."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from sfpp.runtime.backends.onnxruntime import OnnxRuntimeBackend
from sfpp.runtime.errors import UsageError

# Of a larger tensor a sample this large is looked at, beside its largest and smallest value.
SAMPLE = 1 << 17
_END = np.iinfo(np.int64).max


def stride_for(size: int, *, sample: int = SAMPLE) -> int:
    """Return the smallest stride that leaves at most ``sample`` of ``size`` values and visits all channels alike.

    It shares no divisor with the size, hence none with any dimension: a stride of 2 along tokens of 64 channels would
    only ever see the even ones.
    """
    stride = -(-size // sample)
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride


def sample_nodes(tensor: str, stride: int, integers: Callable[..., str]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that write every so manieth value of a tensor, flat, to ``TENSOR/sample``.

    Args:
        tensor: its name.
        stride: from one value to the next.
        integers: stores whole numbers in the graph, and returns their name.
    """
    sample, flat = f"{tensor}/sample", f"{tensor}/flat"
    if stride == 1:
        yield helper.make_node("Reshape", [tensor, integers(-1)], [sample], name=sample)
        return
    yield helper.make_node("Reshape", [tensor, integers(-1)], [flat], name=flat)
    limits = [integers(each) for each in (0, _END, 0, stride)]
    yield helper.make_node("Slice", [flat, *limits], [sample], name=sample)


def outputs_on(
    model: onnx.ModelProto, inputs: Iterable[Mapping[str, NDArray[Any]]], *, nothing: str
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """Yield the number of each frame, from 0, and what a graph's outputs are on it in ONNX Runtime.

    Args:
        model: the graph.
        inputs: the arrays of each frame by input name; read once.
        nothing: the message where there is no frame.

    Raises:
        UsageError: there is no frame.
        BackendError: ONNX Runtime cannot run the model.
        MissingDependencyError: onnxruntime is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probed.onnx"
        onnx.save(model, str(path))
        backend = OnnxRuntimeBackend(path)
    frame = -1
    try:
        for frame, arrays in enumerate(inputs):
            yield frame, backend.run(arrays)
    finally:
        backend.close()
    if frame < 0:
        raise UsageError(nothing)
