"""What Transformers' ``config.json`` says about the network, and whether it belongs to the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfpp.export.checkpoints.shapes import STAGES
from sfpp.export.checkpoints.storage import read_json_object
from sfpp.export.models.segformer import EncoderConfig, HeadConfig
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import CheckpointError

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
IMAGENET = InputSpec("image", 1, 1)  # the contract's own defaults
_PIXEL_STEPS = ("do_rescale", "do_normalize")
Triple = tuple[float, float, float]

# Far above any network; beyond it the size of a tensor no longer fits an integer.
_LARGEST = 4096


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the content of the ``config.json`` beside a Transformers checkpoint, or None where there is none.

    Raises:
        CheckpointError: it is not JSON.
    """
    path = folder / "config.json"
    return read_json_object(path) if path.is_file() else None


def read_normalization(folder: Path) -> tuple[Triple, Triple]:
    """Return mean and standard deviation of (R, G, B), 0..255, that a Transformers network was trained with.

    They are in the ``preprocessor_config.json`` beside it; what that does not say is ImageNet's.

    Raises:
        CheckpointError: it is not JSON, has other numbers than three, or prepares pixels in another way.
    """
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return IMAGENET.mean, IMAGENET.std
    settings = read_json_object(file)
    scale = 1 / 255 if settings.get("rescale_factor") is None else settings["rescale_factor"]
    steps = [step for step in _PIXEL_STEPS if settings.get(step) is False]
    if steps or not isinstance(scale, int | float) or not abs(scale * 255 - 1) <= 1e-6:
        said = f"{steps[0]} false" if steps else f"rescale_factor {scale!r}"
        raise CheckpointError(
            f"{file} has {said}, but sfpp supports only pixels divided by 255, then normalized: say the same with "
            "do_rescale and do_normalize true, by image_mean and image_std from 0 to 1"
        )
    mean = _triple(settings.get("image_mean"), "image_mean", IMAGENET.mean, file)
    std = _triple(settings.get("image_std"), "image_std", IMAGENET.std, file)
    if min(std) <= 0:
        raise CheckpointError(f"{file} has image_std {settings['image_std']!r}, expected three positive numbers")
    return mean, std


def _triple(value: object, key: str, default: Triple, file: Path) -> Triple:
    if value is None:
        return default
    values = value if isinstance(value, list) else []
    if len(values) != 3 or not all(isinstance(item, int | float) and abs(item) <= 1 for item in values):
        raise CheckpointError(f"{file} has {key} {value!r}, expected three numbers, 0 to 1")
    # Rounded, so that ImageNet's numbers are the contract's defaults to the last bit.
    red, green, blue = (round(255.0 * item, 9) for item in values)
    return red, green, blue


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


def check_agreement(
    settings: Mapping[str, Any], encoder: EncoderConfig, found: EncoderConfig, head: HeadConfig, *, name: str
) -> None:
    """Refuse settings whose sizes differ from those of the weights, ``found`` and ``head``.

    Raises:
        CheckpointError: they differ; every difference is listed.
    """
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


def _whole_numbers(value: object, key: str, name: str) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) != STAGES or not all(_is_size(item) for item in value):
        raise CheckpointError(
            f"{name}: config.json has {key} {value!r}, expected {STAGES} whole numbers from 1 to {_LARGEST}"
        )
    return tuple(int(item) for item in value)


def _is_size(value: object) -> bool:
    # mlp_ratios are sometimes written 4.0.
    return isinstance(value, int | float) and 1 <= value <= _LARGEST and float(value).is_integer()
