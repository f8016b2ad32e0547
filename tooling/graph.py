"""ONNX graphs: read with every shape, asked, changed, written with their contract."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import ArrayLike
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from sfpp.runtime.backends.choice import open_backend
from sfpp.runtime.backends.protocol import DEFAULT_OPTIONS, Backend, BackendOptions
from sfpp.runtime.contract import METADATA_KEY, ModelContract, contract_from_metadata
from sfpp.runtime.errors import ContractError, ModelFileError
from sfpp.runtime.files import whole_file
from sfpp.runtime.onnx_file import not_an_onnx_model
from sfpp.runtime.scratch import scratch_folder

_Proto = TypeVar("_Proto", onnx.ModelProto, onnx.NodeProto, onnx.ValueInfoProto)
_Value = TypeVar("_Value", int, float, str, list[int])
_KINDS = {int: AttributeProto.INT, float: AttributeProto.FLOAT, str: AttributeProto.STRING, list: AttributeProto.INTS}
# How onnx says that it cannot make sense of a file; a name that is not UTF-8 is a ValueError.
BROKEN = (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError)
BATCH = "batch"  # what the first axis is called in files for any number of frames
_BLOCK = re.compile(r"stages\.\d+/blocks\.\d+|blocks\.\d+|stages\.\d+")


def read_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read an ONNX file with the type and shape of every tensor; one for any number of frames as for one.

    Raises:
        ModelFileError: no such file, not an ONNX model, or one whose shapes are not fixed.
    """
    file = Path(path)
    if not file.is_file():
        raise ModelFileError(f"{file} is not a file; give the .onnx file that sfpp-export wrote")
    try:
        model = onnx.load(str(file))
        check_calls(model)
        onnx.checker.check_model(model)
        model = graph_for_one_frame(model)
        model = onnx.shape_inference.infer_shapes(model, check_type=True, data_prop=True)
    except BROKEN as error:
        raise not_an_onnx_model(file, str(error)) from error
    if open_sizes := _open_sizes(model):
        raise ModelFileError(
            f"{file.name}: the shape of {open_sizes!r} is not fixed; export the model for one size, as sfpp-export does"
        )
    return model


def fixed_batch(model: onnx.ModelProto, frames: int) -> onnx.ModelProto:
    """Return the graph that ``sfpp-export`` makes for any number of frames, for so many."""
    fixed = copy_of(model)
    for each in (*fixed.graph.input, *fixed.graph.output, *fixed.graph.value_info):
        for size in each.type.tensor_type.shape.dim:
            if size.dim_param == BATCH:
                size.dim_value = frames
    tables = {each.name: each for each in fixed.graph.initializer}
    for node in fixed.graph.node:
        # Their length is computed, which inference does not follow.
        if node.op_type == "Slice" and node.name.startswith(f"{BATCH}/"):
            table = tables[node.input[0]]
            shape = [frames, *table.dims[1:]]
            fixed.graph.value_info.append(helper.make_tensor_value_info(node.output[0], table.data_type, shape))
    return onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)


def opened_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that :func:`fixed_batch` gave, or what was made of it, for any number of frames again."""
    opened = copy_of(model)
    for each in (*opened.graph.input, *opened.graph.output):
        each.type.tensor_type.shape.dim[0].dim_param = BATCH
    del opened.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(opened, strict_mode=True, data_prop=True)


def graph_for_one_frame(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph for one frame of a file whose contract says that it takes any number; others as they are."""
    texts = {each.key: each.value for each in model.metadata_props}
    try:
        is_open = contract_from_metadata(texts, origin="", instead="").input.open_batch
    except ContractError:  # another tool's
        is_open = False
    return fixed_batch(model, 1) if is_open else model


def check_calls(model: onnx.ModelProto) -> None:
    """Refuse functions that call themselves, also through others: older versions of onnx end the process over them.

    Raises:
        ValidationError: of onnx's checker; there is one.
    """
    calls = {
        (function.domain, function.name): {(node.domain, node.op_type) for node in nodes_within(function.node)}
        for function in model.functions
    }
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        raise onnx.checker.ValidationError(f"its function {error.args[1][0][1]} calls itself") from error


def contract_in(model: onnx.ModelProto, *, origin: str) -> ModelContract:
    """Return the contract in the model's metadata.

    Raises:
        ContractError: there is none, or it cannot be read.
    """
    texts = {each.key: each.value for each in model.metadata_props}
    return contract_from_metadata(texts, origin=origin, instead="with --contract FILE.json")


def for_one_frame(contract: ModelContract) -> ModelContract:
    """Return the contract of what :func:`read_model` gives of a file for any number of frames; others stay."""
    spec = contract.input
    return replace(contract, input=replace(spec, batch=1, open_batch=False)) if spec.open_batch else contract


def check_contract(model: onnx.ModelProto, contract: ModelContract, *, origin: str) -> None:
    """Refuse a contract of another model; the model is one that :func:`read_model` gave.

    Raises:
        ContractError: the graph takes something else than the contract says, or lacks one of its outputs.
    """
    weights = {each.name for each in model.graph.initializer}
    spec = contract.input
    given = ", ".join(_described(each) for each in model.graph.input if each.name not in weights)
    promised = f"{spec.name!r} {spec.dtype} {spec.shape}"
    if given != promised:
        raise ContractError(
            f"{origin} takes {given or 'nothing'}, but its contract says {promised}; give the contract of this model"
        )
    outputs = [each.name for each in model.graph.output]
    if missing := [each.name for each in contract.outputs if each.name not in outputs]:
        raise ContractError(
            f"{origin} gives {', '.join(map(repr, outputs))}, but its contract says {missing[0]!r}; "
            "give the contract of this model"
        )


def write_model(model: onnx.ModelProto, contract: ModelContract, path: Path) -> None:
    """Write the model with this contract; the file appears whole or not at all.

    Raises:
        SfppError: the folder does not exist, or the disk is full.
    """
    onnx.checker.check_model(model)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    with whole_file(path) as temporary:
        onnx.save(model, str(temporary))


@contextlib.contextmanager
def opened_graph(
    model: onnx.ModelProto,
    *,
    backend: str | None = "onnxruntime",
    options: BackendOptions = DEFAULT_OPTIONS,
    target: str = "portable",
) -> Iterator[Backend]:
    """Open a graph that lies in no file, such as one with more outputs than its file, for the length of a block.

    Args:
        model: the graph.
        backend, options, target: as for :func:`sfpp.runtime.backends.open_backend`.

    Raises:
        ModelFileError, BackendError, MissingDependencyError, UsageError: as for ``open_backend``.
    """
    with scratch_folder() as folder:
        path = folder / "graph.onnx"
        onnx.save(model, str(path))
        opened, _ = open_backend(path, backend=backend, options=options, target=target)
    with contextlib.closing(opened):
        yield opened


def name_of(node: onnx.NodeProto) -> str:
    """Return a node's name, or that of its first output where it has none."""
    return str(node.name or node.output[0])


def attribute_of(node: onnx.NodeProto, name: str, default: _Value) -> _Value:
    """Return an attribute of a node, or the default where the node does not have it, or has one of another kind."""
    for each in node.attribute:
        # One that refers to an attribute of an enclosing function has no value of its own.
        if each.name == name and each.type == _KINDS[type(default)] and not each.ref_attr_name:
            found = helper.get_attribute_value(each)
            return cast("_Value", found.decode(errors="replace") if isinstance(found, bytes) else found)
    return default


def constant_in(node: onnx.NodeProto) -> TensorProto | None:
    """Return what a Constant node gives; None for text, for sparse values, and for any other node."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    for each in node.attribute:
        if each.name == "value":
            return cast("TensorProto", each.t)
        if each.name in ("value_int", "value_ints", "value_float", "value_floats"):
            dtype = np.int64 if "int" in each.name else np.float32
            return numpy_helper.from_array(np.array(helper.get_attribute_value(each), dtype))
    return None


def graphs_in(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs within a node: the branches of an If, the body of a Loop or Scan."""
    return [graph for each in node.attribute for graph in ([each.g] if each.HasField("g") else each.graphs)]


def nodes_within(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes and those of the graphs within them, however deep."""
    left = list(nodes)
    while left:
        node = left.pop()
        yield node
        left.extend(inner for graph in graphs_in(node) for inner in graph.node)


def infos_of(graph: onnx.GraphProto) -> dict[str, onnx.ValueInfoProto]:
    """Return what a graph says of the type and shape of its inputs, outputs, and tensors between, by name."""
    return {info.name: info for info in [*graph.input, *graph.value_info, *graph.output]}


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators."""
    return next((int(each.version) for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shape of each float32 tensor for which the model says it, without those that hold nothing."""
    shapes = {}
    for info in infos_of(model.graph).values():
        kind = info.type.tensor_type
        if kind.elem_type == TensorProto.FLOAT and kind.HasField("shape"):
            shape = tuple(int(each.dim_value) for each in kind.shape.dim)
            if math.prod(shape):
                shapes[info.name] = shape
    return shapes


def bytes_of(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the bytes of each tensor that is no constant, as far as its type and shape are known."""
    constants, sizes = {each.name for each in graph.initializer}, {}
    for name, info in infos_of(graph).items():
        kind = info.type.tensor_type
        if name not in constants and kind.elem_type:
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            sizes[name] = math.prod(each.dim_value for each in kind.shape.dim) * dtype.itemsize
    return sizes


def block_of(node_name: str) -> str:
    """Return the block of the network that a node belongs to, such as ``encoder/stages.0/blocks.1`` or ``head``.

    What lies in a stage but in none of its blocks (the patch embedding, the final norm) belongs to the stage; the
    operations before the network belong to ``input``.
    """
    if match := _BLOCK.search(node_name):
        return node_name[: match.end()]
    first, slash, _ = node_name.partition("/")
    return first if slash else "input"


class GraphIndex:
    """A model's nodes and initializers by the names of what they give, and its nodes by what they read.

    Attributes:
        model: the model itself.
        outputs: the graph's outputs.
        producers: the node that writes a tensor.
        initializers: constants stored in the graph.
        readers: the nodes that read a tensor, in the graph's order, those too that only graphs within them do.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.outputs = frozenset(output.name for output in model.graph.output)
        self.producers = {output: node for node in model.graph.node for output in node.output if output}
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(names_read_by(node)):
                self.readers.setdefault(name, []).append(node)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What :func:`shapes_of` says of the model."""
        return shapes_of(self.model)

    def constant_behind(self, tensor: str) -> str | None:
        """Return the name of the initializer that a tensor is, itself or through Identity; None if it is none."""
        tensor = self.origin(tensor, frozenset({"Identity"}))
        return tensor if tensor in self.initializers else None

    def origin(self, tensor: str, operators: Collection[str]) -> str:
        """Follow a tensor back through nodes of these operators, along their first inputs."""
        while tensor in self.producers and self.producers[tensor].op_type in operators:
            tensor = self.producers[tensor].input[0]
        return tensor

    def only_reader(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the node that alone reads what a node gives; None if several do, or if the graph gives it out too."""
        readers = self.readers.get(node.output[0], [])
        return readers[0] if len(readers) == 1 and node.output[0] not in self.outputs else None

    def number(self, tensor: str) -> float | None:
        """Return the value of a constant that holds one number; None for any other tensor."""
        name = self.constant_behind(tensor)
        if name is None or math.prod(self.initializers[name].dims) != 1:
            return None
        return float(numpy_helper.to_array(self.initializers[name]).ravel()[0])

    def gelu_around(self, erf: onnx.NodeProto) -> tuple[str, list[onnx.NodeProto]] | None:
        """Return what the GELU ``x * 0.5 * (1 + erf(x / sqrt(2)))`` is of, and its nodes in order, the last one last.

        None if the node is no Erf, or belongs to no GELU.
        """
        scaled = self.producers.get(erf.input[0]) if erf.op_type == "Erf" else None
        if scaled is None or scaled.op_type not in ("Div", "Mul"):
            return None
        x, factor = self._variable_and_number(scaled)
        if factor is None or not math.isclose(factor, math.sqrt(0.5 if scaled.op_type == "Mul" else 2), rel_tol=1e-5):
            return None
        shifted = self.only_reader(erf)
        if shifted is None or shifted.op_type != "Add" or self._variable_and_number(shifted)[1] != 1:
            return None
        nodes, others = [scaled, erf, shifted], [x, 0.5]
        while others:
            before, reader = nodes[-1].output[0], self.only_reader(nodes[-1])
            if reader is None or reader.op_type != "Mul":
                return None
            other = next((name for name in reader.input if name != before), "")
            number = self.number(other)
            if (other if number is None else number) not in others:
                return None
            others.remove(other if number is None else number)
            nodes.append(reader)
        return x, nodes

    def _variable_and_number(self, node: onnx.NodeProto) -> tuple[str, float | None]:
        """Return the two inputs of a node as a tensor and a number; for Div the number must stand second."""
        first, second = node.input
        number = self.number(second)
        return (first, number) if number is not None or node.op_type == "Div" else (second, self.number(first))


def copy_of(message: _Proto) -> _Proto:
    """Return a copy of a model, a node or a tensor's description."""
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def add_integers(graph: onnx.GraphProto, name: str, values: ArrayLike) -> str:
    """Store whole numbers as an initializer unless there is one of this name, and return the name."""
    if all(each.name != name for each in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name


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


def running_order(nodes: Sequence[onnx.NodeProto]) -> list[int]:
    """Return the positions of nodes in the order in which ONNX Runtime runs them.

    It goes from the last node that nobody reads backwards, what comes latest in the file first: of attention in parts
    it computes one part after the other, whatever the order in the file.
    """
    makers = {name: index for index, node in enumerate(nodes) for name in node.output}
    read = {name for node in nodes for name in node.input}
    order: list[int] = []
    entered: set[int] = set()
    stack = [(index, False) for index, node in enumerate(nodes) if not any(name in read for name in node.output)]
    while stack:
        index, is_done = stack.pop()
        if is_done:
            order.append(index)
        elif index not in entered:
            entered.add(index)
            needed = sorted({makers[name] for name in nodes[index].input if name in makers} - entered)
            stack += [(index, True), *((each, False) for each in needed)]
    return order


def names_read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, those that its subgraphs (of If, Loop or Scan) read from outside too."""
    yield from node.input
    for subgraph in graphs_in(node):
        for inner in subgraph.node:
            yield from names_read_by(inner)
        yield from (output.name for output in subgraph.output)


def _described(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return f"{value.name!r} {dtype} {tuple(int(each.dim_value) for each in kind.shape.dim)}"


def _open_sizes(model: onnx.ModelProto) -> str:
    """Return the first tensor without a fixed shape, or nothing."""
    for name, value in infos_of(model.graph).items():
        kind = value.type.tensor_type
        if not kind.HasField("shape") or not all(each.HasField("dim_value") for each in kind.shape.dim):
            return name
    return ""
