"""The one way from a user's path to weights that the network can load."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from torch import Tensor

from sfpp.export.checkpoints.conversion import canonical_state
from sfpp.export.checkpoints.labels import StoredLabels, stored_keypoints, stored_labels
from sfpp.export.checkpoints.layout import NetworkConfig
from sfpp.export.checkpoints.network import network_config, size_name
from sfpp.export.checkpoints.settings import IMAGENET, Triple, read_normalization, read_settings
from sfpp.export.checkpoints.shapes import StoredShapes
from sfpp.export.checkpoints.spelling import recognize
from sfpp.export.checkpoints.storage import read_weights
from sfpp.export.checkpoints.styles import Family, StyleName
from sfpp.export.classes import ClassSet, Color, default_classes
from sfpp.export.models.segformer import SegFormerConfig
from sfpp.runtime.contract import Task
from sfpp.runtime.errors import CheckpointError


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, whatever its file looked like.

    ``config`` is the SegFormer's or EDAFormer's as ``family`` says, and ``state`` holds float32 tensors under the keys
    of that network (:mod:`sfpp.export.models`), without batch norm's counters. ``size`` is ``b0`` to ``b5``, ``t`` or
    ``b`` of EDAFormer, or ``custom``. ``classes`` and ``palette`` ((R, G, B), 0..255), or for pose ``keypoints`` (the
    name of a keypoint set, or its JSON), are None where the file does not tell them. ``name`` is the path as given,
    for messages. ``mean`` and ``std`` are those of the training's (R, G, B), 0..255.
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
    mean: Triple = IMAGENET.mean
    std: Triple = IMAGENET.std

    @property
    def outputs(self) -> int:
        """How many channels the network answers with: one a class, or one a keypoint."""
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
    """Read a SegFormer or EDAFormer; family, task, style and sizes are told from its keys and shapes.

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
    mean, std = read_normalization(stored.folder) if is_transformers else (IMAGENET.mean, IMAGENET.std)
    config = network_config(StoredShapes(name, stored.tensors, spelling), settings)
    is_pose = style.task == "pose"
    labels = StoredLabels() if is_pose else stored_labels(stored.metadata, settings, _outputs(config))
    return Checkpoint(
        name=name,
        family=style.family,
        task=style.task,
        style=style.name,
        size=size_name(config),
        config=config,
        state=canonical_state(stored.tensors, spelling, config, name=name),
        classes=labels.names,
        palette=labels.palette,
        keypoints=stored_keypoints(stored.metadata) if is_pose else None,
        sha256=stored.sha256,
        licence=str(stored.metadata.get("sfpp.licence", "")),
        mean=mean,
        std=std,
    )


def _outputs(config: NetworkConfig) -> int:
    return config.head.classes if isinstance(config, SegFormerConfig) else config.decoder.classes
