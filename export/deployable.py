"""The learned network rewritten for a graph: the same function, in fewer and cheaper operations.

Every rewrite here is exact up to rounding, and each is checked against the learned model on every export. The inputs
and outputs have the fixed names and shapes of ``sfpp.runtime.contract``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfpp.export.models.edaformer import Block as EdaBlock
from sfpp.export.models.edaformer import Decoder, EdaFormer
from sfpp.export.models.recipe import GridHw, IsrRecipe, MergingRecipe, Recipe
from sfpp.export.models.segformer import (
    Attention,
    Block,
    ConvUnit,
    DecodeHead,
    MixFfn,
    SegFormer,
    image_to_tokens,
    tokens_to_image,
)
from sfpp.runtime.contract import InputSpec, OutputKind

Network = SegFormer | EdaFormer
_Part = TypeVar("_Part", bound=nn.Module)


class Deployable(nn.Module):
    """Frames in; logits, labels or heatmaps out. Made from a learned model, which stays untouched.

    Args:
        model: the learned network, in evaluation mode.
        recipe: what to merge, or EDAFormer's reduction.
        spec: name, size, layout and type of the input tensor.
        output: ``logits`` or ``heatmaps`` (batch, channels, h, w) float32 at the model's stride, or ``labels`` (batch,
            height, width) uint8.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Network, recipe: Recipe, *, spec: InputSpec, output: OutputKind) -> None:
        super().__init__()
        self.recipe = recipe
        self.spec = spec
        self.output = output
        self.step = recipe.input_step if isinstance(recipe, MergingRecipe) else 1
        self.encoder = with_rewritten_blocks(model.encoder)
        if isinstance(model, EdaFormer):
            assert isinstance(recipe, IsrRecipe)
            self.head: nn.Module = RewrittenEdaHead(model.head, recipe)
        else:
            self.head = RewrittenHead(model.head)
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, frame: Tensor) -> Tensor:
        """Return the output for a batch of frames of exactly the spec's shape and type."""
        image = self._image_from_frame(frame)
        logits: Tensor = self.head(self.encoder(image, self.recipe))
        if self.output != "labels":
            return logits
        raised = F.interpolate(logits, size=self.spec.size_hw, mode="bilinear", align_corners=False)
        return raised.argmax(1).to(torch.uint8)

    def _image_from_frame(self, frame: Tensor) -> Tensor:
        """Thin out and normalize: (batch, 3, height, width) float32."""
        # The cast comes first, since TensorRT knows uint8 only as an input; the transposition before the arithmetic,
        # since constants along the last axis defeat the vector loops of CPU runtimes.
        image = frame.to(torch.float32)
        image = image.permute(0, 3, 1, 2) if self.spec.layout == "NHWC" else image
        if self.step > 1:
            height, width = (size // self.step * self.step for size in self.spec.size_hw)
            image = image[:, :, : height : self.step, : width : self.step]
        return (image - self.mean) / self.std if self.spec.normalized_in_graph else image


class ConvMixFfn(nn.Module):
    """The Mix-FFN with 1x1 convolutions in the place of linear layers.

    One transposition each of the narrow token matrix remains, instead of two of the four times wider hidden one, and
    the three convolutions stand side by side where a backend may keep its own blocked layout.
    """

    def __init__(self, ffn: MixFfn) -> None:
        super().__init__()
        self.rectified = ffn.rectified
        self.expand = _conv_from_linear(ffn.expand)
        self.depthwise = ffn.depthwise
        self.contract = _conv_from_linear(ffn.contract)

    def forward(self, tokens: Tensor, grid_hw: GridHw) -> Tensor:
        """Return tokens of the same shape."""
        hidden = self.expand(tokens_to_image(tokens, grid_hw))
        hidden = self.depthwise(F.relu(hidden) if self.rectified else hidden)
        return image_to_tokens(self.contract(F.gelu(hidden)))


class FusedSum(nn.Module):
    """What is left of a head whose fusion moved into the stages: classifier(relu(sum(up(stage_i(map_i))) + bias))."""

    def __init__(self, stages: Sequence[nn.Module], bias: Tensor, classifier: nn.Conv2d) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.bias = nn.Parameter(bias.reshape(1, -1, 1, 1), requires_grad=False)
        self.classifier = copy.deepcopy(classifier)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return logits (batch, classes, rows, columns) on the grid of ``maps[0]``."""
        grid_hw = (int(maps[0].shape[2]), int(maps[0].shape[3]))
        total = self.stages[0](maps[0]) + self.bias
        for stage, image in zip(self.stages[1:], maps[1:], strict=True):
            total = total + F.interpolate(stage(image), size=grid_hw, mode="bilinear", align_corners=False)
        logits: Tensor = self.classifier(F.relu(total))
        return logits


class RewrittenHead(FusedSum):
    """The decode head with the fusion applied before the upsampling, at each stage's own resolution.

    Bilinear upsampling is linear and acts on each channel alone, so ``fusion(cat(up(a_i))) = sum(up(W_i a_i))``, where
    W_i is the fusion's part for stage i. Where a projection is linear too, it and W_i are one matrix. A bias passes
    through upsampling unchanged, so all biases are added once, after the sum.
    """

    def __init__(self, head: DecodeHead) -> None:
        weight, bias = folded_batch_norm(head.fusion)
        stages = []
        for unit, part in zip(head.projections, torch.chunk(weight, len(head.projections), dim=1), strict=True):
            assert isinstance(unit, ConvUnit)
            stage, stage_bias = _fused_stage(unit, part)
            stages.append(stage)
            bias = bias + stage_bias
        super().__init__(stages, bias, head.classifier)


class RewrittenEdaHead(nn.Module):
    """EDAFormer's decoder with its blocks' FFN as convolutions and its fusion applied before the upsampling."""

    def __init__(self, head: Decoder, recipe: IsrRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.decoder = with_rewritten_blocks(head)
        weight, bias = folded_batch_norm(head.fusion)
        parts = torch.split_with_sizes(weight, list(head.channels), dim=1)
        self.fusion = FusedSum([conv_1x1(part, None) for part in parts], bias, head.classifier)

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


def folded_batch_norm(unit: ConvUnit) -> tuple[Tensor, Tensor]:
    """Return weight (out, in, 1, 1) and bias (out,) of the convolution that includes the unit's batch norm."""
    norm = unit.bn
    assert norm is not None
    assert norm.running_var is not None
    assert norm.running_mean is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = unit.conv.weight * gain.reshape(-1, 1, 1, 1)
    return weight.detach(), (norm.bias - norm.running_mean * gain).detach()


def _fused_stage(unit: ConvUnit, part: Tensor) -> tuple[nn.Module, Tensor]:
    """Return a stage's path up to the sum, and the bias that moves behind the sum."""
    if unit.bn is None:
        assert unit.conv.bias is not None
        weight = part.flatten(1) @ unit.conv.weight.flatten(1)
        return conv_1x1(weight, None), (part.flatten(1) @ unit.conv.bias).detach()
    weight, bias = folded_batch_norm(unit)
    return nn.Sequential(conv_1x1(weight, bias), nn.ReLU(), conv_1x1(part, None)), torch.zeros_like(bias)


def conv_1x1(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a 1x1 convolution with a weight of shape (out, in) or (out, in, 1, 1)."""
    out_channels, in_channels = weight.shape[:2]
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=bias is not None)
    with torch.no_grad():
        conv.weight.copy_(weight.reshape(out_channels, in_channels, 1, 1))
        if conv.bias is not None and bias is not None:
            conv.bias.copy_(bias)
    return conv


def _conv_from_linear(linear: nn.Linear) -> nn.Conv2d:
    return conv_1x1(linear.weight, linear.bias)
