"""The one way from a user's path to weights that the network can load."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from torch import Tensor

from sfpp.export.checkpoints.conversion import canonical_state
from sfpp.export.checkpoints.labels import stored_labels
from sfpp.export.checkpoints.network import network_config, read_settings, size_name
from sfpp.export.checkpoints.spelling import recognize
from sfpp.export.checkpoints.storage import read_weights
from sfpp.export.checkpoints.styles import StyleName
from sfpp.export.classes import ClassSet, Color, default_classes
from sfpp.export.models.segformer import SegFormerConfig


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, whatever its file looked like.

    ``state`` holds float32 tensors under the keys of :class:`sfpp.export.models.segformer.SegFormer`, without batch
    norm's counters. ``size`` is ``b0`` to ``b5`` or ``custom``. ``classes`` and ``palette`` ((R, G, B), 0..255) are
    None where the file does not tell them. ``name`` is the path as given, for messages.
    """

    name: str
    style: StyleName
    size: str
    config: SegFormerConfig
    state: dict[str, Tensor] = field(repr=False)
    classes: tuple[str, ...] | None
    palette: tuple[Color, ...] | None
    sha256: str
    licence: str

    def class_set(self) -> ClassSet:
        """Return the names and colors of the classes; what the file does not tell is generated."""
        generated = default_classes(self.config.head.classes)
        return ClassSet(self.classes or generated.names, self.palette or generated.palette)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a SegFormer in official, MMSegmentation or Transformers style; style and sizes are told from its keys.

    Code in the file is never run. A Transformers folder may have any sizes; of the other styles, B0 to B5 are known. A
    ``config.json`` beside a single Transformers file is used too.

    Raises:
        CheckpointError: not a readable checkpoint, not a segmentation SegFormer, an unknown size, keys or shapes that
            do not fit, values that are not finite.
    """
    stored = read_weights(path)
    name = str(stored.path)
    spelling = recognize(stored.tensors.keys(), name)
    settings = read_settings(stored.folder) if spelling.style.name == "transformers" else None
    config = network_config(stored.tensors, spelling, settings, name=name)
    labels = stored_labels(stored.metadata, settings, config.head.classes)
    return Checkpoint(
        name=name,
        style=spelling.style.name,
        size=size_name(config.encoder),
        config=config,
        state=canonical_state(stored.tensors, spelling, config, name=name),
        classes=labels.names,
        palette=labels.palette,
        sha256=stored.sha256,
        licence=str(stored.metadata.get("sfpp.licence", "")),
    )
