"""The canonical state dictionary: every key of a network of :mod:`sfpp.export.models` with its shape."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn

from sfpp.export.models.edaformer import EdaFormer, EdaFormerConfig
from sfpp.export.models.segformer import SegFormer, SegFormerConfig

PROJECTION = "encoder.stages.{i}.patch_embed.projection"
BLOCK = "encoder.stages.{i}.blocks.{j}."
DECODER_BLOCK = "head.stages.{i}.{j}."
FUSION = "head.fusion.conv"
CLASSIFIER = "head.classifier"

NetworkConfig = SegFormerConfig | EdaFormerConfig


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


def _slot(key: str, shape: tuple[int, ...]) -> Slot:
    path, _, param = key.rpartition(".")
    i, j, *_ = (*(int(part) for part in path.split(".") if part.isdecimal()), 0, 0)
    names = iter(("{i}", "{j}"))
    module = re.sub(r"(?<=\.)\d+(?=\.|$)", lambda _: next(names), path)
    return Slot(module, param, shape, i, j)


def fused_widths(config: NetworkConfig) -> tuple[int, ...]:
    """Return how many of the fusion's input channels come from each stage that it takes, first stage first."""
    if isinstance(config, SegFormerConfig):
        return (config.head.width,) * len(config.encoder.channels)
    return config.encoder.channels[1:]
