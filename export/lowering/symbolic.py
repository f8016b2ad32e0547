"""A traced torch module as an ONNX graph in which attention and merging are single nodes of the domain ``sfpp``.

A trace needs the operations and their shapes, no values: nothing is computed, which takes seconds and no memory at any
size.
"""

from __future__ import annotations

import copy
import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_onnx: Any = torch.onnx  # its annotations leave out what the tracing exporter takes
DOMAIN = "sfpp"
INPUT_SHAPE = "shape_of_input_"  # attribute of a traced node: an ONNX file keeps no shapes around unknown operators
_TENSOR_OPS = {
    "attend": ("Attend", ("heads", "scale")),
    "attend_sized": ("AttendSized", ("heads", "scale")),
    "unmerge_windows": ("UnmergeWindows", ("grid_h", "grid_w", "windows_h", "windows_w")),
    "grid_totals": ("GridTotals", ("grid_h", "grid_w", "cells_h", "cells_w")),
    "nearest_cell": ("NearestCell", ("grid_h", "grid_w", "cells_h", "cells_w")),
    "cell_totals": ("CellTotals", ("grid_h", "grid_w", "cells_h", "cells_w")),
    "unmerge_cells": ("UnmergeCells", ()),
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
    with torch.no_grad(), warnings.catch_warnings(), ThreadPoolExecutor(1) as thread:
        # The trace-based exporter announces its successor and every shape it records; both are meant here: it is the
        # one that writes opset 17, and all shapes are static.
        warnings.simplefilter("ignore")
        _onnx.export(
            _hollowed(module, thread),
            (example,),
            buffer,
            input_names=[names[0]],
            output_names=[names[1]],
            opset_version=opset,
            dynamo=False,
            custom_opsets={DOMAIN: 1},
        )
    return onnx.load_from_string(buffer.getvalue())


def _hollowed(module: nn.Module, thread: ThreadPoolExecutor) -> nn.Module:
    """Return a module with the same parts that computes nothing."""
    hollow = copy.copy(module)

    def forward(*inputs: Tensor) -> Any:
        with _WithoutValues(thread), _PlainConvolutions():
            return module.forward(*inputs)

    hollow.forward = forward
    return hollow


class _WithoutValues(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations give tensors of the right shape and type that hold nothing.

    Args:
        thread: where shapes are found out. In the one that traces, each look at a shape would become part of the trace.
    """

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._thread = thread

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._thread.submit(_without_values, func, args, kwargs or {}).result()


class _PlainConvolutions(TorchFunctionMode):
    """Call convolutions by the operation that is traced of them, below which nothing more need be run."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_convolution if func is torch.conv2d else func)(*args, **(kwargs or {}))


def _convolution(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    stride, padding, dilation = ([each] * 2 if isinstance(each, int) else each for each in (stride, padding, dilation))
    return torch._convolution(
        image, weight, bias, stride, padding, dilation, False, [0, 0], groups, False, False, True, True
    )


@torch.no_grad()
def _without_values(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return what an operation would, by its rule of shapes alone."""
    if all(each.numel() <= 1 for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)):
        # Arithmetic on sizes, whose results are needed; a view cannot leave the thread that made it.
        return tree_map(_copied, func(*args, **kwargs))
    kwargs = {name: value for name, value in kwargs.items() if name != "device"}
    return tree_map(_hollow, func(*tree_map(_on_meta, args), **tree_map(_on_meta, kwargs)))


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _on_meta(value: Any) -> Any:
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if isinstance(value, Tensor) else value


def _hollow(value: Any) -> Any:
    """Return a tensor all of whose elements are the same one."""
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, [0] * value.dim(), dtype=value.dtype)


def _register_symbols(opset: int) -> None:
    for name, (op_type, attributes) in _TENSOR_OPS.items():
        _onnx.register_custom_op_symbolic(f"{DOMAIN}::{name}", _symbol(name, op_type, attributes), opset)


def _symbol(name: str, op_type: str, attributes: tuple[str, ...]) -> Any:
    """Return the function that turns a traced call into one node; trailing arguments become attributes."""

    def translate(graph: Any, *arguments: Any) -> Any:
        count = len(arguments) - len(attributes)
        tensors, constants = arguments[:count], arguments[count:]
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
