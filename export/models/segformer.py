"""SegFormer and SegFormer++: the MiT encoder with token merging, and the two decode heads.

Sources: SegFormer (arXiv 2105.15203), SegFormer++ (arXiv 2405.14467). Images are (batch, channels, height, width),
float, normalized, RGB as a rule; tokens are (batch, N, channels) over a grid of rows x columns in row-major order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from sfpp.export.models.attention import attend
from sfpp.export.models.recipe import NO_MERGING, GridHw, MergingRecipe, StageRecipe, strided_grids
from sfpp.export.models.token_merging import Matching, log_of_sizes, matching_of, merge_tokens


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of a MiT encoder, one value per stage; the defaults are those that B0 to B5 share."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...] = (1, 2, 5, 8)
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    expansions: tuple[int, ...] = (4, 4, 4, 4)
    patch_kernels: tuple[int, ...] = (7, 3, 3, 3)
    patch_strides: tuple[int, ...] = (4, 2, 2, 2)
    block_eps: float = 1e-6  # norm1, norm2 and the norm after each stage
    embed_eps: float = 1e-6  # the norms after patch embedding and after spatial reduction
    in_channels: int = 3

    def stage_grids(self, size_hw: GridHw) -> tuple[GridHw, ...]:
        """Return each stage's grid (rows, columns) for an image of ``size_hw`` pixels."""
        return strided_grids(size_hw, self.patch_kernels, self.patch_strides)


@dataclass(frozen=True)
class HeadConfig:
    """Sizes of a decode head.

    ``official`` projects each stage linearly with a bias; ``mmseg`` by a 1x1 convolution, batch norm and ReLU.
    ``align_corners`` is how it was trained to upsample, its own maps and its logits; see :func:`upsampled`.
    """

    kind: Literal["official", "mmseg"]
    width: int
    classes: int
    align_corners: bool = False


@dataclass(frozen=True)
class SegFormerConfig:
    """A whole segmentation network."""

    encoder: EncoderConfig
    head: HeadConfig


class SegFormer(nn.Module):
    """The learned network; merging is an argument of the call, since it needs no weights."""

    def __init__(self, config: SegFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.head = DecodeHead(config.head, config.encoder.channels)

    def forward(self, image: Tensor, recipe: MergingRecipe = NO_MERGING) -> Tensor:
        """Return logits (batch, classes, h, w) on the grid of the first stage.

        Raises:
            RecipeError: the recipe does not fit the grid of some stage.
        """
        step = recipe.input_step
        if step > 1:
            height, width = int(image.shape[2]) // step * step, int(image.shape[3]) // step * step
            image = image[:, :, :height:step, :width:step]
        logits: Tensor = self.head(self.encoder(image, recipe))
        return logits


class Encoder(nn.Module):
    """Four stages, each at half the resolution of the one before; the first at a quarter of the image's."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(Stage(config, index) for index in range(len(config.channels)))

    def forward(self, image: Tensor, recipe: MergingRecipe) -> list[Tensor]:
        """Return one feature map (batch, channels, rows, columns) per stage."""
        features = []
        grids = self.config.stage_grids((int(image.shape[2]), int(image.shape[3])))
        for stage, grid_hw, stage_recipe in zip(self.stages, grids, recipe.stages, strict=True):
            image = stage(image, grid_hw, stage_recipe, recipe)
            features.append(image)
        return features


class Stage(nn.Module):
    """Patch embedding, transformer blocks, and a final norm."""

    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        previous = config.channels[index - 1] if index else config.in_channels
        self.channels = config.channels[index]
        self.patch_embed = PatchEmbed(
            previous,
            self.channels,
            kernel=config.patch_kernels[index],
            stride=config.patch_strides[index],
            eps=config.embed_eps,
        )
        self.blocks = nn.ModuleList(Block(config, index) for _ in range(config.depths[index]))
        self.norm = nn.LayerNorm(self.channels, eps=config.block_eps)

    def forward(self, image: Tensor, grid_hw: GridHw, recipe: StageRecipe, network: MergingRecipe) -> Tensor:
        """Return the stage's feature map (batch, channels, rows, columns)."""
        tokens = self.patch_embed(image)
        matchings = None
        for number, block in enumerate(self.blocks):
            tokens, matchings = block(tokens, grid_hw, recipe, None if network.matches_anew(number) else matchings)
        return tokens_to_image(self.norm(tokens), grid_hw)


class PatchEmbed(nn.Module):
    """A strided, overlapping convolution and a norm: image to tokens."""

    def __init__(self, in_channels: int, channels: int, *, kernel: int, stride: int, eps: float) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(channels, eps=eps)

    def forward(self, image: Tensor) -> Tensor:
        """Return tokens (batch, rows * columns, channels)."""
        tokens: Tensor = self.norm(image_to_tokens(self.projection(image)))
        return tokens


class Block(nn.Module):
    """Attention on (possibly merged) tokens, then the Mix-FFN on all of them."""

    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        channels = config.channels[index]
        self.norm1 = nn.LayerNorm(channels, eps=config.block_eps)
        self.attention = Attention(
            channels, heads=config.heads[index], reduction=config.reductions[index], eps=config.embed_eps
        )
        self.norm2 = nn.LayerNorm(channels, eps=config.block_eps)
        self.ffn: nn.Module = MixFfn(channels, channels * config.expansions[index])

    def forward(
        self, tokens: Tensor, grid_hw: GridHw, recipe: StageRecipe, matchings: Matchings | None = None
    ) -> tuple[Tensor, Matchings]:
        """Return tokens of the same shape, and the matchings that the attention used."""
        update, matchings = self.attention(self.norm1(tokens), grid_hw, recipe, matchings)
        tokens = tokens + update
        return tokens + self.ffn(self.norm2(tokens), grid_hw), matchings


class Matchings(NamedTuple):
    """What an attention merged by: its queries' matching and its keys' and values', None where there was none."""

    query: Matching | None
    key_value: Matching | None


class Attention(nn.Module):
    """Multi-head attention whose keys and values come from a spatially reduced grid."""

    def __init__(self, channels: int, *, heads: int, reduction: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.reduction_ratio = reduction
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)  # keys first
        self.output = nn.Linear(channels, channels)
        if reduction > 1:
            self.reduction = nn.Conv2d(channels, channels, reduction, reduction)
            self.reduction_norm = nn.LayerNorm(channels, eps=eps)

    def forward(
        self, tokens: Tensor, grid_hw: GridHw, recipe: StageRecipe, matchings: Matchings | None = None
    ) -> tuple[Tensor, Matchings]:
        """Return the update for every token, (batch, N, channels), merged queries already copied back.

        ``matchings`` are those of an earlier block, to be used again; None matches anew. They are returned too.
        """
        context, context_grid = self.reduce(tokens, grid_hw)
        if matchings is None:
            by_query = matching_of(tokens, grid_hw, recipe.query)
            matchings = Matchings(by_query, matching_of(context, context_grid, recipe.key_value))
        queries, copy_back, _ = merge_tokens(tokens, grid_hw, recipe.query, matchings.query)
        context, _, sizes = merge_tokens(context, context_grid, recipe.key_value, matchings.key_value)
        log_size = log_of_sizes(sizes) if recipe.sized and sizes is not None else None
        channels = int(tokens.shape[2])
        key_value = self.key_value(context)
        key, value = key_value[..., :channels], key_value[..., channels:]
        mixed = attend(self.query(queries), key, value, self.heads, self.scale, log_size)
        return copy_back(self.output(mixed)), matchings

    def reduce(self, tokens: Tensor, grid_hw: GridHw) -> tuple[Tensor, GridHw]:
        """Return the tokens that keys and values are made of, and their grid."""
        if self.reduction_ratio == 1:
            return tokens, grid_hw
        reduced = self.reduction(tokens_to_image(tokens, grid_hw))
        return self.reduction_norm(image_to_tokens(reduced)), reduced_grid(grid_hw, self.reduction_ratio)


class MixFfn(nn.Module):
    """Expand, (ReLU in EDAFormer's encoder,) 3x3 depth-wise convolution, GELU, contract."""

    def __init__(self, channels: int, hidden: int, *, rectified: bool = False) -> None:
        super().__init__()
        self.rectified = rectified
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.contract = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor, grid_hw: GridHw) -> Tensor:
        """Return tokens of the same shape."""
        hidden = self.expand(tokens)
        hidden = self.depthwise(tokens_to_image(F.relu(hidden) if self.rectified else hidden, grid_hw))
        contracted: Tensor = self.contract(F.gelu(image_to_tokens(hidden)))
        return contracted


class DecodeHead(nn.Module):
    """All-MLP head: project each stage, upsample to the first stage's grid, fuse, classify.

    The fusion's input channels are in the order of the stages, whatever the order in the checkpoint was.
    """

    def __init__(self, config: HeadConfig, channels: tuple[int, ...]) -> None:
        super().__init__()
        mmseg = config.kind == "mmseg"
        self.align_corners = config.align_corners
        self.projections = nn.ModuleList(ConvUnit(count, config.width, normed=mmseg) for count in channels)
        self.fusion = Fusion(len(channels) * config.width, config.width)
        self.classifier = nn.Conv2d(config.width, config.classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits (batch, classes, rows, columns) on the grid of ``features[0]``."""
        grid_hw = (int(features[0].shape[2]), int(features[0].shape[3]))
        maps = (
            upsampled(unit(feature), grid_hw, align_corners=self.align_corners)
            for unit, feature in zip(self.projections, features, strict=True)
        )
        logits: Tensor = self.classifier(self.fusion(maps))
        return logits


class ConvUnit(nn.Module):
    """A 1x1 convolution, alone with a bias, or followed by batch norm and ReLU."""

    def __init__(self, in_channels: int, channels: int, *, normed: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=not normed)
        self.bn = nn.BatchNorm2d(channels) if normed else None

    def forward(self, image: Tensor) -> Tensor:
        """Return (batch, channels, rows, columns)."""
        convolved: Tensor = self.conv(image)
        return convolved if self.bn is None else F.relu(self.bn(convolved))


class Fusion(nn.Module):
    """A 1x1 convolution of maps side by side, batch norm and ReLU.

    The maps come one after the other and are never held side by side: at 3840x2160 those of a B2 are 6.4 GB, and the
    convolution would hold them a second time in an order of its own.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, maps: Iterable[Tensor]) -> Tensor:
        """Return (batch, channels, rows, columns) of maps of that size, whose channels add up to ``in_channels``."""
        total: Tensor | None = None
        start = 0
        for image in maps:
            end = start + int(image.shape[1])
            part = F.conv2d(image, self.conv.weight[:, start:end])
            total, start = part if total is None else total.add_(part), end
            del image, part  # before the next map comes
        return F.relu(self.bn(total), inplace=True)


def upsampled(image: Tensor, size_hw: GridHw, *, align_corners: bool) -> Tensor:
    """Return an image at another size, bilinearly.

    With ``align_corners`` the centers of the corner pixels lie on each other, else the corners of the whole images.
    """
    return F.interpolate(image, size=size_hw, mode="bilinear", align_corners=align_corners)


def image_to_tokens(image: Tensor) -> Tensor:
    """Return (batch, channels, rows, columns) as tokens (batch, rows * columns, channels)."""
    batch, channels, rows, columns = (int(size) for size in image.shape)
    return image.reshape(batch, channels, rows * columns).transpose(1, 2)


def tokens_to_image(tokens: Tensor, grid_hw: GridHw) -> Tensor:
    """Return tokens (batch, rows * columns, channels) as (batch, channels, rows, columns)."""
    batch, _, channels = (int(size) for size in tokens.shape)
    return tokens.transpose(1, 2).reshape(batch, channels, *grid_hw)


def reduced_grid(grid_hw: GridHw, ratio: int) -> GridHw:
    """Return the grid that spatial reduction leaves; rows and columns that do not fill a window are dropped."""
    return grid_hw[0] // ratio, grid_hw[1] // ratio
