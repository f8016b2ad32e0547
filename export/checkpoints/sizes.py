"""The sizes of a checkpoint's network: those that its tensors tell, and those of the published size that they fit.

Transformers' ``config.json`` says more than the tensors, and has to belong to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sfpp.export.catalog import EFT_SIZES, MIT_SIZES
from sfpp.export.checkpoints.storage import read_json_object
from sfpp.export.checkpoints.styles import BLOCK, CLASSIFIER, DECODER_BLOCK, FUSION, PROJECTION, STAGES, Spelling
from sfpp.export.models.edaformer import EdaDecoderConfig, EdaFormerConfig, EftConfig
from sfpp.export.models.segformer import EncoderConfig, HeadConfig, SegFormerConfig
from sfpp.runtime.errors import CheckpointError

NetworkConfig = SegFormerConfig | EdaFormerConfig
Sizes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
# The settings with one value per stage: what we call them, and what the library takes where config.json is silent.
_LISTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "hidden_sizes": ("channels", (32, 64, 160, 256)),
    "depths": ("depths", (2, 2, 2, 2)),
    "num_attention_heads": ("heads", (1, 2, 5, 8)),
    "sr_ratios": ("reductions", (8, 4, 2, 1)),
    "mlp_ratios": ("expansions", (4, 4, 4, 4)),
    "patch_sizes": ("patch_kernels", (7, 3, 3, 3)),
    "strides": ("patch_strides", (4, 2, 2, 2)),
}
_SUPPORTED = {"model_type": "segformer", "hidden_act": "gelu", "num_encoder_blocks": STAGES}
# Far above any network; beyond it the size of a tensor no longer fits an integer.
_LARGEST = 4096


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
    found = EncoderConfig(stored.channels(), stored.depths(), in_channels=stored.input_channels())
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
    alike = {name: getattr(encoder, name) for name in ("block_eps", "embed_eps", "in_channels")}
    for name, (channels, depths) in MIT_SIZES.items():
        if encoder == EncoderConfig(channels, depths, **alike):
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
        in_channels=stored.input_channels(),
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


@dataclass(frozen=True)
class StoredShapes:
    """Reads sizes off the tensors of one file; ``name`` stands for it in messages."""

    name: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    spelling: Spelling

    def rows(self, module: str, i: int = 0, j: int = 0) -> int:
        """Return the first dimension of a module's weight: its output channels.

        Raises:
            CheckpointError: the tensor is missing, or has no rows.
        """
        (part,) = self.spelling.parts(module)
        key = part.key("weight", i, j)
        if key not in self.tensors or self.tensors[key].ndim == 0 or len(self.tensors[key]) == 0:
            found = "has no rows" if key in self.tensors else "is missing"
            raise CheckpointError(
                f"{self.name}: {key} {found}, without which the size is unknown "
                f"({self.spelling.style.title} style); give the whole state dictionary"
            )
        return len(self.tensors[key])

    def channels(self) -> tuple[int, ...]:
        """Return the channels of every encoder stage.

        Raises:
            CheckpointError: a stage's patch embedding is missing.
        """
        return tuple(self.rows(PROJECTION, i) for i in range(STAGES))

    def input_channels(self) -> int:
        """Return how many channels an image has, by the weight (channels out, in, rows, columns) that it meets first.

        Raises:
            CheckpointError: the first patch embedding is missing.
        """
        self.rows(PROJECTION)
        (part,) = self.spelling.parts(PROJECTION)
        shape = self.tensors[part.key("weight", 0, 0)].shape
        # Of another rank, it is listed among the tensors of a wrong shape.
        return int(shape[1]) if len(shape) == 4 and shape[1] else 3

    def depths(self) -> tuple[int, ...]:
        """Count each stage's blocks by the highest index among the keys, so that a hole shows as missing keys."""
        (part,) = self.spelling.parts(BLOCK + "norm1")
        before_index = part.module.split("{j}")[0]
        depths = []
        for i in range(STAGES):
            prefix = before_index.format(i=i, n=i + 1)
            indices = {key.removeprefix(prefix).split(".")[0] for key in self.tensors if key.startswith(prefix)}
            # What is longer than an index is an unexpected key.
            numbers = [int(index) for index in indices if index.isdecimal() and len(index) < 10]
            depths.append(max(numbers, default=-1) + 1)
        return tuple(depths)


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the content of the ``config.json`` beside a Transformers checkpoint, or None where there is none.

    Raises:
        CheckpointError: it is not JSON.
    """
    path = folder / "config.json"
    return read_json_object(path) if path.is_file() else None


def encoder_from_settings(settings: Mapping[str, Any], name: str) -> EncoderConfig:
    """Return the encoder's sizes, with norms as in the model's defaults; ``name`` stands for the file in messages.

    Raises:
        CheckpointError: a setting that sfpp does not support, or one that is not a size.
    """
    for key, supported in _SUPPORTED.items():
        if settings.get(key, supported) != supported:
            raise CheckpointError(
                f"{name}: config.json has {key} {settings[key]!r}, but sfpp supports {supported!r} only"
            )
    lists: dict[str, Any] = {
        ours: _whole_numbers(settings.get(key, default), key, name) for key, (ours, default) in _LISTS.items()
    }
    for channels, heads in zip(lists["channels"], lists["heads"], strict=True):
        if channels % heads:
            raise CheckpointError(f"{name}: config.json has {channels} channels, which {heads} heads cannot share")
    image = settings.get("num_channels", 3)
    if not _is_size(image):
        raise CheckpointError(f"{name}: config.json has num_channels {image!r}, expected a whole number")
    return EncoderConfig(**lists, in_channels=int(image))


def check_agreement(
    settings: Mapping[str, Any], encoder: EncoderConfig, found: EncoderConfig, head: HeadConfig, *, name: str
) -> None:
    """Refuse settings whose sizes differ from those of the weights, ``found`` and ``head``.

    Raises:
        CheckpointError: they differ; every difference is listed.
    """
    labels = settings.get("id2label")
    named = len(labels) if isinstance(labels, Mapping) else head.classes
    claims = {
        "hidden_sizes": (encoder.channels, found.channels),
        "depths": (encoder.depths, found.depths),
        "num_channels": (encoder.in_channels, found.in_channels),
        "decoder_hidden_size": (settings.get("decoder_hidden_size", head.width), head.width),
        # One output with a sigmoid may well have two names.
        "id2label": (1 if (named, head.classes) == (2, 1) else named, head.classes),
    }
    wrong = [f"{key} gives {said}, the weights {seen}" for key, (said, seen) in claims.items() if said != seen]
    if wrong:
        raise CheckpointError(
            f"{name}: config.json does not belong to these weights ({'; '.join(wrong)}); copy both from one model"
        )


def _whole_numbers(value: object, key: str, name: str) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) != STAGES or not all(_is_size(item) for item in value):
        raise CheckpointError(
            f"{name}: config.json has {key} {value!r}, expected {STAGES} whole numbers from 1 to {_LARGEST}"
        )
    return tuple(int(item) for item in value)


def _is_size(value: object) -> bool:
    # mlp_ratios are sometimes written 4.0.
    return isinstance(value, int | float) and 1 <= value <= _LARGEST and float(value).is_integer()
