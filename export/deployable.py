"""The learned network rewritten for a graph: the same function, in fewer and cheaper operations.

Every rewrite here is exact up to rounding, and each is checked against the learned model on every export. The inputs
and outputs have the fixed names and shapes of ``sfpp.runtime.contract``.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfpp.export.models.edaformer import Block as EdaBlock, Decoder, EdaFormer
from sfpp.export.models.recipe import GridHw, IsrRecipe, MergingRecipe, Recipe
from sfpp.export.models.segformer import (
    Attention,
    Block,
    ConvUnit,
    DecodeHead,
    Fusion,
    MixFfn,
    SegFormer,
    image_to_tokens,
    tokens_to_image,
    upsampled,
)
from sfpp.export.nv12 import ColorFromNv12
from sfpp.runtime.contract import InputSpec, OutputKind
from sfpp.runtime.labels import logit

# 2 MB of cache a core is out of reach for any of these maps; what counts is that a few of them fit a small memory, and
# that there are not too many parts, each of which reads the low-resolution maps again: at 1024x1024 one part, at
# 3840x2160 four, which takes 0.8 GB in OpenVINO instead of 1.2 GB and as long.
HEAD_BYTES_LIMIT = 1 << 27

Network = SegFormer | EdaFormer
_Part = TypeVar("_Part", bound=nn.Module)


class Deployable(nn.Module):
    """Frames in; logits, labels or heatmaps out. Made from a learned model, which stays untouched.

    Args:
        model: the learned network, in evaluation mode.
        recipe: what to merge, or EDAFormer's reduction.
        spec: name, size, layout and type of the input tensor.
        output: ``logits`` or ``heatmaps`` (batch, channels, h, w) float32 at the model's stride, or ``labels`` (batch,
            height, width) uint8, or ``masks`` (batch, channels, height, width) uint8.
        align_corners: how labels and masks are upsampled; None is how the head upsamples its own maps.
        threshold: of masks: the probability over which a pixel is a class.
        head_parts: how many parts the head's channels are computed in; None makes none of them larger than
            ``HEAD_BYTES_LIMIT``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Network,
        recipe: Recipe,
        *,
        spec: InputSpec,
        output: OutputKind,
        align_corners: bool | None = None,
        threshold: float | None = None,
        head_parts: int | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.spec = spec
        self.output = output
        self.align_corners = model.head.align_corners if align_corners is None else align_corners
        self.threshold = threshold
        self.step = recipe.input_step if isinstance(recipe, MergingRecipe) else 1
        self.color = ColorFromNv12(spec) if spec.layout == "NV12" else nn.Identity()
        self.encoder = with_rewritten_blocks(model.encoder)
        parts = head_parts or _head_parts(model, recipe, spec)
        if isinstance(model, EdaFormer):
            assert isinstance(recipe, IsrRecipe)
            self.head: nn.Module = RewrittenEdaHead(model.head, recipe, parts=parts)
        else:
            self.head = RewrittenHead(model.head, parts=parts)
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, frame: Tensor) -> Tensor:
        """Return the output for a batch of frames of exactly the spec's shape and type."""
        logits = self.head(self.encoder(self._image_from_frame(frame), self.recipe))
        return answer_of(
            logits, self.output, self.spec.size_hw, align_corners=self.align_corners, threshold=self.threshold
        )

    def _image_from_frame(self, frame: Tensor) -> Tensor:
        """Thin out and normalize: (batch, channels, height, width) float32."""
        # The cast comes first, since TensorRT knows uint8 only as an input; the transposition before the arithmetic,
        # since constants along the last axis defeat the vector loops of CPU runtimes.
        image = frame.to(torch.float32)
        if self.spec.layout == "NV12":
            image = self.color(image)
        image = image.permute(0, 3, 1, 2) if self.spec.layout == "NHWC" else image
        if self.step > 1:
            height, width = (size // self.step * self.step for size in self.spec.size_hw)
            image = image[:, :, : height : self.step, : width : self.step]
        return (image - self.mean) / self.std if self.spec.normalized_in_graph else image


def answer_of(
    logits: Tensor, output: OutputKind, size_hw: GridHw, *, align_corners: bool, threshold: float | None = None
) -> Tensor:
    """Return what a graph gives of a network's logits: themselves, labels (batch, height, width) uint8, or masks.

    Masks (batch, classes, height, width) uint8 are 1 where the sigmoid is above ``threshold``.
    """
    if output not in ("labels", "masks"):
        return logits
    values = upsampled(logits, size_hw, align_corners=align_corners)
    if output == "labels":
        return values.argmax(1).to(torch.uint8)
    assert threshold is not None
    return (values > logit(threshold)).to(torch.uint8)


def _head_parts(model: Network, recipe: Recipe, spec: InputSpec) -> int:
    """Return how many parts keep the head's maps, in float32, within the limit."""
    step = recipe.input_step if isinstance(recipe, MergingRecipe) else 1
    height, width = (size // step for size in spec.size_hw)
    level = 1 if isinstance(model, EdaFormer) else 0  # EDAFormer answers on the grid of its second stage
    rows, columns = model.config.encoder.stage_grids((height, width))[level]
    channels = model.head.classifier.in_channels
    return min(channels, -(-spec.batch * channels * rows * columns * 4 // HEAD_BYTES_LIMIT))


class ConvMixFfn(nn.Module):
    """The Mix-FFN with 1x1 convolutions in place of linear layers.

    One transposition each of the narrow token matrix remains, instead of two of the four times wider hidden one, and
    the three convolutions stand side by side where a backend may keep its own blocked layout.
    """

    def __init__(self, ffn: MixFfn) -> None:
        super().__init__()
        self.rectified = ffn.rectified
        self.expand = conv_1x1(ffn.expand.weight, ffn.expand.bias)
        self.depthwise = ffn.depthwise
        self.contract = conv_1x1(ffn.contract.weight, ffn.contract.bias)

    def forward(self, tokens: Tensor, grid_hw: GridHw) -> Tensor:
        """Return tokens of the same shape."""
        hidden = self.expand(tokens_to_image(tokens, grid_hw))
        hidden = self.depthwise(F.relu(hidden) if self.rectified else hidden)
        return image_to_tokens(self.contract(F.gelu(hidden)))


class FusedSum(nn.Module):
    """What is left of a head whose fusion moved into the stages: classifier(relu(sum(up(conv_i(map_i))) + bias)).

    The sum's channels are computed in ``parts``, one after the other: at 3840x2160 all of them together are 530 MB, and
    a backend would hold several such maps at once.

    Args:
        projections: what each map passes first, at its own resolution.
        weights: (width, channels of the projected map) of each map.
        bias: (width,).
        classifier: a 1x1 convolution from ``width`` channels.
        align_corners: how the maps are upsampled.
        parts: how many parts the width is computed in.
    """

    def __init__(
        self,
        projections: Sequence[nn.Module],
        weights: Sequence[Tensor],
        bias: Tensor,
        classifier: nn.Conv2d,
        *,
        align_corners: bool,
        parts: int = 1,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.projections = nn.ModuleList(projections)
        self.parts = nn.ModuleList()
        slices = [slice(int(rows[0]), int(rows[-1]) + 1) for rows in np.array_split(np.arange(len(bias)), parts)]
        for number, rows in enumerate(slices):
            # The first map needs no upsampling, so its convolution carries the bias and takes the sum of the others.
            convs = [conv_1x1(each[rows], None if index else bias[rows]) for index, each in enumerate(weights)]
            last = conv_1x1(classifier.weight[:, rows], None if number else classifier.bias)
            self.parts.append(nn.ModuleList([*convs, last]))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return logits (batch, classes, rows, columns) on the grid of ``maps[0]``."""
        projected = [projection(each) for projection, each in zip(self.projections, maps, strict=True)]
        logits = self._part(self.parts[0], projected)
        for part in self.parts[1:]:
            logits = logits + self._part(part, projected)
        return logits

    def _part(self, part: nn.Module, maps: list[Tensor]) -> Tensor:
        """Return what some of the channels contribute to the logits."""
        assert isinstance(part, nn.ModuleList)
        grid_hw = (int(maps[0].shape[2]), int(maps[0].shape[3]))
        convs, classifier = part[:-1], part[-1]
        # The upsampled maps are summed by themselves: a convolution followed by one addition and a ReLU is what CPU
        # backends run as a single operation.
        others = [
            upsampled(conv(image), grid_hw, align_corners=self.align_corners)
            for conv, image in zip(convs[1:], maps[1:], strict=True)
        ]
        total = convs[0](maps[0]) + functools.reduce(torch.add, others)
        logits: Tensor = classifier(F.relu(total))
        return logits


class RewrittenHead(FusedSum):
    """The decode head with the fusion applied before the upsampling, at each stage's own resolution.

    Bilinear upsampling is linear and acts on each channel alone, so ``fusion(cat(up(a_i))) = sum(up(W_i a_i))``, where
    W_i is the fusion's part for stage i. Where a projection is linear too, it and W_i are one matrix. A bias passes
    through upsampling unchanged, so all biases are added once.
    """

    def __init__(self, head: DecodeHead, *, parts: int = 1) -> None:
        weight, bias = folded_batch_norm(head.fusion)
        projections, weights = [], []
        for unit, fusion in zip(head.projections, torch.chunk(weight, len(head.projections), dim=1), strict=True):
            assert isinstance(unit, ConvUnit)
            projection, stage_weight, stage_bias = _fused_stage(unit, fusion)
            projections.append(projection)
            weights.append(stage_weight)
            bias = bias + stage_bias
        super().__init__(projections, weights, bias, head.classifier, align_corners=head.align_corners, parts=parts)


class RewrittenEdaHead(nn.Module):
    """EDAFormer's decoder with its blocks' FFN as convolutions and its fusion applied before the upsampling."""

    def __init__(self, head: Decoder, recipe: IsrRecipe, *, parts: int = 1) -> None:
        super().__init__()
        self.recipe = recipe
        self.decoder = with_rewritten_blocks(head)
        weight, bias = folded_batch_norm(head.fusion)
        weights = [each.flatten(1) for each in torch.split_with_sizes(weight, list(head.channels), dim=1)]
        projections = [nn.Identity() for _ in weights]
        self.fusion = FusedSum(
            projections, weights, bias, head.classifier, align_corners=head.align_corners, parts=parts
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits (batch, classes, rows, columns) on the grid of ``features[1]``."""
        logits: Tensor = self.fusion(self.decoder.attended(features, self.recipe))
        return logits


def with_rewritten_blocks(part: _Part) -> _Part:
    """Return a copy of an encoder or decoder whose blocks hold the cheaper equivalents."""
    copied = copy.deepcopy(part)
    for module in list(copied.modules()):
        if isinstance(module, Block | EdaBlock):
            assert isinstance(module.ffn, MixFfn)
            module.ffn = ConvMixFfn(module.ffn)
        if isinstance(module, Attention):
            fold_scale(module)
    return copied


def fold_scale(attention: Attention) -> None:
    """Move the factor 1 / sqrt(head width) into the query projection, in place."""
    with torch.no_grad():
        attention.query.weight.mul_(attention.scale)
        attention.query.bias.mul_(attention.scale)
    attention.scale = 1.0


def folded_batch_norm(unit: ConvUnit | Fusion) -> tuple[Tensor, Tensor]:
    """Return weight (out, in, 1, 1) and bias (out,) of the convolution that includes the unit's batch norm."""
    norm = unit.bn
    assert norm is not None
    assert norm.running_var is not None
    assert norm.running_mean is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = unit.conv.weight * gain.reshape(-1, 1, 1, 1)
    return weight.detach(), (norm.bias - norm.running_mean * gain).detach()


def _fused_stage(unit: ConvUnit, fusion: Tensor) -> tuple[nn.Module, Tensor, Tensor]:
    """Return what a stage passes first, the weight (width, channels) that follows, and the bias behind the sum."""
    if unit.bn is None:
        assert unit.conv.bias is not None
        weight = fusion.flatten(1) @ unit.conv.weight.flatten(1)
        return nn.Identity(), weight.detach(), (fusion.flatten(1) @ unit.conv.bias).detach()
    weight, bias = folded_batch_norm(unit)
    return nn.Sequential(conv_1x1(weight, bias), nn.ReLU()), fusion.flatten(1), torch.zeros_like(bias)


def conv_1x1(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a 1x1 convolution with a weight of shape (out, in) or (out, in, 1, 1)."""
    out_channels, in_channels = weight.shape[:2]
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=bias is not None)
    with torch.no_grad():
        conv.weight.copy_(weight.reshape(out_channels, in_channels, 1, 1))
        if conv.bias is not None and bias is not None:
            conv.bias.copy_(bias)
    return conv
