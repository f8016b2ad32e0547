"""Dropping from a graph what none of its outputs needs."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes, initializers and shapes that no output of the graph depends on, in place."""
    needed = {output.name for output in graph.output}
    kept: set[int] = set()
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if needed.intersection(node.output):
            needed.update(names_read_by(node))
            kept.add(index)
    # One by one and from the end: an assignment would copy all weights that stay.
    for index in reversed(range(len(graph.node))):
        if index not in kept:
            del graph.node[index]
    produced = {name for node in graph.node for name in node.output}
    for values, known in ((graph.initializer, needed), (graph.value_info, produced)):
        for index in reversed(range(len(values))):
            if values[index].name not in known:
                del values[index]


def names_read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, those that its subgraphs (of If, Loop or Scan) read from outside too."""
    yield from node.input
    for attribute in node.attribute:
        for subgraph in [attribute.g, *attribute.graphs]:
            for inner in subgraph.node:
                yield from names_read_by(inner)
            yield from (output.name for output in subgraph.output)
