"""What is really in a frame, as somebody annotated it: label images, and boxes and keypoints of people."""

from __future__ import annotations

import json
import os
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfpp.runtime.contract import ModelContract
from sfpp.runtime.crops import Boxes
from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.people.boxes_file import BoxesFile

_LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".pgm")  # without loss: JPEG would invent classes
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

    def names(self) -> frozenset[str] | None:
        """Return the names of the frames with a truth; None where nothing tells right from wrong."""
        source = self.labels or self.keypoints
        return None if source is None else source.names


def annotations_for(
    contract: ModelContract,
    *,
    labels: str | os.PathLike[str] | None = None,
    boxes: str | os.PathLike[str] | None = None,
    ignore: int | None = None,
) -> Annotations:
    """Open what the user knows about the frames, as this model's task needs it.

    Args:
        contract: the model's.
        labels: a folder of label images; for a pose model a COCO data set or an .npz with keypoints.
        boxes: people's boxes, a COCO-style file; for a pose model only.
        ignore: value of label images for pixels that do not count; None takes the one beyond the classes.

    Raises:
        UsageError: boxes or ignore for a model that has no use for them.
        MediaError, SfppError: the files cannot be read.
    """
    if contract.keypoints is None:
        if boxes is not None:
            raise UsageError("boxes are for pose models, and this is a segmentation model; leave them off")
        if ignore is not None and labels is None:
            raise UsageError(
                f"ignore is {ignore}, but there are no label images; give them with --labels, or leave it off"
            )
        folder = None if labels is None else LabelFolder(labels, classes=len(contract.classes), ignore=ignore)
        return Annotations(labels=folder)
    if ignore is not None:
        raise UsageError("ignore is for label images, and this is a pose model; leave it off")
    truth = None if labels is None else KeypointTruth(labels, keypoints=len(contract.keypoints.names))
    return Annotations(keypoints=truth, boxes=None if boxes is None else BoxesFile(boxes))


class LabelFolder:
    """Label images of frames, found by the frame's name: ``labels/0001.png`` for ``images/0001.jpg``.

    A label image is grey, or has a palette, and each pixel's value is the number of its class. One value that is no
    class may mark pixels that do not count.

    Args:
        folder: where the images lie.
        classes: how many classes there are.
        ignore: the value of pixels that do not count; None takes whatever single value beyond the classes occurs.

    Raises:
        MediaError: no such folder, or no label picture in it.
    """

    def __init__(self, folder: str | os.PathLike[str], *, classes: int, ignore: int | None = None) -> None:
        self._folder = Path(folder)
        self._classes = classes
        self.ignore = ignore
        if not self._folder.is_dir():
            raise MediaError(f"{self._folder} is not a folder; give the folder with the label images")
        files = [file for file in self._folder.iterdir() if file.suffix.lower() in _LABEL_SUFFIXES]
        self._files = {file.stem: file for file in files}
        if not self._files:
            raise MediaError(
                f"the folder {self._folder} holds no label images; expected files ending in "
                f"{', '.join(_LABEL_SUFFIXES)}, named like the frames"
            )

    @property
    def names(self) -> frozenset[str]:
        """Names of the frames that have a label image."""
        return frozenset(self._files)

    def find(self, name: str, size_hw: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return a frame's true labels, (H, W) uint8, or None where there is no picture for it.

        Args:
            name: the frame's, without suffix.
            size_hw: the frame's height and width, which the picture must have.

        Raises:
            MediaError: the picture cannot be read, has colors, or is of another size.
            UsageError: it has a value that is neither a class nor the ignored one.
        """
        file = self._files.get(name)
        if file is None:
            return None
        labels = _read_labels(file)
        if labels.shape != size_hw:
            raise MediaError(
                f"{file} has {labels.shape[1]}x{labels.shape[0]} pixels (width x height), but its frame has "
                f"{size_hw[1]}x{size_hw[0]}; give labels of the frames' own size"
            )
        self._check_values(labels, file)
        return labels

    def _check_values(self, labels: NDArray[np.uint8], file: Path) -> None:
        values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
        beyond = [int(value) for value in values if value >= self._classes and value != self.ignore]
        if not beyond:
            return
        if self.ignore is None and len(beyond) == 1:
            self.ignore = beyond[0]
            return
        raise UsageError(
            f"{file} has the values {', '.join(map(str, beyond))}, but the model has {self._classes} classes, 0 to "
            f"{self._classes - 1}, and ignored is {'nothing' if self.ignore is None else self.ignore}; give the value "
            "to ignore with --ignore, or label images in the model's own class numbers (for Cityscapes the trainIds)"
        )


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


def _read_labels(file: Path) -> NDArray[np.uint8]:
    """Return the values of an image, (H, W) uint8; of one with a palette the indices, whatever their colors."""
    try:
        with Image.open(file) as opened:
            values = np.asarray(opened)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise MediaError(f"cannot read {file}: {error.strerror}") from error
        raise MediaError(
            f"{file} ({file.stat().st_size} bytes) is not an image that Pillow can decode; give a PNG"
        ) from error
    if values.ndim == 3 and all(np.array_equal(values[..., 0], values[..., channel]) for channel in (1, 2)):
        values = values[..., 0]
    if values.ndim != 2 or values.dtype not in (np.uint8, np.bool_):
        raise MediaError(
            f"{file} has {values.dtype} values of shape {values.shape}, expected one channel of uint8 whose values are "
            "class numbers; convert colors to class numbers first"
        )
    return np.ascontiguousarray(values, np.uint8)


def _read_people(path: Path) -> dict[str, PeopleTruth]:
    """Return the annotated people by the name of their frame."""
    try:
        return _from_npz(path) if path.suffix.lower() == ".npz" else _from_coco(path)
    except OSError as error:
        raise MediaError(f"cannot read the keypoints {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zipfile.BadZipFile) as error:
        raise MediaError(
            f"{path} holds no keypoints ({type(error).__name__}: {error}); {_KEYPOINTS_EXPECTED}"
        ) from error


def _from_npz(path: Path) -> dict[str, PeopleTruth]:
    # Pickled objects are refused, as numpy does by itself: annotations are data, never code.
    with path.open("rb") as stream, np.load(stream) as stored:
        names, joints = stored["names"], stored["joints"]
    if joints.ndim != 3 or joints.shape[2] != 3 or len(names) != len(joints):
        raise MediaError(f"{path} has joints of shape {joints.shape} for {len(names)} names; {_KEYPOINTS_EXPECTED}")
    rows = joints.astype(np.float32)
    return {Path(str(name)).stem: PeopleTruth(row[None]) for name, row in zip(names, rows, strict=True)}


def _from_coco(path: Path) -> dict[str, PeopleTruth]:
    document = json.loads(path.read_text(encoding="utf-8"))
    names = {image["id"]: PureWindowsPath(image["file_name"]).stem for image in document["images"]}
    people = defaultdict(list)
    for entry in document["annotations"]:
        if entry.get("iscrowd") or not entry.get("num_keypoints", 1):
            continue
        keypoints = np.array(entry["keypoints"], np.float32).reshape(-1, 3)
        people[names[entry["image_id"]]].append((keypoints, np.array(entry["bbox"], np.float32)))
    return {name: _people(rows) for name, rows in people.items()}


def _people(rows: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> PeopleTruth:
    keypoints, boxes = zip(*rows, strict=True)
    return PeopleTruth(np.stack(keypoints), np.stack(boxes))
