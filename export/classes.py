"""Class names and colors: those of the usual data sets, those of a user's file, and generated ones.

The tables of the data sets are in ``data/classes``, in the format that a user's own file may have. Their colors are
the data sets' own: Cityscapes' labels by training index, Pascal VOC's bit-shuffled color map, the color coding of the
MIT scene parsing benchmark for ADE20K, and SegNet's for CamVid.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfpp.runtime.errors import UsageError
from sfpp.runtime.typed_json import file_named, json_from_file, name_fault, text_from_file

Color = tuple[int, int, int]

CLASS_SETS = ("cityscapes", "ade20k", "camvid", "voc")

_TABLES = Path(__file__).parent / "data" / "classes"
_GOLDEN_RATIO = 0.61803398875
_MOST = 255
_RGB = r"(?P<red>\d{1,3})[ \t,]+(?P<green>\d{1,3})[ \t,]+(?P<blue>\d{1,3})"
_NAME_AND_COLOR = re.compile(rf"(?P<name>.*[^\s,;:=])(?<![\s,;:=]\d)(?<!\d\d)[\s,;:=]+{_RGB}[\s:]*")
_COLOR_AND_NAME = re.compile(rf"{_RGB}[\s,;:=]+(?P<name>\S*[^\W\d].*)")
_COLOR_WITHIN = re.compile(r"\d[\s,;:/]+[\d.]+[\s,;:/]+\d")
_NUMBERED = re.compile(r"\s*(\d{1,4})[\s,;:=.)]+\S")
# Saturation and value taken in turns, so that hues which come close after many classes still differ.
_TONES = ((0.85, 1.0), (0.55, 0.75), (1.0, 0.6), (0.4, 1.0), (0.9, 0.8))


@dataclass(frozen=True)
class ClassSet:
    """Names of classes in the order of the logits, and one (R, G, B) color, 0..255, for each."""

    names: tuple[str, ...]
    palette: tuple[Color, ...]


def class_set(name_or_path: str | Path, count: int | None = None) -> ClassSet:
    """Return the classes of a data set, or those listed in a file.

    Args:
        name_or_path: one of ``CLASS_SETS``; or a JSON list of names or of ``{"name": ..., "color": [r, g, b]}``; or
            any other text file with one name per line, behind which a color may stand: ``sky 128 128 128``. Where a
            file gives no color, one is generated.
        count: how many classes the model has; None does not check.

    Raises:
        UsageError: neither a known name nor a file, a malformed file, or another number of classes than ``count``.
    """
    text = str(name_or_path)
    classes = _from_file(_path_of(text))
    if count is not None and len(classes.names) != count:
        raise UsageError(
            f"{text!r} names {len(classes.names)} classes, but the model has {count}: "
            f"choose another of {', '.join(CLASS_SETS)}, or give a file with {count} names, one per line, in the order "
            "of the model's output (often it begins with the background, and has no class for void)"
        )
    return classes


def default_classes(count: int) -> ClassSet:
    """Return ``class 0``, ``class 1``, ... with generated colors."""
    return ClassSet(tuple(f"class {index}" for index in range(count)), generated_palette(count))


def generated_palette(count: int) -> tuple[Color, ...]:
    """Return ``count`` distinct colors, neighbors far apart in hue; the first ones do not depend on ``count``."""
    return tuple(_generated_color(index) for index in range(count))


def _generated_color(index: int) -> Color:
    # Steps of the golden ratio spread any number of hues evenly without knowing the number beforehand.
    hue = index * _GOLDEN_RATIO % 1.0
    saturation, value = _TONES[index % len(_TONES)]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _path_of(text: str) -> Path:
    if text in CLASS_SETS:
        return _TABLES / f"{text}.json"
    return file_named(text, CLASS_SETS, what="classes", file="class file")


def _from_file(path: Path) -> ClassSet:
    origin = f"the class file {path}"
    if path.suffix.lower() == ".json":
        entries = json_from_file(path, where=origin, raising=UsageError)
        if not isinstance(entries, list):
            raise UsageError(f"{origin} must be a JSON list of names or of objects with name and color")
        return classes_from_entries(entries, origin=origin)
    lines = text_from_file(path, where=origin, raising=UsageError).splitlines()
    # An empty line at the end is no class, and other programs begin their lists with a comment.
    entries = [_entry(line) for line in lines if line and not line.startswith("#")]
    _check_texts([each if isinstance(each, str) else each["name"] for each in entries], origin)
    return classes_from_entries(entries, origin=origin)


def _check_texts(lines: Sequence[str], origin: str) -> None:
    """Refuse names that hold more than a name."""
    numbers = [int(match[1]) for line in lines if (match := _NUMBERED.match(line))]
    if len(lines) > 1 and numbers in ([*range(len(lines))], [*range(1, len(lines) + 1)]):
        raise UsageError(f"{origin}: every line begins with a number, as {lines[0]!r}; give the names alone")
    for line in lines:
        if _COLOR_WITHIN.search(line):
            raise UsageError(
                f"{origin}: {line!r} has three numbers that are no color behind a name; write the color as in "
                "'sky 128 128 128', with 0..255 each, or give JSON where they belong to the name"
            )


def _entry(line: str) -> str | dict[str, Any]:
    """Return a line of a text file as an entry: a name, or a name with a color behind or before it."""
    if match := _NAME_AND_COLOR.fullmatch(line.strip()) or _COLOR_AND_NAME.fullmatch(line.strip()):
        color = [int(match[channel]) for channel in ("red", "green", "blue")]
        return {"name": match["name"], "color": color} if max(color) <= _MOST else line
    return line


def classes_from_entries(entries: Sequence[Any], *, origin: str) -> ClassSet:
    """Make a class set of names, or of mappings with ``name`` and perhaps ``color``.

    Raises:
        UsageError: no entries, an entry without a name or with one that is no text, or a color that is not three whole
            numbers 0..255.
    """
    if not entries:
        raise UsageError(f"{origin} names no class; expected one name per class, in the order of the model's output")
    generated = generated_palette(len(entries))
    named = [_named_color(entry, f"{origin}, class {index}") for index, entry in enumerate(entries)]
    palette = tuple(color or spare for (_, color), spare in zip(named, generated, strict=True))
    return ClassSet(tuple(name for name, _ in named), palette)


def _named_color(entry: object, where: str) -> tuple[str, Color | None]:
    fields = entry if isinstance(entry, dict) else {"name": entry}
    if unknown := sorted(map(str, fields.keys() - {"name", "color"})):
        raise UsageError(f"{where}: {unknown[0]!r} is unknown; expected a text, or an object with name and color")
    name, color = fields.get("name"), fields.get("color")
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"{where}: {entry!r} has no name; expected a text, or an object with name and color")
    if (fault := name_fault(name.strip())) is not None:
        raise UsageError(f"{where}: the name {fault}; write it anew")
    if color is None:
        return name.strip(), None
    checked = color_from(color)
    if checked is None:
        raise UsageError(f"{where}: the color of {name!r} is {color!r}, expected [red, green, blue] with 0..255 each")
    return name.strip(), checked


def color_from(value: object) -> Color | None:
    """Return ``value`` as a color if it is three whole numbers 0..255, else None."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    if not all(isinstance(channel, int) and not isinstance(channel, bool) and 0 <= channel <= 255 for channel in value):
        return None
    red, green, blue = value
    return red, green, blue
