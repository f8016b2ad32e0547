"""The one way from a user's path to weights that the network can load, and names that the file brings along."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor

from sfpp.export.checkpoints.conversion import canonical_state
from sfpp.export.checkpoints.preparation import SAYS_NOTHING, Preparation, read_preparation
from sfpp.export.checkpoints.sizes import NetworkConfig, StoredShapes, network_config, read_settings, size_name
from sfpp.export.checkpoints.storage import read_weights
from sfpp.export.checkpoints.styles import Family, StyleName, recognize
from sfpp.export.classes import ClassSet, Color, color_from, default_classes
from sfpp.export.models.segformer import SegFormerConfig
from sfpp.export.settings import PreparationOptions
from sfpp.runtime.contract import Task
from sfpp.runtime.errors import CheckpointError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, whatever its file looked like.

    ``config`` is the SegFormer's or EDAFormer's as ``family`` says, and ``state`` holds float32 tensors under the keys
    of that network (:mod:`sfpp.export.models`), without batch norm's counters. ``size`` is ``b0`` to ``b5``, ``t`` or
    ``b`` of EDAFormer, or ``custom``. ``classes`` and ``palette`` ((R, G, B), 0..255), or for pose ``keypoints`` (the
    name of a keypoint set, or its JSON), are None where the file does not tell them. ``name`` is the path as given,
    for messages. ``preparation`` says what the training's images looked like.
    """

    name: str
    family: Family
    task: Task
    style: StyleName
    size: str
    config: NetworkConfig
    state: dict[str, Tensor] = field(repr=False)
    classes: tuple[str, ...] | None
    palette: tuple[Color, ...] | None
    keypoints: str | None
    sha256: str
    licence: str
    preparation: Preparation = SAYS_NOTHING

    @property
    def channels(self) -> int:
        """How many channels the network takes."""
        return _channels(self.config)

    def overruled(self, options: PreparationOptions, res: str | tuple[int, int] | None = None) -> Checkpoint:
        """Return it with what the user says of its preparation in place of what it says itself.

        Raises:
            UsageError, CheckpointError: as for :meth:`sfpp.export.checkpoints.preparation.Preparation.overruled`.
        """
        prepared = self.preparation.overruled(options, channels=self.channels, res=res, name=self.name)
        config = _aligned(self.config, prepared.align_corners, self.style)
        return replace(self, config=config, preparation=prepared)

    @property
    def outputs(self) -> int:
        """How many channels the network answers with: one per class, or one per keypoint."""
        return _outputs(self.config)

    def class_set(self) -> ClassSet:
        """Return the names and colors of the classes; what the file does not tell is generated.

        Raises:
            CheckpointError: a pose network, which has no classes.
        """
        if self.task != "segmentation":
            raise CheckpointError(f"{self.name} is a pose network: it has {self.outputs} keypoints and no classes")
        generated = default_classes(self.outputs)
        return ClassSet(self.classes or generated.names, self.palette or generated.palette)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a SegFormer or EDAFormer; family, task, style and sizes are found from its keys and shapes.

    A SegFormer for segmentation is in official, MMSegmentation or Transformers style, one for pose in MMPose style, an
    EDAFormer in its authors'. Code in the file is never run. A Transformers folder may have any sizes; of the other
    styles, B0 to B5 and EDAFormer's T and B are known. A ``config.json`` beside a single Transformers file is used too.

    Raises:
        CheckpointError: not a readable checkpoint, another network, an unknown size, keys or shapes that do not fit,
            values that are not finite.
    """
    stored = read_weights(path)
    name = str(stored.path)
    spelling = recognize(stored.tensors.keys(), name)
    style = spelling.style
    is_transformers = style.name == "transformers"
    settings = read_settings(stored.folder) if is_transformers else None
    config = network_config(StoredShapes(name, stored.tensors, spelling), settings)
    preparation = read_preparation(stored, style.name, channels=_channels(config))
    config = _aligned(config, preparation.align_corners, style.name)
    is_pose = style.task == "pose"
    names, palette = (None, None) if is_pose else stored_labels(stored.metadata, settings, _outputs(config))
    return Checkpoint(
        name=name,
        family=style.family,
        task=style.task,
        style=style.name,
        size=size_name(config),
        config=config,
        state=canonical_state(stored.tensors, spelling, config, name=name),
        classes=names,
        palette=palette,
        keypoints=stored_keypoints(stored.metadata) if is_pose else None,
        sha256=stored.sha256,
        licence=str(stored.metadata.get("sfpp.licence", "")),
        preparation=preparation,
    )


def _channels(config: NetworkConfig) -> int:
    return config.encoder.in_channels


def _aligned(config: NetworkConfig, align_corners: bool, style: str) -> NetworkConfig:
    """Return the network whose head upsamples as the library's does."""
    # Segmentation Models PyTorch aligns corners in what follows the decoder only.
    if style == "smp":
        return config
    if isinstance(config, SegFormerConfig):
        return replace(config, head=replace(config.head, align_corners=align_corners))
    return replace(config, decoder=replace(config.decoder, align_corners=align_corners))


def _outputs(config: NetworkConfig) -> int:
    return config.head.classes if isinstance(config, SegFormerConfig) else config.decoder.classes


def stored_labels(
    metadata: Mapping[str, Any], settings: Mapping[str, Any] | None, count: int
) -> tuple[tuple[str, ...] | None, tuple[Color, ...] | None]:
    """Return the class names and the palette, in the order of the logits; None for what the checkpoint does not tell.

    Args:
        metadata: texts of a safetensors file (``sfpp.classes``, ``sfpp.palette`` as JSON), or mmseg's ``meta``.
        settings: Transformers' ``config.json``.
        count: number of classes of the network.
    """
    dataset = metadata.get("dataset_meta")
    inner = dataset if isinstance(dataset, Mapping) else {}
    names = [
        _from_json(metadata.get("sfpp.classes")),
        metadata.get("CLASSES"),
        inner.get("classes", inner.get("CLASSES")),
        _names_by_index(settings),
    ]
    palettes = [
        _from_json(metadata.get("sfpp.palette")),
        metadata.get("PALETTE"),
        inner.get("palette", inner.get("PALETTE")),
    ]
    return _first_valid(names, _valid_names, count), _first_valid(palettes, _valid_palette, count)


def stored_keypoints(metadata: Mapping[str, Any]) -> str | None:
    """Return the keypoint set that was stored with the weights, its name or its JSON; None where none was."""
    text = metadata.get("sfpp.keypoints")
    return text.strip() or None if isinstance(text, str) else None


def _first_valid(values: Iterable[object], validate: Callable[[object, int], _T | None], count: int) -> _T | None:
    return next((valid for value in values if (valid := validate(value, count)) is not None), None)


def _from_json(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None


def _names_by_index(settings: Mapping[str, Any] | None) -> list[Any] | None:
    """Return the values of ``id2label`` in the order of their indices."""
    labels = (settings or {}).get("id2label")
    if not isinstance(labels, Mapping):
        return None
    return [labels.get(str(index)) for index in range(len(labels))]


def _valid_names(value: object, count: int) -> tuple[str, ...] | None:
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    if not all(isinstance(name, str) and name.strip() for name in value):
        return None
    # The library invents LABEL_0, LABEL_1, ... where the classes have no names.
    if all(re.fullmatch(r"LABEL_\d+", name) for name in value):
        return None
    return tuple(name.strip() for name in value)


def _valid_palette(value: object, count: int) -> tuple[Color, ...] | None:
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    colors = [color_from(color) for color in value]
    return None if None in colors else tuple(color for color in colors if color is not None)
