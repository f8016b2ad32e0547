"""Writes nodes into an onnx-graphsurgeon graph: named by what they compute, constants stored once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import DTypeLike, NDArray


class Emitter:
    """Appends nodes under the name of the node that they replace.

    What was written once is used again: a matching and a merge both gather the sources, which is then one node.

    Attributes:
        graph: receives the nodes.
        frames: how many the graph may be given at once.
    """

    def __init__(self, graph: gs.Graph, *, frames: int = 1) -> None:
        self.graph = graph
        self.frames = frames
        self._constants: dict[str, gs.Constant] = {}
        self._outputs: dict[tuple[Any, ...], list[gs.Variable]] = {}  # by what computes them
        self._paths: Counter[str] = Counter()
        self._prefix = self._suffix = ""

    @property
    def takes_float(self) -> bool:
        """Whether the graph takes float32 images, as converters to other formats want it."""
        return bool(self.graph.inputs[0].dtype == np.float32)

    def replace(self, name: str) -> None:
        """Go on with the node that is spelled out next, such as ``stages.0/blocks.0/attention/MatchBipartite_1``.

        Its path, and its number where one attention merges both queries and keys, mark what is written from here on.
        """
        self._prefix, _, last = name.strip("/").rpartition("/")
        number = last.partition("_")[2]
        self._suffix = f"_{number}" if number else ""

    def constant(self, name: str, values: NDArray[Any]) -> gs.Constant:
        """Return the constant called ``name``, making it on first use; the name must tell the content apart."""
        if name not in self._constants:
            self._constants[name] = gs.Constant(name, np.ascontiguousarray(values))
        return self._constants[name]

    def shape(self, *sizes: int) -> gs.Constant:
        """Return the int64 constant that Reshape and its like take."""
        return self.constant(f"shape/{'x'.join(map(str, sizes))}", np.array(sizes, np.int64))

    def outputs(
        self,
        op: str,
        inputs: list[Any],
        name: str,
        *outputs: tuple[DTypeLike, tuple[int | str, ...]],
        domain: str | None = None,
        **attributes: Any,
    ) -> list[gs.Variable]:
        """Append a node with one output for each (dtype, shape), or find it, and return its outputs."""
        # By attention too: each reports its own matching, even where queries and keys are the same tokens.
        key = (self._prefix, self._suffix, op, tuple(map(id, inputs)), repr(sorted(attributes.items())))
        if key not in self._outputs:
            path = self._new_path(f"{self._prefix}/{name}{self._suffix}")
            numbers = [f"_{index}" for index in range(len(outputs))] if len(outputs) > 1 else [""]
            results = [
                gs.Variable(path + number, np.dtype(dtype), shape)
                for number, (dtype, shape) in zip(numbers, outputs, strict=True)
            ]
            node = gs.Node(op=op, name=path, inputs=inputs, outputs=results, attrs=attributes, domain=domain)
            self.graph.nodes.append(node)
            self._outputs[key] = results
        return self._outputs[key]

    def _new_path(self, path: str) -> str:
        """Return the path, with a number if something else has it: one attention may merge in several ways."""
        self._paths[path] += 1
        return path if self._paths[path] == 1 else f"{path}.{self._paths[path]}"

    def output(
        self,
        op: str,
        inputs: list[Any],
        name: str,
        shape: tuple[int | str, ...],
        *,
        dtype: DTypeLike = np.float32,
        **attributes: Any,
    ) -> gs.Variable:
        """Append a node with a single output and return it."""
        return self.outputs(op, inputs, name, (dtype, shape), **attributes)[0]

    def reshape(self, tensor: gs.Tensor, name: str, shape: tuple[int, ...]) -> gs.Variable:
        """Append a Reshape."""
        return self.output("Reshape", [tensor, self.shape(*shape)], name, shape, dtype=tensor.dtype)

    def transpose(self, tensor: gs.Tensor, name: str, axes: tuple[int, ...]) -> gs.Variable:
        """Append a Transpose."""
        shape = tuple(tensor.shape[axis] for axis in axes)
        return self.output("Transpose", [tensor], name, shape, dtype=tensor.dtype, perm=list(axes))
