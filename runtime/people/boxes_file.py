"""Boxes that were found beforehand, by another program or by hand, from a COCO-style file."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import SfppError
from sfpp.runtime.people.detections import Detections, PersonFinder

_PERSON = 1  # COCO's number of the category
_LARGEST = float(np.finfo(np.float32).max)
_EXPECTED = (
    "expected COCO detections: a JSON list, JSON lines, or the annotations of a COCO data set, "
    'each entry with "bbox": [left, top, width, height]'
)


class BoxesFile(PersonFinder):
    """People from a COCO-style JSON file: detections in a list or line by line, or a data set with annotations.

    An entry belongs to the frame that its ``file_name`` names (with or without folder and suffix), else to the frame
    with the number ``frame`` or ``image_id``, counted from 0; in a data set ``image_id`` points to an entry of
    ``images``. Entries of other categories than 1 (person), crowds and boxes without area are left out.

    Args:
        path: the file.

    Raises:
        SfppError: the file cannot be read, is not of this form, or holds a box that is not four finite numbers.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._rows: defaultdict[int | str, list[tuple[float, ...]]] = defaultdict(list)
        frames = set()
        for number, entry in enumerate(_entries(_document(self._path), self._path)):
            where = f"{self._path}: entry {number}"
            key = _frame_of(entry, where)
            row = _row(entry, where)
            if row is not None:
                frames.add(key)
                for name in _names(key):
                    self._rows[name].append(row)
        self._frame_count = len(frames)

    @property
    def description(self) -> str:
        """The file, and for how many frames it has boxes."""
        return f"{self._path.name}, which has boxes for {self._frame_count} frame{'s' * (self._frame_count != 1)}"

    def find(self, frame_bgr: NDArray[Any], *, index: int = 0, name: str = "") -> Detections:
        """Return the boxes of the frame with this name or number; see :class:`PersonFinder`."""
        rows = [*self._rows.get(name, ()), *self._rows.get(index, ())]
        table = np.array(rows, np.float32).reshape(-1, 5)
        return Detections(table[:, :4], table[:, 4])


def _document(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SfppError(f"cannot read the boxes {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SfppError(f"{path} holds no boxes: it must be JSON in UTF-8 ({error.reason})") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise SfppError(f"{path} is not valid JSON ({error}); {_EXPECTED}") from error


def _entries(document: Any, path: Path) -> list[Any]:
    """Return the entries; those of a data set with the facts of their image."""
    if isinstance(document, list):
        return document
    if isinstance(document, dict) and "bbox" in document:  # a file of one JSON line
        return [document]
    annotations = document.get("annotations") if isinstance(document, dict) else None
    images = document.get("images", []) if isinstance(document, dict) else None
    if not isinstance(annotations, list) or not isinstance(images, list):
        raise SfppError(f"{path} holds no boxes; {_EXPECTED}")
    names = {image["id"]: image["file_name"] for image in images if _names_a_file(image)}
    return [
        {**entry, "file_name": names[entry["image_id"]]}
        if isinstance(entry, dict) and _key(entry.get("image_id")) in names
        else entry
        for entry in annotations
    ]


def _names_a_file(image: Any) -> bool:
    return isinstance(image, dict) and _key(image.get("id")) is not None and isinstance(image.get("file_name"), str)


def _key(value: Any) -> int | str | None:
    """Return ``value`` if it can name a frame."""
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _frame_of(entry: Any, where: str) -> int | str:
    if not isinstance(entry, Mapping):
        raise SfppError(f"{where} is {entry!r}; {_EXPECTED}")
    # A data set's image_id is any number, so that it counts frames only where nothing says more.
    for field in ("file_name", "frame", "image_id"):
        key = _key(entry.get(field))
        if key is not None:
            return key
    raise SfppError(f'{where} names no frame; expected "file_name", or a frame number from 0 in "frame" or "image_id"')


def _names(key: int | str) -> set[int | str]:
    """Return what the frame may be called: frames of folders have no suffix, or _jpg where the stems repeat."""
    if isinstance(key, int):
        return {key}
    file = PureWindowsPath(key)  # it knows both kinds of slashes
    return {file.name, file.stem, file.name.replace(".", "_")}


def _row(entry: Mapping[str, Any], where: str) -> tuple[float, ...] | None:
    """Return left, top, width, height and score; None for what is no single person."""
    if entry.get("category_id", _PERSON) != _PERSON or entry.get("iscrowd"):
        return None
    box, score = entry.get("bbox"), entry.get("score", 1.0)
    if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
        raise SfppError(f"{where} has the bbox {box!r}, expected four finite numbers: left, top, width, height")
    if not _finite(score):
        raise SfppError(f"{where} has the score {score!r}, expected a number from 0 to 1")
    if min(box[2:]) <= 0:  # COCO itself has some
        return None
    return (*map(float, box), float(score))


def _finite(value: Any) -> bool:
    # JSON has integers of any length, and boxes are float32. Compared this way, NaN is refused too.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
