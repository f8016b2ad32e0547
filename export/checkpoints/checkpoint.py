"""The one way from a user's path to weights that the network can load, and names that the file brings along."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor

from sfpp.export.checkpoints.configuration import merging_in_training
from sfpp.export.checkpoints.conversion import canonical_state
from sfpp.export.checkpoints.preparation import SAYS_NOTHING, Preparation
from sfpp.export.checkpoints.selection import listing, select_network
from sfpp.export.checkpoints.sigmoid import Threshold, threshold_of, two_classes, with_background
from sfpp.export.checkpoints.sizes import NetworkConfig, StoredShapes, network_config, read_settings, size_name
from sfpp.export.checkpoints.storage import read_weights
from sfpp.export.checkpoints.stored_preparation import read_preparation
from sfpp.export.checkpoints.styles import STYLES, Family, StyleName
from sfpp.export.classes import ClassSet, Color, color_from, default_classes
from sfpp.export.models.segformer import SegFormerConfig
from sfpp.export.settings import PreparationOptions
from sfpp.runtime.contract import Task
from sfpp.runtime.errors import CheckpointError
from sfpp.runtime.text import clean_text
from sfpp.runtime.typed_json import json_from_text

_T = TypeVar("_T")


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, whatever its file looked like.

    ``config`` is the SegFormer's or EDAFormer's as ``family`` says, and ``state`` holds float32 tensors under the keys
    of that network (:mod:`sfpp.export.models`), without batch norm's counters. ``size`` is ``b0`` to ``b5``, ``t`` or
    ``b`` of EDAFormer, or ``custom``. ``classes`` and ``palette`` ((R, G, B), 0..255), or for pose ``keypoints`` (the
    name of a keypoint set, or its JSON), are None where the file does not tell them. ``name`` is the path as given,
    for messages. ``preparation`` says what the training's images looked like. ``threshold`` is the probability
    over which a pixel is class 1, for a network with one output and a sigmoid, whose ``config`` and ``state`` have two
    (see :mod:`sfpp.export.checkpoints.sigmoid`), and None for any other; ``threshold_source`` says where it was read,
    empty where nobody says it. ``weights_key`` is what was chosen of a file with several networks, as ``--weights-key``
    takes it, and empty where there is no other. ``merging`` says where it is told that tokens were merged in training,
    empty where that is not told. ``notes`` are lines that whoever uses the weights should read.
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
    threshold: float | None = None
    threshold_source: str = ""
    weights_key: str = ""
    merging: str = ""
    notes: tuple[str, ...] = ()

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
        if self.threshold is not None:
            return two_classes(self.classes, self.palette)
        generated = default_classes(self.outputs)
        return ClassSet(self.classes or generated.names, self.palette or generated.palette)


def read_checkpoint(
    path: str | os.PathLike[str],
    *,
    weights_key: str | None = None,
    usual_key: str = "",
    threshold: float | None = None,
) -> Checkpoint:
    """Read a SegFormer or EDAFormer; family, task, style and sizes are found from its keys and shapes.

    A SegFormer for segmentation is in official, MMSegmentation, Transformers, SMP or TAO style, one for pose in MMPose
    style, an EDAFormer in its authors'. Code in the file is never run. A Transformers folder may have any sizes; of the
    other styles, B0 to B5 and EDAFormer's T and B are known. A ``config.json`` beside a single Transformers file is
    used too.

    Args:
        path: a file or folder.
        weights_key: which network of a file that holds several, such as ``ema_state_dict``; None takes the plain one.
        usual_key: what is taken in place of the plain one where the file has it.
        threshold: of a segmentation network with one output, in place of the one that the file says; others have none.

    Raises:
        CheckpointError: not a readable checkpoint, another network, an unknown size, keys or shapes that do not fit,
            values that are not finite, a ``weights_key`` that is not there.
    """
    stored = read_weights(path)
    name = str(stored.path)
    selected = select_network(stored, weights_key, otherwise=usual_key)
    spelling, tensors = selected.spelling, selected.tensors
    style = spelling.style
    is_transformers = style.name == "transformers"
    settings = read_settings(stored.folder) if is_transformers else None
    config = network_config(StoredShapes(name, tensors, spelling), settings)
    preparation = read_preparation(stored, style.name, channels=_channels(config))
    config = _aligned(config, preparation.align_corners, style.name)
    is_pose = style.task == "pose"
    count = _outputs(config)
    labels = Labels() if is_pose else stored_labels(stored.metadata, settings, count)
    state = canonical_state(tensors, spelling, config, name=name)
    limit = None
    if count == 1 and not is_pose:
        limit = Threshold(threshold, "--threshold") if threshold else threshold_of(stored.metadata, style.name, name)
        config, state = with_background(config, state, limit.value)
        both = stored_labels(stored.metadata, settings, 2)
        labels = _of_one_output(labels, both)
    return Checkpoint(
        name=name,
        family=style.family,
        task=style.task,
        style=style.name,
        size=size_name(config),
        config=config,
        state=state,
        classes=labels.names,
        palette=labels.palette,
        keypoints=stored_keypoints(stored.metadata) if is_pose else None,
        sha256=stored.sha256,
        licence=str(stored.metadata.get("sfpp.licence", "")),
        preparation=preparation,
        threshold=None if limit is None else limit.value,
        threshold_source="" if limit is None else limit.source,
        weights_key=selected.key,
        merging=merging_in_training(stored.metadata),
        notes=(*selected.notes, *_passed_over(stored.passed_over), *labels.notes),
    )


def _of_one_output(one: Labels, both: Labels) -> Labels:
    """Return what is told of the class alone, or of the background too; of more classes nobody knows which is meant."""
    if not both.faults:
        return both
    if not one.faults:
        return one
    return Labels(faults=one.faults[:1])


def _passed_over(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (f"objects beside the weights were passed over, and nothing of them was run: {listing(names)}",)


def _channels(config: NetworkConfig) -> int:
    return config.encoder.in_channels


def _aligned(config: NetworkConfig, align_corners: bool, style: StyleName) -> NetworkConfig:
    """Return the network whose head upsamples as the library's does."""
    if STYLES[style].output_align_corners:  # in what follows the head only
        return config
    if isinstance(config, SegFormerConfig):
        return replace(config, head=replace(config.head, align_corners=align_corners))
    return replace(config, decoder=replace(config.decoder, align_corners=align_corners))


def _outputs(config: NetworkConfig) -> int:
    return config.head.classes if isinstance(config, SegFormerConfig) else config.decoder.classes


@dataclass(frozen=True)
class Labels:
    """What a checkpoint tells about its classes, in the order of the logits; None where it tells nothing.

    Where it tells something of a part of them, the others have generated names and colors, and ``faults`` say so.
    """

    names: tuple[str, ...] | None = None
    palette: tuple[Color, ...] | None = None
    faults: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What does not fit, what was made of it, and what to do; a line each."""
        is_used = self.names is not None or self.palette is not None
        made = "those that fit were taken by their index: check them, or" if is_used else "none taken:"
        return tuple(f"{fault}; {made} give --classes FILE" for fault in self.faults)


def stored_labels(metadata: Mapping[str, Any], settings: Mapping[str, Any] | None, count: int) -> Labels:
    """Return the class names and the palette; where their number does not fit, as many as fit.

    Args:
        metadata: texts of a safetensors file (``sfpp.classes``, ``sfpp.palette`` as JSON), or mmseg's ``meta``.
        settings: Transformers' ``config.json``.
        count: number of classes of the network.
    """
    dataset = metadata.get("dataset_meta")
    inner = dataset if isinstance(dataset, Mapping) else {}
    names = {
        "sfpp.classes": _by_index(_from_json(metadata.get("sfpp.classes")), _name),
        "CLASSES": _by_index(metadata.get("CLASSES"), _name),
        "dataset_meta": _by_index(inner.get("classes", inner.get("CLASSES")), _name),
        "id2label": _by_index((settings or {}).get("id2label"), _name),
    }
    palettes = {
        "sfpp.palette": _by_index(_from_json(metadata.get("sfpp.palette")), color_from),
        "PALETTE": _by_index(metadata.get("PALETTE"), color_from),
        "dataset_meta": _by_index(inner.get("palette", inner.get("PALETTE")), color_from),
    }
    generated = default_classes(count)
    chosen, name_faults = _fitted(names, generated.names, "names")
    colors, color_faults = _fitted(palettes, generated.palette, "colors")
    return Labels(chosen, colors, (*name_faults, *color_faults))


def _by_index(value: object, read: Callable[[object], _T | None]) -> dict[int, _T | None]:
    """Return what is told by class index, None for what cannot be read."""
    if isinstance(value, list | tuple):
        return {index: read(each) for index, each in enumerate(value)}
    if not isinstance(value, Mapping):
        return {}
    # More digits than an index has are none.
    return {int(key): read(each) for key, each in value.items() if re.fullmatch(r"\d{1,9}", str(key))}


def _fitted(
    told: Mapping[str, Mapping[int, _T | None]], generated: Sequence[_T], what: str
) -> tuple[tuple[_T, ...] | None, tuple[str, ...]]:
    """Return the values of the source that tells most of the classes, the others generated, and what does not fit."""
    count = len(generated)
    known = {
        source: {index: each for index, each in values.items() if each is not None and index < count}
        for source, values in told.items()
    }
    source = max(known, key=lambda each: (len(known[each]), len(told[each]) == count))
    values = known[source]
    # The library invents LABEL_0, LABEL_1, ... where the classes have no names.
    if not values or all(re.fullmatch(r"LABEL_\d+", str(each)) for each in values.values()):
        return None, ()
    fitted = tuple(values.get(index, generated[index]) for index in range(count))
    missing = [str(index) for index in range(count) if index not in values]
    beyond = [f"{index} ({each})" if each else str(index) for index, each in told[source].items() if index >= count]
    faults = [f"none for {listing(missing)}"] if missing else []
    faults += [f"some for {listing(beyond)}, which the network does not have"] if beyond else []
    if not faults:
        return fitted, ()
    if list(told[source]) == list(range(1, count + 1)):
        faults.append("it counts from 1")
    fault = ", ".join(faults)
    return fitted, (f"{source} has {len(told[source])} {what} for {count} outputs: {clean_text(fault)}",)


def _name(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def stored_keypoints(metadata: Mapping[str, Any]) -> str | None:
    """Return the keypoint set that was stored with the weights, its name or its JSON; None where none was."""
    text = metadata.get("sfpp.keypoints")
    return text.strip() or None if isinstance(text, str) else None


def _from_json(text: object) -> object:
    if not isinstance(text, str):
        return None
    try:
        return json_from_text(text, where="the metadata", raising=CheckpointError)
    except CheckpointError:
        return None
