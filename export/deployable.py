"""The learned network rewritten for a graph: the same function, in fewer and cheaper operations.

Every rewrite here is exact up to rounding, and each is checked against the learned model on every export. The inputs
and outputs have the fixed names and shapes of ``sfpp.runtime.contract``.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfpp.export.models.recipe import GridHw, MergingRecipe
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


class DeployableSegFormer(nn.Module):
    """Frames in, logits or labels out; made from a learned model, which stays untouched.

    Args:
        model: the learned network, in evaluation mode.
        recipe: what to merge.
        spec: name, size, layout and type of the input tensor.
        output: ``logits`` (batch, classes, h, w) float32 at the model's stride, or ``labels`` (batch, height, width)
            uint8.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: SegFormer, recipe: MergingRecipe, *, spec: InputSpec, output: OutputKind) -> None:
        super().__init__()
        self.recipe = recipe
        self.spec = spec
        self.output = output
        self.encoder = copy.deepcopy(model.encoder)
        for block in (module for module in self.encoder.modules() if isinstance(module, Block)):
            assert isinstance(block.ffn, MixFfn)
            block.ffn = ConvMixFfn(block.ffn)
            fold_scale(block.attention)
        self.head = RewrittenHead(model.head)
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, frame: Tensor) -> Tensor:
        """Return logits or labels for a batch of frames of exactly the spec's shape and type."""
        image = self._image_from_frame(frame)
        logits: Tensor = self.head(self.encoder(image, self.recipe))
        if self.output == "logits":
            return logits
        raised = F.interpolate(logits, size=self.spec.size_hw, mode="bilinear", align_corners=False)
        return raised.argmax(1).to(torch.uint8)

    def _image_from_frame(self, frame: Tensor) -> Tensor:
        """Thin out and normalize: (batch, 3, height, width) float32."""
        # The cast comes first, since TensorRT knows uint8 only as an input; the transposition before the arithmetic,
        # since constants along the last axis defeat the vector loops of CPU runtimes.
        image = frame.to(torch.float32)
        image = image.permute(0, 3, 1, 2) if self.spec.layout == "NHWC" else image
        if (step := self.recipe.input_step) > 1:
            height, width = (size // step * step for size in self.spec.size_hw)
            image = image[:, :, :height:step, :width:step]
        return (image - self.mean) / self.std if self.spec.normalized_in_graph else image


class ConvMixFfn(nn.Module):
    """The Mix-FFN with 1x1 convolutions in the place of linear layers.

    One transposition each of the narrow token matrix remains, instead of two of the four times wider hidden one, and
    the three convolutions stand side by side where a backend may keep its own blocked layout.
    """

    def __init__(self, ffn: MixFfn) -> None:
        super().__init__()
        self.expand = _conv_from_linear(ffn.expand)
        self.depthwise = ffn.depthwise
        self.contract = _conv_from_linear(ffn.contract)

    def forward(self, tokens: Tensor, grid_hw: GridHw) -> Tensor:
        """Return tokens of the same shape."""
        hidden = self.depthwise(self.expand(tokens_to_image(tokens, grid_hw)))
        return image_to_tokens(self.contract(F.gelu(hidden)))


class RewrittenHead(nn.Module):
    """The decode head with the fusion applied before the upsampling, at each stage's own resolution.

    Bilinear upsampling is linear and acts on each channel alone, so ``fusion(cat(up(a_i))) = sum(up(W_i a_i))``, where
    W_i is the fusion's part for stage i. Where a projection is linear too, it and W_i are one matrix. A bias passes
    through upsampling unchanged, so all biases are added once, after the sum.
    """

    def __init__(self, head: DecodeHead) -> None:
        super().__init__()
        weight, bias = folded_batch_norm(head.fusion)
        width = head.fusion.conv.out_channels
        parts = torch.chunk(weight, len(head.projections), dim=1)
        self.stages = nn.ModuleList()
        for unit, part in zip(head.projections, parts, strict=True):
            assert isinstance(unit, ConvUnit)
            stage, stage_bias = _fused_stage(unit, part)
            self.stages.append(stage)
            bias = bias + stage_bias
        self.bias = nn.Parameter(bias.reshape(1, width, 1, 1), requires_grad=False)
        self.classifier = copy.deepcopy(head.classifier)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits (batch, classes, rows, columns) on the grid of ``features[0]``."""
        grid_hw = (int(features[0].shape[2]), int(features[0].shape[3]))
        total = self.stages[0](features[0]) + self.bias
        for stage, feature in zip(self.stages[1:], features[1:], strict=True):
            total = total + F.interpolate(stage(feature), size=grid_hw, mode="bilinear", align_corners=False)
        logits: Tensor = self.classifier(F.relu(total))
        return logits


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
