"""Sets of keypoints: those that ship with sfpp, by name, and those that users describe in a file.

There are ``coco17``, COCO's person keypoints; ``lsp14``, of Leeds Sports Pose and its extended set; and ``jump20``, of
the jump broadcast data set (arXiv 2304.02939): triple, high and long jumps.

A keypoint file is JSON: an object with ``names`` (in the order of the model's heatmaps), and, if wanted, ``skeleton``
(limbs as pairs of indices or of names), ``flip_pairs`` (pairs of left and right, likewise) and ``box_padding``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sfpp.runtime.contract import KeypointSpec
from sfpp.runtime.errors import ContractError, UsageError, did_you_mean
from sfpp.runtime.typed_json import dataclass_from_json, file_named, json_from_file

_PAIRED = ("skeleton", "flip_pairs")
_FILE_FIELDS = ("names", *_PAIRED, "box_padding")


def keypoint_set(name_or_file: str | os.PathLike[str], count: int | None = None) -> KeypointSpec:
    """Return a named set of keypoints, or the set of a JSON file.

    Args:
        name_or_file: ``coco17``, ``lsp14``, ``jump20``, or a file as the module's docstring describes it.
        count: how many heatmaps the model has, if that is known.

    Raises:
        UsageError: neither a known name nor a file (the closest name is suggested), a file that does not describe
            keypoints, or another number of them than ``count``.
    """
    text = os.fspath(name_or_file)
    spec = KEYPOINT_SETS.get(text)
    if spec is None:
        spec = _read(file_named(text, KEYPOINT_SETS, what="keypoint set", file="keypoint file"))
    if count is not None and len(spec.names) != count:
        raise UsageError(
            f"{text} has {len(spec.names)} keypoints, but the model has {count} heatmaps{_sets_of(count)}; "
            "give the set that the model was trained with"
        )
    return spec


def _sets_of(count: int) -> str:
    fitting = [name for name, spec in KEYPOINT_SETS.items() if len(spec.names) == count]
    return f", which is what {' and '.join(fitting)} has" if fitting else ""


def _read(path: Path) -> KeypointSpec:
    where = f"the keypoint file {path}"
    fields = json_from_file(path, where=where, raising=UsageError)
    if not isinstance(fields, dict):
        raise UsageError(f"{where} must be a JSON object with {', '.join(_FILE_FIELDS)}, not {type(fields).__name__}")
    for key in fields:
        if key not in _FILE_FIELDS:
            raise UsageError(
                f"{where}: unknown key {key!r}{did_you_mean(key, _FILE_FIELDS)}; expected {', '.join(_FILE_FIELDS)}"
            )
    if "names" not in fields:
        raise UsageError(f'{where} lacks names: expected {{"names": ["nose", "left_eye"], ...}}')
    names = fields["names"]
    # Contracts hold indices alone; names are a convenience of this file.
    by_index = {key: _by_index(fields[key], names, f"{where}: {key}") for key in _PAIRED if key in fields}
    try:
        return dataclass_from_json(KeypointSpec, {**fields, **by_index}, where=where)
    except ContractError as error:
        prefix = "" if str(error).startswith(where) else f"{where}: "
        raise UsageError(f"{prefix}{error}") from error


def _by_index(pairs: Any, names: Any, where: str) -> Any:
    """Replace names by their indices; what is not made of pairs of known names is left for the type check."""
    if not isinstance(pairs, list) or not isinstance(names, list):
        return pairs
    return [[_index(end, names, where) for end in pair] if isinstance(pair, list) else pair for pair in pairs]


def _index(end: Any, names: list[Any], where: str) -> Any:
    if not isinstance(end, str):
        return end
    if end not in names:
        known = [name for name in names if isinstance(name, str)]
        raise UsageError(f"{where} has {end!r}, which is not among the names{did_you_mean(end, known)}")
    return names.index(end)


_SHIPPED = Path(__file__).with_name("data") / "keypoints"
KEYPOINT_SETS: dict[str, KeypointSpec] = {path.stem: _read(path) for path in sorted(_SHIPPED.glob("*.json"))}
