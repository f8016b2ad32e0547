"""The canonical state dictionary: every key of :class:`sfpp.export.models.segformer.SegFormer` with its shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sfpp.export.models.segformer import EncoderConfig, HeadConfig, SegFormerConfig

PROJECTION = "encoder.stages.{i}.patch_embed.projection"
BLOCK = "encoder.stages.{i}.blocks.{j}."
FUSION = "head.fusion.conv"
CLASSIFIER = "head.classifier"


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


def canonical_slots(config: SegFormerConfig) -> Iterator[Slot]:
    """Yield every tensor of the network, batch norm's counters left out."""
    for i in range(len(config.encoder.channels)):
        yield from _stage(config.encoder, i)
        yield from _projection(config, i)
    yield from _head(config.head, len(config.encoder.channels))


def _stage(encoder: EncoderConfig, i: int) -> Iterator[Slot]:
    channels, kernel = encoder.channels[i], encoder.patch_kernels[i]
    inputs = encoder.channels[i - 1] if i else 3
    yield from _affine(PROJECTION, channels, inputs, kernel, kernel, i=i)
    yield from _norm("encoder.stages.{i}.patch_embed.norm", channels, i=i)
    for j in range(encoder.depths[i]):
        yield from _block(encoder, i, j)
    yield from _norm("encoder.stages.{i}.norm", channels, i=i)


def _block(encoder: EncoderConfig, i: int, j: int) -> Iterator[Slot]:
    channels, ratio = encoder.channels[i], encoder.reductions[i]
    hidden = channels * encoder.expansions[i]
    yield from _norm(BLOCK + "norm1", channels, i=i, j=j)
    yield from _affine(BLOCK + "attention.query", channels, channels, i=i, j=j)
    yield from _affine(BLOCK + "attention.key_value", 2 * channels, channels, i=i, j=j)
    yield from _affine(BLOCK + "attention.output", channels, channels, i=i, j=j)
    if ratio > 1:
        yield from _affine(BLOCK + "attention.reduction", channels, channels, ratio, ratio, i=i, j=j)
        yield from _norm(BLOCK + "attention.reduction_norm", channels, i=i, j=j)
    yield from _norm(BLOCK + "norm2", channels, i=i, j=j)
    yield from _affine(BLOCK + "ffn.expand", hidden, channels, i=i, j=j)
    yield from _affine(BLOCK + "ffn.depthwise", hidden, 1, 3, 3, i=i, j=j)
    yield from _affine(BLOCK + "ffn.contract", channels, hidden, i=i, j=j)


def _projection(config: SegFormerConfig, i: int) -> Iterator[Slot]:
    width, channels = config.head.width, config.encoder.channels[i]
    yield Slot("head.projections.{i}.conv", "weight", (width, channels, 1, 1), i)
    if config.head.kind == "official":
        yield Slot("head.projections.{i}.conv", "bias", (width,), i)
    else:
        yield from _batch_norm("head.projections.{i}.bn", width, i=i)


def _head(head: HeadConfig, stages: int) -> Iterator[Slot]:
    yield Slot(FUSION, "weight", (head.width, stages * head.width, 1, 1))
    yield from _batch_norm("head.fusion.bn", head.width)
    yield from _affine(CLASSIFIER, head.classes, head.width, 1, 1)


def _affine(module: str, outputs: int, *inputs: int, i: int = 0, j: int = 0) -> Iterator[Slot]:
    yield Slot(module, "weight", (outputs, *inputs), i, j)
    yield Slot(module, "bias", (outputs,), i, j)


def _norm(module: str, channels: int, *, i: int, j: int = 0) -> Iterator[Slot]:
    yield from (Slot(module, param, (channels,), i, j) for param in ("weight", "bias"))


def _batch_norm(module: str, channels: int, *, i: int = 0) -> Iterator[Slot]:
    yield from (Slot(module, param, (channels,), i) for param in ("weight", "bias", "running_mean", "running_var"))
