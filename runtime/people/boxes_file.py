"""Boxes that were found beforehand, by another program or by hand, from a COCO-style file."""

from __future__ import annotations

import functools
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import SfppError, UsageError
from sfpp.runtime.people.detections import Detections, PersonFinder, person_among
from sfpp.runtime.typed_json import json_from_text, text_from_file

if TYPE_CHECKING:
    from sfpp.runtime.video.frame import Source

_PERSON = 1  # COCO's number of the category
_LARGEST = float(np.finfo(np.float32).max)
_BETTER = 'write "file_name" or "frame" into each entry, or give a data set with its "images"'
_EXPECTED = (
    "expected COCO detections: a JSON list, JSON lines, or the annotations of a COCO data set, "
    'each entry with "bbox": [left, top, width, height]'
)


class BoxesFile(PersonFinder):
    """People from a COCO-style JSON file: detections in a list or line by line, or a data set with annotations.

    An entry belongs to the frame that its ``file_name`` or ``frame_name`` names (with or without folder and suffix), or
    that has the number ``frame``, counted from 0. Otherwise ``image_id`` points to an entry of ``images``, where the
    file has them; if not, it is a frame's number, or the number in a picture's name, as in ``000000000139.jpg``:
    :meth:`fit` tells which. Crowds, boxes without area, and entries of other categories than people are left out.

    Args:
        path: the file.
        person_class: the category that is a person, by name or number; None goes by the names of ``categories``, and
            takes COCO's number 1 where there are none.

    Raises:
        SfppError: the file cannot be read, is not of this form, or holds a box that is not four finite numbers.
        UsageError: which category is a person cannot be told, or no entry has it.
    """

    def __init__(self, path: str | os.PathLike[str], *, person_class: str | int | None = None) -> None:
        self._path = Path(path)
        # By a name, by the number of a frame, and by an image_id that may be either.
        self._rows: defaultdict[int | str, list[tuple[float, ...]]] = defaultdict(list)
        self._by_id: defaultdict[int, list[tuple[float, ...]]] = defaultdict(list)
        self._named: set[str] = set()
        self._of_pictures: str | None = None
        self._source: tuple[str, tuple[str, ...] | None] | None = None
        document = _document(self._path)
        self.image_ids = _image_ids(document)
        told = _person_category(document, person_class, str(path))
        person = _PERSON if told is None else told
        categories = set()
        for number, entry in enumerate(_entries(document, self._path)):
            where = f"{self._path}: entry {number}"
            field, key = _frame_of(entry, where)
            category = entry.get("category_id", person)
            categories.add(str(category))
            row = _row(entry, where) if category == person else None
            if row is not None:
                self._add(field, key, row)
        if told is None and categories and str(person) not in categories:
            raise UsageError(
                f"{path} has no box of category {person}, which is a person's, but of "
                f"{', '.join(sorted(categories)[:20])}; say which one is a person, with --person-class"
            )

    @property
    def description(self) -> str:
        """The file, and for how many frames it has boxes."""
        count = len(self._named) + len({key for key in self._rows if isinstance(key, int)}.union(self._by_id))
        frames = self._of_pictures or f"{count} frame{'s' * (count != 1)}"
        return f"{self._path.name}, which has boxes for {frames}"

    def fit(self, source: Source) -> None:
        """Find out what ``image_id`` counts in a source, as a pipeline asks; without this it counts frames from 0.

        Raises:
            UsageError: the boxes were those of another source before; ``image_id`` may be a picture's number or the
                number in its name, or it is neither; or no name in the file is that of a frame.
        """
        names, ids, before = source.frame_names, set(self._by_id), self._source
        self._source = source.name, names
        if before is not None:
            if before != self._source:
                raise UsageError(
                    f"{self._path} tells the frames of one source, {before[0]}; give {source.name} its own"
                )
            return
        if names is None:
            self._check_numbers(source, ids)
            return
        by_name = bool(ids) and self._counts_by_name(names, ids)
        # By their names alone: a picture that cannot be read is passed over, and those behind it move up.
        rows: dict[int | str, list[tuple[float, ...]]] = {
            name: self._rows_of(index, name, _number_in(name) if by_name else index) for index, name in enumerate(names)
        }
        found = sum(map(bool, rows.values()))
        if not found and self._rows and self.image_ids.keys().isdisjoint(names):
            raise UsageError(
                f"{self._path} has boxes for {min(self._named, default='other frames')} and the like, and none for "
                f"{names[0]} and the like"
            )
        self._rows, self._by_id = defaultdict(list, rows), defaultdict(list)
        self._of_pictures = f"{found} of {len(names)} picture{'s' * (len(names) != 1)}"

    def find(self, frame_bgr: NDArray[Any], *, index: int = 0, name: str = "") -> Detections:
        """Return the boxes of the frame with this name or number; see :class:`PersonFinder`."""
        table = np.array(self._rows_of(index, name, index), np.float32).reshape(-1, 5)
        return Detections(table[:, :4], table[:, 4])

    def _add(self, field: str, key: int | str, row: tuple[float, ...]) -> None:
        if isinstance(key, int):
            (self._rows if field == "frame" else self._by_id)[key].append(row)
            return
        self._named.add(PureWindowsPath(key).name)
        for name in _names(key):
            self._rows[name].append(row)

    def _rows_of(self, index: int, name: str, image_id: int) -> list[tuple[float, ...]]:
        return [*self._by_id.get(image_id, ()), *self._rows.get(index, ()), *self._rows.get(name, ())]

    def _check_numbers(self, source: Source, ids: set[int]) -> None:
        """Refuse numbers that count a video's frames from 1, and names that are of none of its frames."""
        count = source.count
        if count is not None and ids and 0 not in ids and max(ids) == count:
            raise UsageError(
                f"{self._path} has boxes for image_id {min(ids)} to {count}, and of {count} frames the last one is "
                f"number {count - 1}, counted from 0; {_BETTER}"
            )
        if self._named and not any(source.numbers(PureWindowsPath(name).stem) for name in self._named):
            raise UsageError(
                f"{self._path} has boxes for {min(self._named)} and the like, and the frames of {source.name} are "
                f"called {source.name}-000000 and so on; {_BETTER}"
            )

    def _counts_by_name(self, names: Sequence[str], ids: set[int]) -> bool:
        """Whether ``image_id`` is the number in a picture's name, and not that of the picture."""
        numbers = [_number_in(name) for name in names]
        by_number = ids <= set(range(len(names)))
        by_name = len(set(numbers)) == len(numbers) and not ids.isdisjoint(numbers)
        if by_number and by_name and ids <= set(numbers) and any(numbers[each] != each for each in ids):
            raise UsageError(
                f"the image_id {min(ids)} of {self._path} may be the picture {names[min(ids)]}, counted from 0, or the "
                f"one whose name has this number; {_BETTER}"
            )
        if not by_number and not by_name:
            raise UsageError(
                f"the image_id {max(ids)} of {self._path} is none of the {len(names)} pictures, which count from 0, "
                f"nor is it in the name of one, as in 000000000139.jpg; {_BETTER}"
            )
        return by_name and not (by_number and not ids <= set(numbers))


def _number_in(name: str) -> int:
    """Return the last number in a picture's name; -1 without one."""
    digits = re.findall(r"[0-9]+", name)
    return int(digits[-1]) if digits else -1


def _person_category(document: Any, given: str | int | None, where: str) -> int | None:
    categories = document.get("categories") if isinstance(document, dict) else None
    listed = categories if isinstance(categories, list) else ()
    pairs = [each for each in listed if isinstance(each, dict) and isinstance(each.get("name"), str)]
    names = {each["id"]: each["name"] for each in pairs if isinstance(each.get("id"), int)}
    return person_among(names, given, where=where)


def _image_ids(document: Any) -> dict[str, int]:
    """Return the ids of a data set's images, by what frames of theirs may be called."""
    images = document.get("images") if isinstance(document, dict) else None
    known = [image for image in images if _names_a_file(image)] if isinstance(images, list) else []
    numbered = [image for image in known if isinstance(image["id"], int)]
    return {str(name): image["id"] for image in numbered for name in _names(image["file_name"])}


def _document(path: Path) -> Any:
    text = text_from_file(path, where=f"the file of boxes {path}", raising=SfppError)
    parsed = functools.partial(json_from_text, where=str(path), raising=SfppError, advice=_EXPECTED)
    try:
        return parsed(text)
    except SfppError as whole:
        try:
            return [parsed(line) for line in text.splitlines() if line.strip()]
        except SfppError:
            raise whole from None


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


def _frame_of(entry: Any, where: str) -> tuple[str, int | str]:
    """Return the field that names the frame, and what is in it."""
    if not isinstance(entry, Mapping):
        raise SfppError(f"{where} is {entry!r}; {_EXPECTED}")
    # A data set's image_id is any number, so that it counts frames only where nothing says more.
    for field in ("file_name", "frame_name", "frame", "image_id"):
        key = _key(entry.get(field))
        if key is not None:
            return field, key
    raise SfppError(f'{where} names no frame; expected "file_name", or a frame number from 0 in "frame" or "image_id"')


def _names(key: int | str) -> set[int | str]:
    """Return what the frame may be called: frames of folders have no suffix, or _jpg where the stems repeat."""
    if isinstance(key, int):
        return {key}
    file = PureWindowsPath(key)  # it knows both kinds of slashes
    return {file.name, file.stem, file.name.replace(".", "_")}


def _row(entry: Mapping[str, Any], where: str) -> tuple[float, ...] | None:
    """Return left, top, width, height and score; None for a crowd or nothing."""
    if entry.get("iscrowd"):
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
