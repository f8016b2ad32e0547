"""Graphs that say more of themselves: small samples of large tensors, and what they give on frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from sfpp.runtime.errors import UsageError
from sfpp.tooling.graph import add_integers, opened_graph

# Of a larger tensor a sample this large is looked at, beside its largest and smallest value.
SAMPLE = 1 << 17
_END = np.iinfo(np.int64).max


def stride_for(size: int, *, sample: int = SAMPLE) -> int:
    """Return the smallest stride that leaves at most ``sample`` of ``size`` values and visits all channels alike.

    It shares no divisor with the size, hence none with any dimension: a stride of 2 along tokens of 64 channels would
    only ever see the even ones.
    """
    stride = max(-(-size // sample), 1)  # of a size that is not known: all of it
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride


class Sampler:
    """Adds to a graph what writes samples of its tensors."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._numbers: dict[int, str] = {}  # of thousands of tensors, few are different

    def add(self, tensor: str, shape: Sequence[int]) -> str:
        """Add the nodes that write at most ``SAMPLE`` values of a tensor of this shape, flat, and return their name."""
        stride, sample = stride_for(math.prod(shape)), f"{tensor}/sample"
        flat = f"{tensor}/flat" if stride > 1 else sample
        self._graph.node.append(helper.make_node("Reshape", [tensor, self._number(-1)], [flat], name=flat))
        if stride > 1:
            limits = map(self._number, (0, _END, 0, stride))
            self._graph.node.append(helper.make_node("Slice", [flat, *limits], [sample], name=sample))
        return sample

    def _number(self, value: int) -> str:
        """Return the name of a stored number, as an array (1,)."""
        if value not in self._numbers:
            self._numbers[value] = add_integers(self._graph, f"sample/{value}", [value])
        return self._numbers[value]


def outputs_on(
    model: onnx.ModelProto, inputs: Iterable[Mapping[str, NDArray[Any]]]
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """Yield the number of each frame, from 0, and what a graph's outputs are on it in ONNX Runtime.

    Args:
        model: the graph.
        inputs: the arrays of each frame by input name; read once.

    Raises:
        UsageError: there is no frame.
        BackendError: ONNX Runtime cannot run the model.
        MissingDependencyError: onnxruntime is not installed.
    """
    frame = -1
    with opened_graph(model) as backend:
        for frame, arrays in enumerate(inputs):
            yield frame, backend.run(arrays)
    if frame < 0:
        raise UsageError("there is nothing to measure on: no frame, or nobody in the frames; give at least one")
