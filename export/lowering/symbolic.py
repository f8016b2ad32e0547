"""A traced torch module as an ONNX graph in which attention and merging are single nodes of the domain ``sfpp``."""

from __future__ import annotations

import io
import warnings
from typing import Any

import onnx
import torch
from torch import Tensor, nn

_onnx: Any = torch.onnx  # its annotations leave out what the tracing exporter takes
DOMAIN = "sfpp"
INPUT_SHAPE = "shape_of_input_"  # attribute of a traced node: an ONNX file keeps no shapes around unknown operators
_TENSOR_OPS = {
    "attend": ("Attend", ("heads", "scale")),
    "match_bipartite": ("MatchBipartite", ("grid_h", "grid_w", "cell_h", "cell_w", "keep", "local")),
    "merge_bipartite": ("MergeBipartite", ("grid_h", "grid_w", "cell_h", "cell_w", "local")),
    "unmerge_bipartite": ("UnmergeBipartite", ("grid_h", "grid_w", "cell_h", "cell_w")),
}


def trace_to_onnx(module: nn.Module, example: Tensor, *, names: tuple[str, str], opset: int) -> onnx.ModelProto:
    """Trace ``module`` with ``example`` and return the graph; shapes are those of the example.

    Args:
        module: in evaluation mode; takes and returns one tensor.
        example: an input of the final shape and type.
        names: of the input and the output.
        opset: version of the ONNX operators.
    """
    _register_symbols(opset)
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # The trace-based exporter announces its successor and every shape it records; both are meant here: it is the
        # one that writes opset 17, and all shapes are static.
        warnings.simplefilter("ignore")
        _onnx.export(
            module,
            (example,),
            buffer,
            input_names=[names[0]],
            output_names=[names[1]],
            opset_version=opset,
            dynamo=False,
            custom_opsets={DOMAIN: 1},
        )
    return onnx.load_from_string(buffer.getvalue())


def _register_symbols(opset: int) -> None:
    for name, (op_type, attributes) in _TENSOR_OPS.items():
        _onnx.register_custom_op_symbolic(f"{DOMAIN}::{name}", _symbol(name, op_type, attributes), opset)


def _symbol(name: str, op_type: str, attributes: tuple[str, ...]) -> Any:
    """Return the function that turns a traced call into one node; trailing arguments become attributes."""

    def translate(graph: Any, *arguments: Any) -> Any:
        tensors, constants = arguments[: -len(attributes)], arguments[-len(attributes) :]
        kinds = ["f" if key == "scale" else "i" for key in attributes]
        numbers = [_onnx.symbolic_helper._get_const(*each) for each in zip(constants, kinds, attributes, strict=True)]
        results = _shapes_of_results(name, tensors, numbers)
        values = {f"{key}_{kind}": number for key, kind, number in zip(attributes, kinds, numbers, strict=True)}
        for index, tensor in enumerate(tensors):
            values[f"{INPUT_SHAPE}{index}_i"] = tensor.type().sizes()
        nodes = graph.op(f"{DOMAIN}::{op_type}", *tensors, outputs=len(results), **values)
        for node, result in zip(nodes if len(results) > 1 else [nodes], results, strict=True):
            node.setType(tensors[0].type().with_dtype(result.dtype).with_sizes(list(result.shape)))
        return nodes

    return translate


def _shapes_of_results(name: str, tensors: tuple[Any, ...], numbers: list[Any]) -> tuple[Tensor, ...]:
    """Run the operation's shape rule on tensors without data."""
    empty = [torch.empty(each.type().sizes(), dtype=each.type().dtype(), device="meta") for each in tensors]
    results = getattr(torch.ops.sfpp, name)(*empty, *numbers)
    return results if isinstance(results, tuple) else (results,)
