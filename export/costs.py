"""What a run of an exported graph takes, counted node by node, and what checking it against PyTorch takes."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sfpp.export.deployable import Network
from sfpp.export.models.recipe import Recipe
from sfpp.runtime.backends.onnxruntime import session_bytes
from sfpp.runtime.contract import InputSpec, ModelContract
from sfpp.tooling.graph import bytes_of, infos_of, running_order

ADVICE = (
    "take a smaller size (--res) or a variant that merges more, close other programs, or do it on a machine with more "
    "memory: the file itself needs less where it runs"
)
# Convolutions of PyTorch reorder what they read: measured 1.3 to 1.7 times what the tensors take.
_PYTORCH = 1.5
# What these give is what they take under another shape: ONNX Runtime copies nothing.
_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})


def multiply_adds(model: onnx.ModelProto) -> Counter[str]:
    """Count the multiply-adds of every matrix product and convolution of a graph with static shapes.

    Additions, norms, softmax and interpolation are not counted, as the papers do not count them.

    Returns:
        Multiply-adds by operator (``Conv``, ``MatMul``); ``.total()`` is the sum.
    """
    infos = infos_of(model.graph).items()
    shapes = {name: tuple(each.dim_value for each in info.type.tensor_type.shape.dim) for name, info in infos}
    shapes.update((each.name, tuple(each.dims)) for each in model.graph.initializer)
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type == "MatMul":
            counts[node.op_type] += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        elif node.op_type == "Conv":
            # Each output value is a product over the kernel and the input channels of its group.
            counts[node.op_type] += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "MultiHeadAttention":
            # Scores and their product with the values; (batch, tokens, channels) of queries, keys, and values.
            query, key, value = (shapes[name] for name in node.input[:3])
            counts[node.op_type] += query[0] * query[1] * key[1] * (query[2] + value[2])
    return counts


def activation_bytes(model: onnx.ModelProto) -> int:
    """Count the bytes that all nodes of a graph with static shapes read and write, constants left out.

    A backend that fuses nodes moves less.
    """
    sizes = bytes_of(model.graph)
    return sum(sizes.get(name, 0) for node in model.graph.node for name in (*node.input, *node.output))


def live_bytes(model: onnx.ModelProto, *, fused: bool = False) -> int:
    """Return the most bytes that tensors alive at one time take in a run of a graph with static shapes.

    Constants are left out. The order is that of ONNX Runtime, where each tensor is computed when the next one needs it:
    of attention in parts, one part's scores are alive at a time.

    Args:
        model: the graph, with the shape of every tensor.
        fused: whether attention is computed without ever holding scores, as OpenVINO does.
    """
    sizes, owners = bytes_of(model.graph), dict[str, str]()
    nodes = [model.graph.node[index] for index in running_order(model.graph.node)]
    for node in nodes:
        if fused and node.op_type == "Softmax":
            sizes.update(dict.fromkeys((node.input[0], node.output[0]), 0))
        if node.op_type in _VIEWS:
            owners[node.output[0]] = owners.get(node.input[0], node.input[0])
    last = {owners.get(name, name): index for index, node in enumerate(nodes) for name in (*node.input, *node.output)}
    last.update({owners.get(each.name, each.name): len(nodes) for each in model.graph.output})
    ending: dict[int, int] = Counter()
    for name, index in last.items():
        ending[index] += sizes.get(name, 0)
    now = peak = sum(sizes.get(each.name, 0) for each in model.graph.input)
    for index, node in enumerate(nodes):
        now += sum(sizes.get(name, 0) for name in node.output if name not in owners)
        peak = max(peak, now)
        now -= ending[index]
    return peak


def check_bytes(network: Network, recipe: Recipe, contract: ModelContract) -> int:
    """Return what comparing a file in ONNX Runtime with its network takes, one after the other."""
    session = session_bytes(contract.live_bytes or 0, _weight_bytes(network))
    return max(session, int(_PYTORCH * pytorch_bytes(network, recipe, contract.input)))


def parity_bytes(network: Network, recipe: Recipe, contract: ModelContract, *, live: int, values: int) -> int:
    """Return what comparing a file with its network takes part by part.

    The file stays open; beside it, one after the other, a second session gives values of its inside, and PyTorch's are
    compared with them.

    Args:
        network: the learned one.
        recipe: what it merges.
        contract: of the file.
        live: bytes of the file's tensors that are alive at one time.
        values: bytes of what one run of the second session gives.
    """
    session = session_bytes(live, _weight_bytes(network))
    return session + values + max(session, int(_PYTORCH * pytorch_bytes(network, recipe, contract.input)))


def pytorch_bytes(network: Network, recipe: Recipe, spec: InputSpec) -> int:
    """Return the most that a run of the learned network takes beside its weights.

    The network runs on tensors that have shapes and no values.
    """
    image = torch.empty((spec.batch, spec.channels, *spec.size_hw), device="meta")
    state = {name: tensor.to("meta") for name, tensor in network.state_dict().items()}
    live = _LiveBytes()
    with torch.no_grad(), live:
        functional_call(network, state, (image, recipe))
    return live.peak


def _weight_bytes(network: Network) -> int:
    return sum(each.nbytes for each in network.state_dict().values())


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what tensors made within this context take.

    Attributes:
        peak: the most of them at one time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return results

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:  # else of a view, or of a result in place
            self._known.add(key)
            self._now += size
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
