"""Names that a checkpoint brings along; where they are malformed or do not fit, it brings none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sfpp.export.classes import Color, color_from

_T = TypeVar("_T")


@dataclass(frozen=True)
class StoredLabels:
    """Names and palette in the order of the logits; None where the checkpoint does not tell."""

    names: tuple[str, ...] | None = None
    palette: tuple[Color, ...] | None = None


def stored_labels(metadata: Mapping[str, Any], settings: Mapping[str, Any] | None, count: int) -> StoredLabels:
    """Return the ``count`` class names and colors that were stored with the weights.

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
    return StoredLabels(_first_valid(names, _valid_names, count), _first_valid(palettes, _valid_palette, count))


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
    # The library invents LABEL_0, LABEL_1, ... where nobody named the classes.
    if all(re.fullmatch(r"LABEL_\d+", name) for name in value):
        return None
    return tuple(name.strip() for name in value)


def _valid_palette(value: object, count: int) -> tuple[Color, ...] | None:
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    colors = [color_from(color) for color in value]
    return None if None in colors else tuple(color for color in colors if color is not None)
