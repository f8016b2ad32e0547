"""Which nodes float16 cannot hold: each beside its own shadow in float16, on real frames.

The float32 graph runs as it is. Beside each node that could compute in float16 stands a shadow: the same operator on
inputs and weights rounded to float16, its output rounded too. Errors do not add up along the network, so a large one is
the node's own. Only sums leave the graph, so that memory does not grow with the number of nodes.
"""

from __future__ import annotations

import math
import operator
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from sfpp.calibration.fp16.float_graph import FloatGraph
from sfpp.calibration.fp16.float_types import FLOAT16_MAX, float_types
from sfpp.calibration.fp16.shadows import ShadowedGraph
from sfpp.calibration.results import Kept
from sfpp.runtime.backends.onnxruntime import OnnxRuntimeBackend
from sfpp.runtime.errors import UsageError

_TOGETHER: dict[str, Callable[[float, float], float]] = {
    **{"max": max, "min": min},
    **{"power": operator.add, "error": operator.add},
}
# Other frames are brighter, and a scene that was not measured may be the worst.
HEADROOM = 4.0
# Rounding in and out costs a sound node 0.02 to 0.07 % of its signal: no node of a SegFormer or an EDAFormer, trained
# or random, for labels or for poses, was seen above. At 1 % it loses four bits more than the others.
LARGEST_ERROR = 0.01


@dataclass(frozen=True)
class NodeError:
    """What float16 does to one node by itself.

    Attributes:
        name: the node, or its first output where it has no name.
        operator: such as ``MatMul``.
        largest: the largest magnitude that it reads or writes.
        error: root of the mean squared error of its outputs over their mean square; infinite or NaN after an overflow.
        overflows: it read or wrote what float16 does not hold.
    """

    name: str
    operator: str
    largest: float
    error: float
    overflows: bool


def measure_fp16(
    model: onnx.ModelProto, inputs: Iterable[Mapping[str, NDArray[Any]]], *, candidates: Collection[str] | None = None
) -> tuple[NodeError, ...]:
    """Measure every node that :func:`.converting.fp16_model` would compute in float16, in the graph's order.

    Args:
        model: float32, as for ``fp16_model``.
        inputs: arrays by input name, one frame at a time; read once.
        candidates: names of the only nodes to measure; None measures all.

    Raises:
        UsageError, ModelFileError: as ``fp16_model``, or there is no frame.
        BackendError: ONNX Runtime cannot run the model.
        MissingDependencyError: onnxruntime is not installed.
    """
    graph = FloatGraph(model)
    measured = [
        index for index in sorted(float_types(graph).computing) if candidates is None or graph.name(index) in candidates
    ]
    if not measured:
        return ()
    probe = _Probe(graph, measured)
    for frame in inputs:
        probe.run(frame)
    return probe.errors()


def condemned(
    errors: Iterable[NodeError], *, headroom: float = HEADROOM, largest_error: float = LARGEST_ERROR
) -> tuple[Kept, ...]:
    """Return the nodes that must stay float32, with the reason in words.

    Args:
        errors: of :func:`measure_fp16`.
        headroom: how many times the largest magnitude that was seen must fit into float16, since other frames differ.
        largest_error: what a node may lose by rounding, as a fraction of its signal.
    """
    reasons = ((each.name, _reason(each, headroom, largest_error)) for each in errors)
    return tuple(Kept(name, reason) for name, reason in reasons if reason)


def _reason(error: NodeError, headroom: float, largest_error: float) -> str:
    if error.overflows or error.largest * headroom > FLOAT16_MAX:
        return f"reaches {error.largest:.3g}, float16 ends at {FLOAT16_MAX:.0f}"
    if not error.error <= largest_error:
        return f"rounding costs {100 * error.error:.2g} % of the signal"
    return ""


class _Probe:
    """Runs the shadowed graph and adds up what it says of each tensor."""

    def __init__(self, graph: FloatGraph, measured: Sequence[int]) -> None:
        self._graph = graph
        self._measured = measured
        self._shadowed = ShadowedGraph(graph, measured)
        self._seen: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "shadowed.onnx"
            onnx.save(self._shadowed.model(), str(path))
            self._backend = OnnxRuntimeBackend(path)

    def run(self, frame: Mapping[str, NDArray[Any]]) -> None:
        """Add a frame."""
        for name, value in self._backend.run(frame).items():
            together = _TOGETHER[name.rpartition("/")[2]]
            self._seen[name] = together(self._seen.get(name, 0.0), float(value))

    def errors(self) -> tuple[NodeError, ...]:
        """Return what was found, and close the session."""
        self._backend.close()
        if not self._seen:
            raise UsageError("there are no frames to measure float16 on; give at least one")
        return tuple(map(self._error, self._measured))

    def _error(self, index: int) -> NodeError:
        tensors, written = self._shadowed.tensors(index), list(self._graph.float_outputs(index))
        largest = max(max(self._seen[f"{name}/max"], -self._seen[f"{name}/min"]) for name in tensors)
        noise, signal = (sum(self._seen[f"{name}/{kind}"] for name in written) for kind in ("error", "power"))
        overflows = largest > FLOAT16_MAX or not math.isfinite(noise)
        error = math.sqrt(noise / signal) if signal else 0.0
        return NodeError(self._graph.name(index), self._graph.nodes[index].op_type, largest, error, overflows)
