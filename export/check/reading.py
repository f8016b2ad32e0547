"""From a file of any origin to a graph that rules can ask, or to a message that says why not."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import Message
from onnx import TensorProto, inliner

from sfpp.export.check.graph import CheckedGraph, Node, is_external, location_of
from sfpp.runtime.errors import ModelFileError
from sfpp.runtime.onnx_file import metadata_of, not_an_onnx_model
from sfpp.runtime.text import first_line
from sfpp.tooling.graph import (
    BROKEN,
    check_calls,
    copy_of,
    graph_for_one_frame,
    graphs_in,
    infos_of,
    nodes_within,
    opset_of,
)

_MOST_BYTES = (1 << 31) - 1  # of a protocol buffer message, and so of an ONNX file
_MOST_SIZE = 1 << 62  # of weights: beyond any disk, and still a number that can be printed
_MOST_OPSET = (1 << 31) - 1  # that onnx can be asked for
_LONGEST = 1 << 20  # for which values are followed: of a row of n numbers, known or not, onnx makes n objects
_ANY_DOMAIN = "any"  # whose operators the checker does not know, and so lets pass


def read_graph(path: str | os.PathLike[str]) -> tuple[CheckedGraph, dict[str, str]]:
    """Return a file's graph with types and shapes as far as they can be known, and its metadata.

    Raises:
        ModelFileError: no such file, not an ONNX model, or one that ONNX's own checker does not accept.
    """
    file = Path(path)
    if not file.is_file():
        raise ModelFileError(f"{file} is not a file; give the .onnx file that is to be built")
    if file.stat().st_size > _MOST_BYTES:
        raise ModelFileError(
            f"{file} has {file.stat().st_size / 1e9:.1f} GB, and no library reads an ONNX file beyond 2 GiB; "
            "store its weights beside it: onnx.save(model, path, save_as_external_data=True)"
        )
    metadata = metadata_of(file)
    try:
        # By its suffix alone, onnx would take a file for text or JSON.
        model = onnx.load(str(file), format="protobuf", load_external_data=False)
        if not _is_text(model):
            raise ValueError("a name in it is not UTF-8")
        check_calls(model)
        model = graph_for_one_frame(model)
        notes = _checked(model)
    except BROKEN as error:
        raise not_an_onnx_model(file, first_line(error)[:300].rstrip(".")) from error
    return _graph_of(file, model, notes), metadata


def stored_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield all tensors with values: initializers and attributes, in graphs within the graph too."""
    yield from model.graph.initializer
    for node in nodes_within(model.graph.node):
        for graph in graphs_in(node):
            yield from graph.initializer
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _is_text(message: Message) -> bool:
    """Tell whether all texts of a message are texts: protocol buffers give bytes for what is not UTF-8."""
    for field, value in message.ListFields():
        parts = [value] if isinstance(value, str | bytes | Message) else value
        if field.type == field.TYPE_STRING and not all(isinstance(each, str) for each in parts):
            return False
        if field.type == field.TYPE_MESSAGE and not all(map(_is_text, parts)):
            return False
    return True


def external_problem(tensor: TensorProto, folder: Path) -> str:
    """Return what is wrong with the values of a tensor that lie in a file of their own; nothing if they are there."""
    entries, location = {each.key: each.value for each in tensor.external_data}, location_of(tensor)
    if not location or Path(location).is_absolute() or ".." in Path(location).parts:
        return f"{location!r}, which is no file in the model's folder"
    try:
        offset, length = (int(entries.get(key, "0")) for key in ("offset", "length"))
        size = (folder / location).stat().st_size
    except ValueError:
        return f"{location!r}, at a place that cannot be understood"
    except OSError:
        return f"{location!r}, which is not there"
    needed = length or min(math.prod(tensor.dims) * _bits(tensor) // 8, _MOST_SIZE)
    if min(offset, length) < 0 or offset + needed > size:
        return f"{location!r}, which has {size} bytes where {offset + needed} are needed"
    return ""


def _checked(model: onnx.ModelProto) -> list[str]:
    """Let ONNX check how a model is put together, and return what is to be said of its operators.

    Two things do not make a file unreadable, as TensorRT may well build it: an output that says nothing of its shape,
    and an operator that its opset does not have (Gelu before 20), or has under another definition by now
    (GroupNormalization before 21).
    """
    if any(map(is_external, stored_tensors(model))):
        return []  # the checker would look for the weights in the current folder
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        tolerant, outdated = _tolerant(model)
        onnx.checker.check_model(tolerant)
        if outdated:
            names = ", ".join(sorted(outdated))
            return [
                f"ONNX {onnx.__version__} has no {names} in the file's opset; other libraries may not take the file"
            ]
    return []


def _tolerant(model: onnx.ModelProto) -> tuple[onnx.ModelProto, set[str]]:
    """Return a copy in which the checker overlooks what TensorRT does, and the outdated operators."""
    tolerant, opset = copy_of(model), opset_of(model)
    outdated = [
        node for node in nodes_within(tolerant.graph.node) if not node.domain and _is_outdated(node.op_type, opset)
    ]
    for node in outdated:
        node.domain = _ANY_DOMAIN
    if outdated:
        tolerant.opset_import.add(domain=_ANY_DOMAIN, version=1)
    for output in tolerant.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.shape.SetInParent()
    return tolerant, {node.op_type for node in outdated}


def _is_outdated(operator: str, opset: int) -> bool:
    try:
        known = onnx.defs.get_schema(operator, max_inclusive_version=min(opset, _MOST_OPSET), domain="")
    except onnx.defs.SchemaError:
        return True
    return bool(known.deprecated)


def _graph_of(file: Path, model: onnx.ModelProto, notes: list[str]) -> CheckedGraph:
    functions = {(each.domain, each.name) for each in model.functions}
    calls = tuple(
        Node(node, number) for number, node in enumerate(model.graph.node) if (node.domain, node.op_type) in functions
    )
    try:
        if functions:
            model = inliner.inline_local_functions(model)
        if not _is_typed(model.graph):
            model = onnx.shape_inference.infer_shapes(model)
            if _longest(model.graph) <= _LONGEST:
                model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except BROKEN as error:
        reason = first_line(error)[:300].rstrip(".")
        notes.append(f"types and shapes could not be inferred ({reason}), so what depends on them was not checked")
    return CheckedGraph(file, model, function_calls=calls, notes=tuple(notes))


def _longest(graph: onnx.GraphProto) -> int:
    return max(
        (size.dim_value for value in infos_of(graph).values() for size in value.type.tensor_type.shape.dim), default=0
    )


def _is_typed(graph: onnx.GraphProto) -> bool:
    """Tell whether the file says type and shape of everything that is computed, as ours do."""
    known = {
        value.name
        for value in [*graph.value_info, *graph.output]
        if value.type.tensor_type.elem_type and value.type.tensor_type.HasField("shape")
    }
    return all(name in known for node in graph.node for name in node.output if name)


def _bits(tensor: TensorProto) -> int:
    """Return the bits of one value."""
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        return 4
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize) * 8
    except (KeyError, ValueError, TypeError):
        return 8  # of an unknown type, each value takes a byte at least
