"""What is really in a frame, as somebody annotated it: keypoints and boxes of people here, and label images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.contract import ModelContract
from sfpp.runtime.crops import Boxes
from sfpp.runtime.errors import MediaError, SfppError, UsageError
from sfpp.runtime.people.boxes_file import BoxesFile
from sfpp.runtime.text import first_line
from sfpp.runtime.typed_json import json_from_file
from sfpp.tooling.label_images import LabelFolder
from sfpp.tooling.label_rules import LabelRules
from sfpp.tooling.npz import arrays_from_npz

_KEYPOINTS_EXPECTED = (
    'expected a COCO data set with "keypoints", or an .npz with "names" (N,) and "joints" (N, K, 3): x, y, visible'
)


@dataclass(frozen=True, eq=False)
class Annotations:
    """Where the truth is looked up; all None where only the pixels are known.

    Attributes:
        labels: for a segmentation model.
        keypoints: for a pose model.
        boxes: people found beforehand, for a pose model without annotated people.
    """

    labels: LabelFolder | None = None
    keypoints: KeypointTruth | None = None
    boxes: BoxesFile | None = None

    @property
    def in_scenes(self) -> bool:
        """Whether people were annotated within larger frames, so that a frame without any is no crop of a person."""
        found = () if self.keypoints is None else map(self.keypoints.find, self.keypoints.names)
        return any(people is not None and people.boxes_xywh is not None for people in found)

    def known(self) -> Container[str] | None:
        """Return what holds the names of the frames with a truth; None where nothing tells right from wrong."""
        return self.labels or (None if self.keypoints is None else self.keypoints.names)


def annotations_for(
    contract: ModelContract,
    *,
    labels: str | os.PathLike[str] | None = None,
    boxes: str | os.PathLike[str] | None = None,
    rules: LabelRules | None = None,
) -> Annotations:
    """Open what the user knows about the frames, as this model's task needs it.

    Args:
        contract: the model's.
        labels: a folder of label images; for a pose model a COCO data set or an .npz with keypoints.
        boxes: people's boxes, a COCO-style file; for a pose model only.
        rules: how the values of label images are read.

    Raises:
        UsageError: boxes, rules or label images for a model that has no use for them.
        MediaError, SfppError: the files cannot be read.
    """
    rules = rules or LabelRules()
    if contract.keypoints is None:
        if boxes is not None:
            raise UsageError("boxes are for pose models, and this is a segmentation model; leave them off")
        if labels is None:
            if rules.are_given:
                raise UsageError(
                    f"{rules.given()} is given, but there are no label images; give them with --labels, or leave it off"
                )
            return Annotations()
        if contract.multi_label:
            raise UsageError(
                "label images hold one class per pixel, and this is a multi-label model: leave --labels out; its masks "
                "are compared with those of the float32 network"
            )
        return Annotations(LabelFolder(labels, classes=contract.classes, palette=contract.palette, rules=rules))
    if rules.are_given:
        raise UsageError(f"{rules.given()} is for label images, and this is a pose model; leave it off")
    truth = None if labels is None else KeypointTruth(labels, keypoints=len(contract.keypoints.names))
    return Annotations(keypoints=truth, boxes=None if boxes is None else BoxesFile(boxes))


@dataclass(frozen=True, eq=False)
class PeopleTruth:
    """The annotated people of one frame.

    Attributes:
        keypoints: (P, K, 3) float32: x, y in frame pixels, and above 0 where the keypoint was annotated.
        boxes_xywh: (P, 4) float32, or None where the frame is a crop of one person.
    """

    keypoints: NDArray[np.float32]
    boxes_xywh: Boxes | None = None


class KeypointTruth:
    """Annotated keypoints by the name of the frame's file, from a COCO data set (JSON) or an .npz of person crops.

    Args:
        path: the file.
        keypoints: how many each person must have.

    Raises:
        MediaError: the file cannot be read or is of neither kind.
        UsageError: its people have another number of keypoints.
    """

    def __init__(self, path: str | os.PathLike[str], *, keypoints: int) -> None:
        self._path = Path(path)
        self._keypoints = keypoints
        self._people = _read_people(self._path)
        for name, people in self._people.items():
            found = people.keypoints.shape[1]
            if found != keypoints:
                raise UsageError(
                    f"{self._path}: {name} has {found} keypoints, but the model finds {keypoints}; "
                    "give annotations of the model's own keypoint set"
                )

    @property
    def names(self) -> frozenset[str]:
        """Names of the frames in which people are annotated."""
        return frozenset(self._people)

    def find(self, name: str) -> PeopleTruth | None:
        """Return the people of the frame with this name, without suffix; None where nobody annotated it."""
        return self._people.get(name)


def _read_people(path: Path) -> dict[str, PeopleTruth]:
    """Return the annotated people by the name of their frame."""
    try:
        return _from_npz(path) if path.suffix.lower() == ".npz" else _from_coco(path)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        if isinstance(error, SfppError):
            raise
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise MediaError(f"{path} holds no keypoints ({reason}); {_KEYPOINTS_EXPECTED}") from error


def _from_npz(path: Path) -> dict[str, PeopleTruth]:
    names, joints = arrays_from_npz(path, "names", "joints", where=f"the keypoints {path}", raising=MediaError)
    if names.ndim != 1 or names.dtype.kind not in "US" or joints.shape != (len(names), *joints.shape[1:2], 3):
        raise MediaError(
            f"{path} has joints of shape {joints.shape} for names of shape {names.shape} ({names.dtype}); "
            f"{_KEYPOINTS_EXPECTED}"
        )
    rows = _numbers(joints)
    return {Path(str(name)).stem: PeopleTruth(row[None]) for name, row in zip(names, rows, strict=True)}


def _numbers(values: Any) -> NDArray[np.float32]:
    """Return numbers as float32.

    Raises:
        ValueError, TypeError, OverflowError: they are none, or too large; where nothing was annotated there may be NaN.
    """
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "fiub":
        raise ValueError(f"{array.dtype} values, expected numbers")
    with np.errstate(over="ignore"):
        rows: NDArray[np.float32] = array.astype(np.float32)
    if np.isinf(rows).any():
        raise ValueError("a number is too large")
    return rows


def _from_coco(path: Path) -> dict[str, PeopleTruth]:
    where = f"the file of keypoints {path}"
    document = json_from_file(path, where=where, raising=MediaError, advice=_KEYPOINTS_EXPECTED)
    names = {image["id"]: PureWindowsPath(image["file_name"]).stem for image in document["images"]}
    people = defaultdict(list)
    for entry in document["annotations"]:
        if entry.get("iscrowd") or not entry.get("num_keypoints", 1):
            continue
        keypoints, box = _numbers(entry["keypoints"]).reshape(-1, 3), _numbers(entry["bbox"])
        people[names[entry["image_id"]]].append((keypoints, box.reshape(4)))
    return {name: _people(rows) for name, rows in people.items()}


def _people(rows: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> PeopleTruth:
    keypoints, boxes = zip(*rows, strict=True)
    return PeopleTruth(np.stack(keypoints), np.stack(boxes))
