"""The sizes of a checkpoint's network, told from the shapes of its tensors and from Transformers' ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sfpp.export.catalog import MIT_SIZES
from sfpp.export.checkpoints.layout import BLOCK, CLASSIFIER, FUSION, PROJECTION
from sfpp.export.checkpoints.spelling import Spelling
from sfpp.export.checkpoints.storage import read_json_object
from sfpp.export.models.segformer import EncoderConfig, HeadConfig, SegFormerConfig
from sfpp.runtime.errors import CheckpointError

STAGES = 4

# What the library takes where config.json is silent; each has one value a stage.
_LISTS: dict[str, tuple[int, ...]] = {
    "hidden_sizes": (32, 64, 160, 256),
    "depths": (2, 2, 2, 2),
    "num_attention_heads": (1, 2, 5, 8),
    "sr_ratios": (8, 4, 2, 1),
    "mlp_ratios": (4, 4, 4, 4),
    "patch_sizes": (7, 3, 3, 3),
    "strides": (4, 2, 2, 2),
}
_SUPPORTED = {"model_type": "segformer", "hidden_act": "gelu", "num_channels": 3, "num_encoder_blocks": STAGES}


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the content of the ``config.json`` beside a Transformers checkpoint, or None where there is none.

    Raises:
        CheckpointError: it is not JSON.
    """
    path = folder / "config.json"
    return read_json_object(path) if path.is_file() else None


def network_config(
    tensors: Mapping[str, Tensor], spelling: Spelling, settings: Mapping[str, Any] | None, *, name: str
) -> SegFormerConfig:
    """Return the sizes of the network.

    Heads and strides leave no trace in the weights: they come from ``settings``, or from a published size that has
    the same channels and blocks. ``name`` stands for the file in messages.

    Raises:
        CheckpointError: an unknown size, or settings that sfpp does not support or that contradict the weights.
    """
    channels, depths = _channels(tensors, spelling, name), _depths(tensors, spelling)
    head = _head_config(tensors, spelling, name)
    if settings is not None:
        encoder = _encoder_from_settings(settings, name)
        _check_agreement(settings, encoder, EncoderConfig(channels, depths), head, name=name)
    elif (channels, depths) in MIT_SIZES.values():
        encoder = EncoderConfig(channels, depths)
    else:
        raise CheckpointError(_unknown_size(spelling, channels, depths, name))
    style = spelling.style
    return SegFormerConfig(replace(encoder, block_eps=style.block_eps, embed_eps=style.embed_eps), head)


def size_name(encoder: EncoderConfig) -> str:
    """Return ``b0`` to ``b5``, or ``custom`` where any size differs from the published ones."""
    for name, (channels, depths) in MIT_SIZES.items():
        if encoder == EncoderConfig(channels, depths, block_eps=encoder.block_eps, embed_eps=encoder.embed_eps):
            return name
    return "custom"


def _channels(tensors: Mapping[str, Tensor], spelling: Spelling, name: str) -> tuple[int, ...]:
    (part,) = spelling.parts(PROJECTION)
    keys = [part.key("weight", i, 0) for i in range(STAGES)]
    return tuple(_rows(tensors, key, spelling, name) for key in keys)


def _depths(tensors: Mapping[str, Tensor], spelling: Spelling) -> tuple[int, ...]:
    """Count each stage's blocks by the highest index among the keys, so that a hole shows as missing keys."""
    (part,) = spelling.parts(BLOCK + "norm1")
    before_index = part.module.split("{j}")[0]
    depths = []
    for i in range(STAGES):
        prefix = before_index.format(i=i, n=i + 1)
        indices = {key.removeprefix(prefix).split(".")[0] for key in tensors if key.startswith(prefix)}
        depths.append(max((int(index) + 1 for index in indices if index.isdecimal()), default=0))
    return tuple(depths)


def _head_config(tensors: Mapping[str, Tensor], spelling: Spelling, name: str) -> HeadConfig:
    (fusion,), (classifier,) = spelling.parts(FUSION), spelling.parts(CLASSIFIER)
    width = _rows(tensors, fusion.key("weight", 0, 0), spelling, name)
    classes = _rows(tensors, classifier.key("weight", 0, 0), spelling, name)
    return HeadConfig(spelling.style.head, width, classes)


def _rows(tensors: Mapping[str, Tensor], key: str, spelling: Spelling, name: str) -> int:
    if key not in tensors or tensors[key].ndim == 0:
        found = "has no rows" if key in tensors else "is missing"
        raise CheckpointError(
            f"{name}: {key} {found}, without which the size cannot be told ({spelling.style.title} style); "
            "give the whole state dictionary"
        )
    return int(tensors[key].shape[0])


def _unknown_size(spelling: Spelling, channels: tuple[int, ...], depths: tuple[int, ...], name: str) -> str:
    known = "; ".join(f"{size.upper()} {widths}, {blocks}" for size, (widths, blocks) in MIT_SIZES.items())
    advice = (
        "give the folder with its config.json"
        if spelling.style.name == "transformers"
        else "other sizes are read from Transformers folders, whose config.json tells the number of heads"
    )
    return (
        f"{name} has channels {channels} and blocks {depths} ({spelling.style.title} style), "
        f"which is no published size ({known}): {advice}"
    )


def _encoder_from_settings(settings: Mapping[str, Any], name: str) -> EncoderConfig:
    for key, supported in _SUPPORTED.items():
        if settings.get(key, supported) != supported:
            raise CheckpointError(
                f"{name}: config.json has {key} {settings[key]!r}, but sfpp supports {supported!r} only"
            )
    lists = {key: _whole_numbers(settings.get(key, default), key, name) for key, default in _LISTS.items()}
    for channels, heads in zip(lists["hidden_sizes"], lists["num_attention_heads"], strict=True):
        if channels % heads:
            raise CheckpointError(f"{name}: config.json has {channels} channels, which {heads} heads cannot share")
    return EncoderConfig(
        channels=lists["hidden_sizes"],
        depths=lists["depths"],
        heads=lists["num_attention_heads"],
        reductions=lists["sr_ratios"],
        expansions=lists["mlp_ratios"],
        patch_kernels=lists["patch_sizes"],
        patch_strides=lists["strides"],
    )


def _whole_numbers(value: object, key: str, name: str) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) != STAGES or not all(_is_whole(item) for item in value):
        raise CheckpointError(f"{name}: config.json has {key} {value!r}, expected {STAGES} whole numbers of at least 1")
    return tuple(int(item) for item in value)


def _is_whole(value: object) -> bool:
    # mlp_ratios are sometimes written 4.0.
    return isinstance(value, int | float) and value >= 1 and float(value).is_integer()


def _check_agreement(
    settings: Mapping[str, Any], encoder: EncoderConfig, found: EncoderConfig, head: HeadConfig, *, name: str
) -> None:
    """Refuse settings whose sizes differ from those of the weights, ``found`` and ``head``."""
    labels = settings.get("id2label")
    claims = {
        "hidden_sizes": (encoder.channels, found.channels),
        "depths": (encoder.depths, found.depths),
        "decoder_hidden_size": (settings.get("decoder_hidden_size", head.width), head.width),
        "id2label": (len(labels) if isinstance(labels, Mapping) else head.classes, head.classes),
    }
    wrong = [f"{key} gives {said}, the weights {seen}" for key, (said, seen) in claims.items() if said != seen]
    if wrong:
        raise CheckpointError(
            f"{name}: config.json does not belong to these weights ({'; '.join(wrong)}); copy both from one model"
        )
