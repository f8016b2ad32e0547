"""One graph for any number of frames at once, made of two that were traced for fixed numbers of them.

Tokens are counted by height and width alone, so that both have the same nodes. What differs is a few constants: shapes,
and tables with a row for each frame. Their place is taken by what follows the input's own first axis.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from sfpp.export.lowering.emitter import Emitter
from sfpp.export.lowering.passes import share_constants
from sfpp.tooling.graph import BATCH

FEW = 2  # frames: for one alone, the trace leaves out what tells frames apart


def with_open_batch(few: onnx.ModelProto, most: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph for any number of frames up to that of ``most``.

    Args:
        few: the finished graph for :data:`FEW` frames.
        most: the same for more.
    """
    graph, other = gs.import_onnx(few), gs.import_onnx(most)
    emit = Emitter(graph)
    emit.replace(f"{BATCH}/frames")
    for node, twin in zip(list(graph.nodes), other.nodes, strict=True):
        assert (node.op, node.attrs.keys()) == (twin.op, twin.attrs.keys()), (node.name, twin.name)
        for index, (tensor, larger) in enumerate(zip(node.inputs, twin.inputs, strict=True)):
            if isinstance(tensor, gs.Constant) and not np.array_equal(tensor.values, larger.values):
                node.inputs[index] = _opened(emit, node, index, larger.values)
        for tensor, larger in zip(node.outputs, twin.outputs, strict=True):
            tensor.shape = _open_sizes(tensor.shape, larger.shape)
    for tensor, larger in zip(graph.inputs, other.inputs, strict=True):
        tensor.shape = _open_sizes(tensor.shape, larger.shape)
    share_constants(graph)
    opened = gs.export_onnx(graph.cleanup().toposort())
    finished = onnx.shape_inference.infer_shapes(opened, strict_mode=True, data_prop=True)
    onnx.checker.check_model(finished, full_check=True)
    return finished


def _open_sizes(few: list[int], most: list[int]) -> list[int | str | None]:
    """Return a tensor's shape for any number of frames: which of its axes counts them, alone or with something else."""
    return [a if a == b else BATCH if a == FEW else None for a, b in zip(few, most, strict=True)]


def _opened(emit: Emitter, node: gs.Node, index: int, most: NDArray[Any]) -> gs.Tensor:
    """Return what a node is given in place of a constant that differs by the number of frames."""
    few = node.inputs[index].values
    if node.op == "Reshape" and index == 1:
        return emit.shape(*_open_shape(few, most, keeps_first=node.inputs[0].shape[0] == FEW))
    if node.op in ("Resize", "Expand"):
        assert np.array_equal([FEW, *few[1:]], [few[0], *most[1:]]), (node.name, few, most)
        sizes = [_frames(emit), emit.shape(*few[1:])]
        return emit.output("Concat", sizes, "sizes", few.shape, dtype=np.int64, axis=0)
    assert np.array_equal(few, most[:FEW]), (node.name, few.shape, most.shape)
    table = emit.constant(f"{BATCH}/table_{sha256(most.tobytes()).hexdigest()[:8]}", most)
    zero = emit.shape(0)
    return emit.output("Slice", [table, zero, _frames(emit), zero], "rows", (BATCH, *few.shape[1:]), dtype=few.dtype)


def _frames(emit: Emitter) -> gs.Variable:
    """Return how many frames there are, (1,) int64."""
    frames = emit.graph.inputs[0]
    shape = emit.output("Shape", [frames], "shape", (len(frames.shape),), dtype=np.int64)
    return emit.output("Gather", [shape, emit.shape(0)], "frames", (1,), dtype=np.int64, axis=0)


def _open_shape(few: NDArray[Any], most: NDArray[Any], *, keeps_first: bool) -> list[int]:
    """Return the shape that a Reshape is given: 0 leaves the first axis as it is, -1 is what remains."""
    (place,) = np.flatnonzero(few != most)
    shape: list[int] = few.tolist()
    shape[place] = 0 if keeps_first and place == 0 and few[0] == FEW else -1
    return shape
