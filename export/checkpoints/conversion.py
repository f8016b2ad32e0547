"""From a checkpoint's own tensors to the canonical state dictionary, with every key accounted for.

The canonical keys and shapes are those of the networks in :mod:`sfpp.export.models`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfpp.export.checkpoints.selection import listing
from sfpp.export.checkpoints.sizes import NetworkConfig
from sfpp.export.checkpoints.styles import FUSION, FUSION_NORM, Part, Spelling
from sfpp.export.models.edaformer import EdaFormer
from sfpp.export.models.segformer import SegFormer, SegFormerConfig
from sfpp.runtime.errors import CheckpointError

_ADVICE = "Give the state dictionary of one such network: whole, unchanged, and without copies such as averaged weights"

Shape = tuple[int, ...]


def canonical_state(
    tensors: Mapping[str, Tensor], spelling: Spelling, config: NetworkConfig, *, name: str
) -> dict[str, Tensor]:
    """Return the network's weights, float32 and independent of the file, under their canonical keys.

    Raises:
        CheckpointError: missing or unexpected keys, wrong shapes, values that are not finite numbers, or negative
            variances; all listed.
    """
    slots = canonical_slots(config)
    tensors = _without_fusion_bias(tensors, spelling)
    _check_keys(tensors, spelling, slots, f"{name} does not fit the {spelling.style.title} style")
    state = {slot.key: _assemble(tensors, spelling, slot) for slot in slots}
    if spelling.style.fused_last_first:
        fusion = f"{FUSION}.weight"
        state[fusion] = stages_reversed(state[fusion], widths=fused_widths(config)[::-1])
    # A dictionary, since one stored tensor may fill several slots.
    broken = dict.fromkeys(
        key for slot in slots if not torch.isfinite(state[slot.key]).all() for key in _keys(spelling, slot)
    )
    if broken:
        raise CheckpointError(
            f"{name} has values that are not finite numbers in {listing(list(broken))}: the training diverged or the "
            "file is damaged; give an earlier checkpoint"
        )
    negative = [slot.key for slot in slots if slot.param == "running_var" and (state[slot.key] < 0).any()]
    if negative:
        raise CheckpointError(
            f"{name} has variances below 0 (running_var, read as {listing(negative)}), of which the network makes "
            "values that are not numbers: the file is damaged; give another one"
        )
    return state


def _without_fusion_bias(tensors: Mapping[str, Tensor], spelling: Spelling) -> Mapping[str, Tensor]:
    """Take a bias of the fusion into the batch norm behind it, which subtracts its mean from both alike."""
    if FUSION_NORM not in spelling.style.table:
        return tensors
    (fusion,), (norm,) = spelling.parts(FUSION), spelling.parts(FUSION_NORM)
    bias, mean = fusion.key("bias", 0, 0), norm.key("running_mean", 0, 0)
    if bias not in tensors or mean not in tensors or tensors[bias].shape != tensors[mean].shape:
        return tensors
    shifted = tensors[mean].to(torch.float64) - tensors[bias].to(torch.float64)
    return {key: shifted if key == mean else tensor for key, tensor in tensors.items() if key != bias}


def stages_reversed(weight: Tensor, *, widths: Sequence[int]) -> Tensor:
    """Return a fusion weight (width, sum of ``widths``, 1, 1) with its blocks of input channels in the opposite order.

    Args:
        weight: its input channels come in blocks, one per stage.
        widths: of the blocks, in the order in which they are now.
    """
    return torch.cat(torch.split(weight, list(widths), dim=1)[::-1], dim=1)


@dataclass(frozen=True)
class Slot:
    """One tensor of the network: ``module`` still has {i} for the stage and {j} for the block, counted from 0."""

    module: str
    param: str
    shape: tuple[int, ...]
    i: int = 0
    j: int = 0

    @property
    def key(self) -> str:
        """The tensor's key in the canonical state dictionary."""
        return f"{self.module.format(i=self.i, j=self.j)}.{self.param}"


def canonical_slots(config: NetworkConfig) -> list[Slot]:
    """Return every tensor of the network, batch norm's counters left out."""
    with torch.device("meta"):  # shapes without memory or random numbers
        network: nn.Module = SegFormer(config) if isinstance(config, SegFormerConfig) else EdaFormer(config)
    tensors = network.state_dict().items()
    return [_slot(key, tuple(tensor.shape)) for key, tensor in tensors if not key.endswith("num_batches_tracked")]


def fused_widths(config: NetworkConfig) -> tuple[int, ...]:
    """Return how many of the fusion's input channels come from each stage that it takes, first stage first."""
    if isinstance(config, SegFormerConfig):
        return (config.head.width,) * len(config.encoder.channels)
    return config.encoder.channels[1:]


def _assemble(tensors: Mapping[str, Tensor], spelling: Spelling, slot: Slot) -> Tensor:
    blocks = []
    for part in spelling.parts(slot.module):
        stored = tensors[part.key(slot.param, slot.i, slot.j)]
        rows = stored.shape[0] // part.of
        blocks.append(stored[part.index * rows : (part.index + 1) * rows])
    # Joining copies even a single block, which cuts the tie to a file that may be mapped.
    return torch.cat(blocks).reshape(slot.shape).to(torch.float32)


def _keys(spelling: Spelling, slot: Slot) -> list[str]:
    return [part.key(slot.param, slot.i, slot.j) for part in spelling.parts(slot.module)]


def _check_keys(tensors: Mapping[str, Tensor], spelling: Spelling, slots: Sequence[Slot], claim: str) -> None:
    expected = _expected_shapes(spelling, slots)
    problems = {
        "missing": [key for key in expected if key not in tensors],
        "unexpected": [key for key in tensors if key not in expected and not spelling.is_unused(key)],
        "of another shape": [
            f"{key} {tuple(tensors[key].shape)}, expected {shape}"
            for key, shape in expected.items()
            if key in tensors and _essential(tuple(tensors[key].shape)) != _essential(shape)
        ],
        "not floating-point": [
            f"{key} ({tensors[key].dtype})" for key in expected if key in tensors and not _is_plain(tensors[key])
        ],
    }
    found = [f"{len(keys)} {kind}: {listing(keys)}" for kind, keys in problems.items() if keys]
    if found:
        raise CheckpointError(f"{claim}. {'. '.join(found)}. {_ADVICE}")


def _expected_shapes(spelling: Spelling, slots: Sequence[Slot]) -> dict[str, Shape]:
    expected: dict[str, Shape] = {}
    for slot in slots:
        parts: tuple[Part, ...] = spelling.parts(slot.module)
        for part in parts:
            rows = slot.shape[0] // len(parts) * part.of
            expected[part.key(slot.param, slot.i, slot.j)] = (rows, *slot.shape[1:])
    return expected


def _essential(shape: Shape) -> Shape:
    """Drop ones at the end: a linear layer and a 1x1 convolution are the same thing."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _is_plain(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.is_meta


def _slot(key: str, shape: tuple[int, ...]) -> Slot:
    path, _, param = key.rpartition(".")
    i, j, *_ = (*(int(part) for part in path.split(".") if part.isdecimal()), 0, 0)
    names = iter(("{i}", "{j}"))
    module = re.sub(r"(?<=\.)\d+(?=\.|$)", lambda _: next(names), path)
    return Slot(module, param, shape, i, j)
