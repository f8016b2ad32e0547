"""EDAFormer: embedding-free attention in encoder and decoder, with inference spatial reduction (ISR).

Source: arXiv 2407.17261. Queries are the tokens themselves; keys and values are one and the same projection of pooled
tokens. ISR multiplies the pooling sizes after training: fewer keys and values, the same weights. Shapes are as in
``sfpp.export.models.segformer``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from sfpp.export.models.attention import attend
from sfpp.export.models.recipe import GridHw, IsrRecipe, strided_grids
from sfpp.export.models.segformer import Fusion, MixFfn, PatchEmbed, image_to_tokens, tokens_to_image, upsampled

AS_TRAINED = IsrRecipe()


@dataclass(frozen=True)
class EftConfig:
    """Sizes of the encoder, one value per stage; ``hidden`` are the widths of the feed-forward networks."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    hidden: tuple[int, ...]
    heads: tuple[int, ...] = (1, 2, 4, 8)
    pools: tuple[int, ...] = (8, 4, 2, 1)
    patch_kernels: tuple[int, ...] = (7, 3, 3, 3)
    patch_strides: tuple[int, ...] = (4, 2, 2, 2)
    block_eps: float = 1e-6  # norm1, norm2 and the norm after each stage
    embed_eps: float = 1e-5  # the norms after patch embedding
    in_channels: int = 3

    def stage_grids(self, size_hw: GridHw) -> tuple[GridHw, ...]:
        """Return each stage's grid (rows, columns) for an image of ``size_hw`` pixels."""
        return strided_grids(size_hw, self.patch_kernels, self.patch_strides)


@dataclass(frozen=True)
class EdaDecoderConfig:
    """Sizes of the decoder, one value for each of the encoder's stages 2, 3 and 4."""

    hidden: tuple[int, ...]
    width: int
    classes: int
    depths: tuple[int, ...] = (1, 2, 3)
    heads: tuple[int, ...] = (2, 4, 8)
    pools: tuple[int, ...] = (4, 2, 1)
    eps: float = 1e-5
    align_corners: bool = False


@dataclass(frozen=True)
class EdaFormerConfig:
    """A whole segmentation network."""

    encoder: EftConfig
    decoder: EdaDecoderConfig


class EdaFormer(nn.Module):
    """The learned network; ISR is an argument of the call, since it needs no weights."""

    def __init__(self, config: EdaFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.head = Decoder(config.decoder, config.encoder.channels[1:])

    def forward(self, image: Tensor, recipe: IsrRecipe = AS_TRAINED) -> Tensor:
        """Return logits (batch, classes, h, w) on the grid of the second stage, a stride of 8.

        Raises:
            RecipeError: a pooling window does not fit the grid of its stage.
        """
        logits: Tensor = self.head(self.encoder(image, recipe), recipe)
        return logits


class Encoder(nn.Module):
    """The embedding-free transformer (EFT): four stages, each at half the resolution of the one before."""

    def __init__(self, config: EftConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(Stage(config, index) for index in range(len(config.channels)))

    def forward(self, image: Tensor, recipe: IsrRecipe) -> list[Tensor]:
        """Return one feature map (batch, channels, rows, columns) per stage."""
        features = []
        grids = self.config.stage_grids((int(image.shape[2]), int(image.shape[3])))
        for stage, grid_hw, factor in zip(self.stages, grids, recipe.encoder, strict=True):
            image = stage(image, grid_hw, factor)
            features.append(image)
        return features


class Stage(nn.Module):
    """Patch embedding, transformer blocks, and a final norm."""

    def __init__(self, config: EftConfig, index: int) -> None:
        super().__init__()
        previous = config.channels[index - 1] if index else config.in_channels
        channels = config.channels[index]
        kernel, stride = config.patch_kernels[index], config.patch_strides[index]
        self.patch_embed = PatchEmbed(previous, channels, kernel=kernel, stride=stride, eps=config.embed_eps)
        self.blocks = nn.ModuleList(
            Block(
                channels,
                attention=Attention(channels, heads=config.heads[index], pool=config.pools[index], norm_eps=None),
                ffn=MixFfn(channels, config.hidden[index], rectified=True),
                eps=config.block_eps,
            )
            for _ in range(config.depths[index])
        )
        self.norm = nn.LayerNorm(channels, eps=config.block_eps)

    def forward(self, image: Tensor, grid_hw: GridHw, factor: int) -> Tensor:
        """Return the stage's feature map (batch, channels, rows, columns)."""
        tokens = self.patch_embed(image)
        for block in self.blocks:
            tokens = block(tokens, grid_hw, factor)
        return tokens_to_image(self.norm(tokens), grid_hw)


class Block(nn.Module):
    """Attention, then the feed-forward network, each on normed tokens and added to what came in."""

    def __init__(self, channels: int, *, attention: Attention, ffn: MixFfn, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.ffn: nn.Module = ffn

    def forward(self, tokens: Tensor, grid_hw: GridHw, factor: int) -> Tensor:
        """Return tokens of the same shape; ``factor`` multiplies the attention's pooling."""
        tokens = tokens + self.attention(self.norm1(tokens), grid_hw, factor)
        updated: Tensor = tokens + self.ffn(self.norm2(tokens), grid_hw)
        return updated


class Attention(nn.Module):
    """Embedding-free attention: softmax(x k^T / sqrt(d)) k with k one projection of the pooled tokens.

    Args:
        channels: of the tokens.
        heads: divides the channels.
        pool: side of the pooling windows as trained.
        norm_eps: the decoder norms its projection, with this epsilon, and passes it through GELU; None for the encoder.
    """

    def __init__(self, channels: int, *, heads: int, pool: int, norm_eps: float | None) -> None:
        super().__init__()
        self.heads = heads
        self.pool = pool
        self.scale = (channels // heads) ** -0.5
        self.key_value = nn.Conv2d(channels, channels, 1)
        self.key_value_norm = None if norm_eps is None else nn.LayerNorm(channels, eps=norm_eps)
        self.output = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, grid_hw: GridHw, factor: int) -> Tensor:
        """Return the update for every token, (batch, N, channels)."""
        context = tokens_to_image(tokens, grid_hw)
        window = self.pool * factor
        if window > 1:
            context = F.avg_pool2d(context, window, window)
        context = image_to_tokens(self.key_value(context))
        if self.key_value_norm is not None:
            context = F.gelu(self.key_value_norm(context))
        update: Tensor = self.output(attend(tokens, context, context, self.heads, self.scale))
        return update


class Decoder(nn.Module):
    """All-attention decoder: blocks on stages 2 to 4, upsampled to stage 2's grid, fused, classified.

    The fusion's input channels are in the order of the stages, whatever the order in the checkpoint was.
    """

    def __init__(self, config: EdaDecoderConfig, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels
        self.align_corners = config.align_corners
        self.stages = nn.ModuleList(
            nn.ModuleList(self._block(config, count, level) for _ in range(config.depths[level]))
            for level, count in enumerate(channels)
        )
        self.fusion = Fusion(sum(channels), config.width)
        self.classifier = nn.Conv2d(config.width, config.classes, 1)

    @staticmethod
    def _block(config: EdaDecoderConfig, channels: int, level: int) -> Block:
        attention = Attention(channels, heads=config.heads[level], pool=config.pools[level], norm_eps=config.eps)
        ffn = MixFfn(channels, config.hidden[level])
        return Block(channels, attention=attention, ffn=ffn, eps=config.eps)

    def attended(self, features: list[Tensor], recipe: IsrRecipe) -> list[Tensor]:
        """Return the decoder's maps for stages 2, 3 and 4, each at its own resolution."""
        maps = []
        for blocks, feature, factor in zip(self.stages, features[1:], recipe.decoder, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            grid_hw = (int(feature.shape[2]), int(feature.shape[3]))
            tokens = image_to_tokens(feature)
            for block in blocks:
                tokens = block(tokens, grid_hw, factor)
            maps.append(tokens_to_image(tokens, grid_hw))
        return maps

    def forward(self, features: list[Tensor], recipe: IsrRecipe) -> Tensor:
        """Return logits (batch, classes, rows, columns) on the grid of ``features[1]``."""
        maps = self.attended(features, recipe)
        size_hw = (int(maps[0].shape[2]), int(maps[0].shape[3]))
        same_size = (upsampled(each, size_hw, align_corners=self.align_corners) for each in maps)
        logits: Tensor = self.classifier(self.fusion(same_size))
        return logits
