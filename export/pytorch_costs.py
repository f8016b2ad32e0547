"""What comparing an exported file with its network in PyTorch takes."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sfpp.export.deployable import Network
from sfpp.export.models.recipe import Recipe
from sfpp.runtime.backends.onnxruntime import session_bytes
from sfpp.runtime.contract import InputSpec, ModelContract

# Convolutions of PyTorch reorder what they read: measured 1.3 to 1.7 times what the tensors take.
_PYTORCH = 1.5


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
