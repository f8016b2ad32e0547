"""The sizes of a checkpoint's network: those that its tensors tell, and those of the published size that they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sfpp.export.catalog import EFT_SIZES, MIT_SIZES
from sfpp.export.checkpoints.layout import BLOCK, CLASSIFIER, DECODER_BLOCK, FUSION, NetworkConfig
from sfpp.export.checkpoints.settings import check_agreement, encoder_from_settings
from sfpp.export.checkpoints.shapes import STAGES, StoredShapes
from sfpp.export.models.edaformer import EdaDecoderConfig, EdaFormerConfig, EftConfig
from sfpp.export.models.segformer import EncoderConfig, HeadConfig, SegFormerConfig
from sfpp.runtime.errors import CheckpointError

Sizes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


def network_config(stored: StoredShapes, settings: Mapping[str, Any] | None) -> NetworkConfig:
    """Return the sizes of the network.

    Heads, strides and pooling leave no trace in the weights: they come from ``settings``, Transformers' config.json,
    or from a published size that has the same channels and blocks.

    Raises:
        CheckpointError: an unknown size, or settings that sfpp does not support or that contradict the weights.
    """
    style = stored.spelling.style
    if style.head == "edaformer":
        return _edaformer_config(stored)
    found = EncoderConfig(stored.channels(), stored.depths())
    head = HeadConfig(style.head, stored.rows(FUSION), stored.rows(CLASSIFIER))
    if settings is None:
        _require_published(stored, found.channels, found.depths, MIT_SIZES)
        encoder = found
    else:
        encoder = encoder_from_settings(settings, stored.name)
        check_agreement(settings, encoder, found, head, name=stored.name)
    return SegFormerConfig(replace(encoder, block_eps=style.block_eps, embed_eps=style.embed_eps), head)


def size_name(config: NetworkConfig) -> str:
    """Return ``b0`` to ``b5`` or ``t`` and ``b``; ``custom`` where a SegFormer's encoder differs from those."""
    if isinstance(config, EdaFormerConfig):
        sizes = (config.encoder.channels, config.encoder.depths)
        return next(name for name, published in EFT_SIZES.items() if published == sizes)
    encoder = config.encoder
    for name, (channels, depths) in MIT_SIZES.items():
        if encoder == EncoderConfig(channels, depths, block_eps=encoder.block_eps, embed_eps=encoder.embed_eps):
            return name
    return "custom"


def _edaformer_config(stored: StoredShapes) -> EdaFormerConfig:
    channels, depths = stored.channels(), stored.depths()
    _require_published(stored, channels, depths, EFT_SIZES)
    style = stored.spelling.style
    encoder = EftConfig(
        channels,
        depths,
        hidden=tuple(stored.rows(BLOCK + "ffn.expand", i) for i in range(STAGES)),
        block_eps=style.block_eps,
        embed_eps=style.embed_eps,
    )
    hidden = tuple(stored.rows(DECODER_BLOCK + "ffn.expand", level) for level in range(STAGES - 1))
    return EdaFormerConfig(encoder, EdaDecoderConfig(hidden, stored.rows(FUSION), stored.rows(CLASSIFIER)))


def _require_published(
    stored: StoredShapes, channels: tuple[int, ...], depths: tuple[int, ...], published: Sizes
) -> None:
    if (channels, depths) in published.values():
        return
    known = "; ".join(f"{size.upper()} {widths}, {blocks}" for size, (widths, blocks) in published.items())
    advice = {
        "transformers": "give the folder with its config.json",
        "edaformer": "the weights do not tell the number of heads, so no other size can be read",
    }.get(
        stored.spelling.style.name,
        "other sizes are read from Transformers folders, whose config.json tells the number of heads",
    )
    raise CheckpointError(
        f"{stored.name} has channels {channels} and blocks {depths} ({stored.spelling.style.title} style), "
        f"which is no published size ({known}): {advice}"
    )
