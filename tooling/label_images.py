"""Label images of frames: found by the frames' names, and read as the model's class numbers."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfpp.runtime.errors import MediaError, UsageError
from sfpp.runtime.limits import advice, limit
from sfpp.runtime.text import first_line
from sfpp.tooling.figures import share
from sfpp.tooling.frames import evenly_spaced
from sfpp.tooling.label_rules import ADE20K, IGNORED, ClassNumbers, Color, LabelRules, Reading, color_value, is_color
from sfpp.tooling.metrics import ConfusionMatrix

_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".pgm", ".gif")  # without loss: JPEG would invent classes
_FORMATS = ("PNG", "BMP", "TIFF", "PPM", "GIF")  # by their contents, whatever their suffix; others run programs
# Of Cityscapes' images for one frame, the first kind that is there is read.
_CITYSCAPES = re.compile(r"_gt(?:Fine|Coarse)_(labelTrainIds|labelIds|color|instance(?:Train)?Ids)$")
_CITYSCAPES_KINDS = ("labelTrainIds", "labelIds", "color")
_CITYSCAPES_FRAME = "_leftImg8bit"
_CITYSCAPES_SET = "Cityscapes'"
_ADE20K_NAME = re.compile(r"ADE_(?:train|val)_\d+")
_ENDING = re.compile(r"[_.-][A-Za-z_]+$")
# More label images than this say nothing new about what values there are.
_MOST_LOOKED_AT = 2000
_MOSTLY_IGNORED = 0.95
_NAMED = 12
_SEVERAL = 3  # classes, fewer of which may be taken for their neighbor by chance


@dataclass(frozen=True)
class TruthSummary:
    """What the label images of the frames that were evaluated hold.

    Attributes:
        frames: how many have one.
        ignored: the share, 0..1, of their pixels that does not count.
        absent: classes that never occur in them.
        notes: how the values were read, in sentences.
        warnings: what makes the figures doubtful, in sentences.
    """

    frames: int
    ignored: float
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def text(self) -> str:
        """Return what is ignored and what never occurs, in words."""
        named = ", ".join(self.absent[:_NAMED])
        more = f" and {len(self.absent) - _NAMED} more" if len(self.absent) > _NAMED else ""
        return f"{share(self.ignored)} % of the pixels ignored; classes that never occur: {named or 'none'}{more}"


class LabelFolder:
    """Label images of frames, found by the frame's name: ``labels/0001.png`` for ``images/0001.jpg``.

    Folders are searched with all below them where no label image lies directly in them. Cityscapes, ADE20K, Pascal VOC
    and CamVid are read as they are downloaded. A value is the number of a class, or a color; which class each stands
    for is decided for all label images at once.

    Args:
        folder: where the images lie.
        classes: the names of the model's classes.
        palette: their colors.
        rules: what the user says about the values.

    Attributes:
        folder: where they lie.

    Raises:
        MediaError: no such folder, or no label picture in it.
        UsageError: the rules name a class that the model does not have.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        classes: Sequence[str],
        palette: Sequence[Color] = (),
        rules: LabelRules | None = None,
    ) -> None:
        self.folder, self._names, self._rules = Path(folder), tuple(classes), rules or LabelRules()
        self._numbers = ClassNumbers(classes, palette, self._rules, origin=str(folder))
        files, self._data_set = _of_one_kind(_files_in(self.folder), self.folder)
        self._ending = "" if self._data_set.startswith(_CITYSCAPES_SET) else _common_ending(files)
        self._files = _by_name(files, self.folder, self._ending)
        self._counts: dict[Path, Counter[int]] = {}
        self._gray: set[Path] = set()  # with three channels that are all the same
        self._are_colored = False
        self._reading = Reading({})

    def __contains__(self, name: object) -> bool:
        """Whether the frame of a name has a label image."""
        return isinstance(name, str) and self._file_of(name) is not None

    def fit(self, names: Collection[str], *, progress: Callable[[int, int], object] = lambda done, total: None) -> None:
        """Look at the label images of frames, and decide what their values mean.

        Args:
            names: of all frames that may be evaluated on.
            progress: called with how many label images were looked at, of how many.

        Raises:
            UsageError: the values do not fit the model's classes.
        """
        files = sorted({file for name in names if (file := self._file_of(name)) is not None})
        looked_at = evenly_spaced(files, _MOST_LOOKED_AT)
        for done, file in enumerate(looked_at, 1):
            # One that cannot be read is told where its frame is evaluated.
            with contextlib.suppress(MediaError):
                self._look_at(file)
            progress(done, len(looked_at))
        self._decide()

    def find(self, name: str, size_hw: tuple[int, int]) -> NDArray[np.int16] | None:
        """Return a frame's true labels, (H, W) int16: classes, or ``IGNORED``; None where there is no picture for it.

        Args:
            name: the frame's, without suffix.
            size_hw: the frame's height and width, which the picture must have.

        Raises:
            MediaError: the picture cannot be read or is of another size, or several belong to the frame.
            UsageError: the values do not fit the model's classes.
        """
        file = self._file_of(name)
        if file is None:
            return None
        if file not in self._counts:
            self._look_at(file)
            self._decide()
        values = self._values_in(file)
        if values.shape != size_hw:
            raise MediaError(
                f"{file} has {values.shape[1]}x{values.shape[0]} pixels (width x height), but its frame has "
                f"{size_hw[1]}x{size_hw[0]}; give labels of the frames' own size"
            )
        return _looked_up(values, self._reading.classes)

    def summary(self, names: Iterable[str]) -> TruthSummary | None:
        """Return what the label images of these frames hold; None where none of them has one."""
        files = {name: file for name in names if (file := self._file_of(name)) in self._counts}
        if not files:
            return None
        pixels: Counter[int] = Counter()
        for file in files.values():
            for value, count in self._counts[file].items():
                pixels[self._reading.classes[value]] += count
        ignored = pixels[IGNORED] / pixels.total()
        absent = tuple(name for index, name in enumerate(self._names) if not pixels[index])
        notes = [f"the label images are {self._data_set}"] if self._data_set else []
        if any(file.stem != name.rpartition("/")[2] for name, file in files.items()) and self._ending:
            notes.append(f"label images are called as their frames with {self._ending} behind")
        notes += self._reading.notes
        return TruthSummary(len(files), ignored, absent, tuple(notes), tuple(self._warnings(ignored, absent)))

    def check_numbering(self, confusion: ConfusionMatrix) -> None:
        """Refuse label images whose numbers are off by one, as predictions show; passes what the user asked for.

        Raises:
            UsageError: most classes were predicted as their neighbor in number.
        """
        if (offset := self._reading.offset) is None:
            return
        for by in (-1, 1):
            right, of = confusion.predicted_with_offset(by)
            exact, _ = confusion.predicted_with_offset(0)
            if right >= _SEVERAL and 2 * right >= of and right > 2 * exact:
                raise UsageError(
                    f"the model predicts {right} of the {of} classes in {self.folder} as the class whose number is "
                    f"{by:+d}, and {exact} as they are numbered: give --label-offset {offset + by} if the label images "
                    f"count from another number, or --label-offset {offset} if the model is really so wrong"
                )

    def _warnings(self, ignored: float, absent: Collection[str]) -> Iterator[str]:
        present = [name for name in self._names if name not in absent]
        if ignored > _MOSTLY_IGNORED:
            yield f"{ignored:.1%} of the label images' pixels are ignored, so the accuracy rests on few"
        if len(present) == 1 and len(self._names) > 1:
            yield f"only one class occurs in the label images, {present[0]}: they tell little of how good a model is"
        elif present and self._names[0] in absent and self._reading.offset == 0:
            yield (
                f"the value 0 ({self._names[0]}) never occurs in the label images; if their classes are numbered from "
                "1, give --label-offset -1"
            )

    def _file_of(self, name: str) -> Path | None:
        """Return the label image of a frame.

        Raises:
            MediaError: there are several.
        """
        found = self._files.get(name) or self._files.get(name.removesuffix(_CITYSCAPES_FRAME)) or []
        if len(found) > 1:
            raise MediaError(
                f"{found[0]} and {found[1]} may both belong to the frame {name}; give label images in folders as their "
                "frames are, or one folder of both"
            )
        return found[0] if found else None

    def _look_at(self, file: Path) -> None:
        values, is_gray = _read_values(file, {} if self._rules.are_given else self._numbers.by_color)
        self._counts[file] = _counted(values)
        self._gray |= {file} if is_gray else set()

    def _decide(self) -> None:
        """Decide what the values mean that were seen so far."""
        values: Counter[int] = Counter()
        for counts in self._counts.values():
            values.update(counts)
        if any(map(is_color, values)) and self._gray:
            # Black and white are colors too, where there are others.
            for file in self._gray:
                self._counts[file] = Counter({_gray_color(value): n for value, n in self._counts[file].items()})
            self._gray.clear()
            self._are_colored = True
            self._decide()
            return
        self._reading = self._numbers.reading(values, data_set=self._data_set)

    def _values_in(self, file: Path) -> NDArray[np.int32]:
        values, is_gray = _read_values(file, {} if self._rules.are_given else self._numbers.by_color)
        return _gray_color(values) if is_gray and self._are_colored else values


def _files_in(folder: Path) -> list[Path]:
    """Return the label images in a folder, or where none is, those below it."""
    if not folder.is_dir():
        raise MediaError(f"{folder} is not a folder; give the folder with the label images")
    for found in (folder.iterdir(), folder.rglob("*")):
        if files := sorted(file for file in found if file.suffix.lower() in _SUFFIXES and file.is_file()):
            return files
    raise MediaError(
        f"the folder {folder} holds no label images; expected files ending in {', '.join(_SUFFIXES)}, named like the "
        "frames"
    )


def _of_one_kind(files: list[Path], folder: Path) -> tuple[list[Path], str]:
    """Return those of the files that hold classes, and whose they are, if that shows in the names."""
    kinds = {file: match[1] for file in files if (match := _CITYSCAPES.search(file.stem))}
    if kinds:
        kind = next((each for each in _CITYSCAPES_KINDS if each in kinds.values()), None)
        if kind is None:
            raise MediaError(
                f"{folder} holds Cityscapes' numbers of instances only; give its labelTrainIds or labelIds"
            )
        return [file for file in files if kinds.get(file) == kind], f"{_CITYSCAPES_SET} {kind}"
    if folder.name == "SegmentationObject":
        raise MediaError(f"{folder} holds Pascal VOC's numbers of objects, not classes; give SegmentationClass")
    if folder.name.startswith("SegmentationClass"):
        return files, "Pascal VOC's"
    return files, ADE20K if all(_ADE20K_NAME.fullmatch(file.stem) for file in files) else ""


def _common_ending(files: Sequence[Path]) -> str:
    """Return what the names of all files end in, such as ``_L`` or ``_mask``; empty where that is nothing."""
    first, *others = (file.stem for file in files)
    match = _ENDING.search(first)
    return match[0] if match and all(stem.endswith(match[0]) for stem in others) else ""


def _by_name(files: Iterable[Path], folder: Path, ending: str) -> dict[str, list[Path]]:
    """Return the files by the names that their frames may have, with and without the folders that they lie in."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        folders = file.relative_to(folder).parent.parts
        for stem in {file.stem, _CITYSCAPES.sub("", file.stem).removesuffix(ending)}:
            for start in range(len(folders) + 1):
                found["/".join((*folders[start:], stem))].append(file)
    return found


def _read_values(file: Path, by_color: Mapping[int, int]) -> tuple[NDArray[np.int32], bool]:
    """Return the values of an image, (H, W) int32, and whether they were those of three equal channels.

    Of one with a palette they are the indices, unless its colors are those of the model's classes in another order.
    """
    try:
        with warnings.catch_warnings(), Image.open(file, formats=_FORMATS) as opened:
            warnings.simplefilter("ignore")  # of what is damaged and can be read all the same
            if opened.width * opened.height > limit("PIXELS"):
                raise MediaError(f"{file} has {opened.width}x{opened.height} pixels; {advice('PIXELS')}")
            mode, palette = opened.mode, opened.getpalette() if opened.mode == "P" else None
            values = np.asarray(opened)
    except MediaError:
        raise
    except Exception as error:  # damaged bytes surface as almost any exception
        if isinstance(error, OSError) and error.errno is not None:
            raise MediaError(f"cannot read {file}: {error.strerror}") from error
        raise MediaError(
            f"{file} ({file.stat().st_size} bytes) is not an image that Pillow can decode ({first_line(error)}); give "
            "a PNG"
        ) from error
    if mode in ("RGB", "RGBA"):
        red, green, blue = (values[..., channel].astype(np.int32) for channel in range(3))
        is_gray = np.array_equal(red, green) and np.array_equal(red, blue)
        return (red, True) if is_gray else (color_value(red, green, blue), False)
    if mode in ("LA", "PA"):
        values = values[..., 0]
    if values.ndim != 2 or not (values.dtype == np.bool_ or np.issubdtype(values.dtype, np.integer)):
        raise MediaError(
            f"{file} has {values.dtype} values of shape {values.shape} ({mode}), expected class numbers in one channel "
            "or colors; convert it to a grey PNG"
        )
    indices = values.astype(np.int32)
    if palette is not None and (colors := _colors_in_another_order(indices, palette, by_color)) is not None:
        return colors, False
    return indices, False


def _colors_in_another_order(
    indices: NDArray[np.int32], palette: Sequence[int], by_color: Mapping[int, int]
) -> NDArray[np.int32] | None:
    used = np.flatnonzero(np.bincount(indices.ravel()))
    table = np.zeros(int(used.max()) + 1, np.int32)
    for index in used.tolist():
        if len(channels := palette[3 * index : 3 * index + 3]) < 3:
            return None
        table[index] = color_value(*channels)
    classes = [by_color.get(int(table[index])) for index in used]
    return None if None in classes or classes == used.tolist() else table[indices]


def _gray_color(value: Any) -> Any:
    return color_value(value, value, value)


def _counted(values: NDArray[np.int32]) -> Counter[int]:
    """Return how often each value occurs."""
    if not _are_small(values):
        return Counter(dict(zip(*(each.tolist() for each in np.unique(values, return_counts=True)), strict=True)))
    counts = np.bincount(values.ravel())
    return Counter({int(value): int(counts[value]) for value in np.flatnonzero(counts)})


def _looked_up(values: NDArray[np.int32], classes: Mapping[int, int]) -> NDArray[np.int16]:
    """Return the class of each value."""
    if not _are_small(values):
        known, places = np.unique(values, return_inverse=True)
        return np.array([classes[int(value)] for value in known], np.int16)[places].reshape(values.shape)
    # A table takes a hundredth of the time.
    table = np.full(int(values.max()) + 1, IGNORED, np.int16)
    for value, number in classes.items():
        if 0 <= value < len(table):
            table[value] = number
    return table[values]


def _are_small(values: NDArray[np.int32]) -> bool:
    return bool(values.min() >= 0 and values.max() <= np.iinfo(np.uint16).max)
