"""Networks with one output and a sigmoid, read as two classes.

``sigmoid(z) > threshold`` is ``z > logit(threshold)``. So a classifier with one more row, which has weights of zero and
the bias ``logit(threshold)``, gives two logits whose argmax is the answer, the background on a tie: before upsampling
as after it, since a constant stays what it is. Everything behind the network then works as for any two classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch
from torch import Tensor

from sfpp.export.checkpoints.configuration import ABSENT, shown, stored_configuration
from sfpp.export.checkpoints.sizes import NetworkConfig
from sfpp.export.checkpoints.styles import CLASSIFIER, StyleName
from sfpp.export.classes import ClassSet, Color, generated_palette
from sfpp.export.models.segformer import SegFormerConfig
from sfpp.runtime.errors import CheckpointError
from sfpp.runtime.labels import logit

BACKGROUND, FOREGROUND = "background", "foreground"
DEFAULT_THRESHOLD = 0.5
_BLACK = (0, 0, 0)
# What MMSegmentation takes where a configuration with one output says nothing; other libraries take a half.
_LIBRARIES = {"mmseg": (0.3, "MMSegmentation's default")}

State = dict[str, Tensor]


@dataclass(frozen=True)
class Threshold:
    """A probability, above 0 and below 1, over which a pixel is the class; ``source`` is where it was read, in words.

    ``source`` is empty for the default, which says nothing about the training.
    """

    value: float
    source: str = ""


def is_probability(value: object) -> TypeGuard[float]:
    """Tell whether a value can be a threshold: a number above 0 and below 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def threshold_of(metadata: Mapping[str, Any], style: StyleName, name: str) -> Threshold:
    """Return the threshold that a network with one output was made for.

    Args:
        metadata: what was stored with the weights; MMSegmentation's has the text of its configuration.
        style: of the checkpoint.
        name: stands for the file in messages.

    Raises:
        CheckpointError: the configuration's threshold is no number above 0 and below 1, or cannot be read without
            running it.
    """
    configuration = stored_configuration(metadata)
    if configuration is not None and configuration.problem:
        raise CheckpointError(
            f"{name}: {configuration.source} cannot be read, since {configuration.problem}, and may say a threshold: "
            "give the one of the training with --threshold"
        )
    value = ABSENT if configuration is None else configuration.at("model", "decode_head", "threshold")
    if configuration is None or value is ABSENT or value is None:
        return Threshold(*_LIBRARIES.get(style, (DEFAULT_THRESHOLD,)))
    if not is_probability(value):
        raise CheckpointError(
            f"{name}: {configuration.source} has the decode_head.threshold {shown(value)}, expected a number above 0 "
            "and below 1; give the right one with --threshold"
        )
    return Threshold(float(value), configuration.source)


def with_background(config: NetworkConfig, state: State, threshold: float) -> tuple[NetworkConfig, State]:
    """Return a network of one output with the background's row in front of it: two classes."""
    weight, bias = (state[f"{CLASSIFIER}.{part}"] for part in ("weight", "bias"))
    return _with_classifier(
        config,
        state,
        torch.cat([torch.zeros_like(weight), weight]),
        torch.cat([torch.full_like(bias, logit(threshold)), bias]),
    )


def without_background(config: NetworkConfig, state: State) -> tuple[NetworkConfig, State]:
    """Return the network of one output that :func:`with_background` was given."""
    weight, bias = (state[f"{CLASSIFIER}.{part}"] for part in ("weight", "bias"))
    return _with_classifier(config, state, weight[1:], bias[1:])


def _with_classifier(config: NetworkConfig, state: State, weight: Tensor, bias: Tensor) -> tuple[NetworkConfig, State]:
    changed = {**state, f"{CLASSIFIER}.weight": weight, f"{CLASSIFIER}.bias": bias}
    if isinstance(config, SegFormerConfig):
        return replace(config, head=replace(config.head, classes=len(weight))), changed
    return replace(config, decoder=replace(config.decoder, classes=len(weight))), changed


def two_classes(names: Sequence[str] | None, palette: Sequence[Color] | None) -> ClassSet:
    """Return names and colors of background and class, of which the file may tell both, the class's only, or none."""
    known, colors = tuple(names or (FOREGROUND,)), tuple(palette or generated_palette(1))
    return ClassSet((BACKGROUND, *known)[-2:], (_BLACK, *colors)[-2:])
