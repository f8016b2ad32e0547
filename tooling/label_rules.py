"""Which class each value of label images stands for: by the user's options, by data sets' own numbers, or refused.

A value is a number, or a color as :func:`color_value` writes it.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sfpp.runtime.errors import UsageError
from sfpp.runtime.options import option
from sfpp.runtime.typed_json import json_from_file, text_from_file

ADE20K, CITYSCAPES_LABEL_IDS = "ADE20K's", "Cityscapes' labelIds"
IGNORED = -1  # stands for pixels that do not count, in labels that were read
Color = tuple[int, int, int]
Values = Mapping[int, int]  # of pictures: how often each occurs

# The ids of Cityscapes' label images, by the numbers that networks are trained on; all others are ignored.
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# CamVid's 32 colors by the 11 classes that networks are trained on; black is void.
_CAMVID_COLORS = {
    "sky": ((128, 128, 128),),
    "building": ((0, 128, 64), (128, 0, 0), (64, 192, 0), (64, 0, 64), (192, 0, 128)),
    "pole": ((192, 192, 128), (0, 0, 64)),
    "road": ((128, 64, 128), (128, 0, 192), (192, 0, 64)),
    "pavement": ((0, 0, 192), (64, 192, 128), (128, 128, 192)),
    "tree": ((128, 128, 0), (192, 192, 0)),
    "sign": ((192, 128, 128), (128, 128, 64), (0, 64, 64)),
    "fence": ((64, 64, 128),),
    "car": ((64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)),
    "pedestrian": ((64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)),
    "bicyclist": ((0, 128, 192), (192, 0, 192)),
}
_BLACK, _VOC_VOID = (0, 0, 0), (224, 224, 192)
_USUAL = frozenset({255, 65535, -1})  # what data sets write where nothing is labeled
_COLORS = 1 << 24  # values from here on are colors
_ADE20K_CLASSES, _VOC_CLASSES = 150, 21
_CITYSCAPES_LABELS = 34
_INSTANCES = 1000  # and more: Cityscapes' instanceIds are a thousand times the class, and the object
_SHOWN = 8
_ENTRY = re.compile(r"\s*(-?\d{1,9}|#[0-9a-fA-F]{6})\s*[=:]\s*(\d{1,9}|-1|ignore)\s*")


def color_value(red: Any, green: Any, blue: Any) -> Any:
    """Return the value that stands for a color, or the values that stand for arrays of colors."""
    return _COLORS | red << 16 | green << 8 | blue


def is_color(value: int) -> bool:
    """Whether a value stands for a color."""
    return value >= _COLORS


def value_text(value: int) -> str:
    """Return a value as options take it: a number, or a color such as ``#8040ff``."""
    return f"#{value - _COLORS:06x}" if is_color(value) else str(value)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no value of label images; expected a whole number or several, such as 255,254"
        ) from None


@dataclass(frozen=True, kw_only=True)
class LabelRules:
    """How the values of label images are read, where they are not the model's class numbers as they stand.

    Raises:
        UsageError: a value that cannot be meant.
    """

    ignore: tuple[int, ...] = option(
        "values of label images for pixels that do not count (default: 255, where it is no class)",
        default=(),
        type=_numbers,
        metavar="N[,N]",
    )
    label_offset: int | None = option(
        "add N to the values of label images: -1 where classes are numbered from 1, as in ADE20K, and 0 is ignored",
        default=None,
        type=int,
        metavar="N",
    )
    label_map: Mapping[int, int] = option(
        "read values of label images as other class numbers: 255=1, 0=ignore or '#804080=0' (a color), a file of such "
        "lines, or cityscapes (its labelIds)",
        default=(),
        metavar="OLD=NEW,..|FILE",
    )

    def __post_init__(self) -> None:
        given = (self.ignore,) if isinstance(self.ignore, int) else self.ignore or ()
        object.__setattr__(self, "ignore", tuple(given))
        if any(isinstance(each, bool) or not isinstance(each, int) for each in self.ignore):
            raise UsageError(f"ignore is {self.ignore!r}, expected values of the label images, whole numbers")
        object.__setattr__(self, "label_map", _mapping(self.label_map))
        offset = self.label_offset
        if offset is not None and (isinstance(offset, bool) or not isinstance(offset, int)):
            raise UsageError(f"label_offset is {offset!r}, expected a whole number such as -1")
        if offset is not None and self.label_map:
            raise UsageError(
                "label_offset and label_map are both given; a map can say everything, so leave the offset out"
            )

    def given(self) -> str:
        """Return the options that are given, for messages; empty where none is."""
        names = (each.name for each in fields(LabelRules))
        return " and ".join(name for name in names if getattr(self, name) not in ((), {}, None))

    @property
    def are_given(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.given())


def _mapping(given: Any) -> dict[int, int]:
    """Read a map of values, from what a command line or Python gives."""
    if not given:
        return {}
    if isinstance(given, Mapping):
        entries = [f"{old}={new}" for old, new in given.items()]
    elif os.fspath(given) == "cityscapes":
        return {
            each: _CITYSCAPES_IDS.index(each) if each in _CITYSCAPES_IDS else IGNORED
            for each in (*range(_CITYSCAPES_LABELS), 255)
        }
    elif os.path.isfile(given):  # noqa: PTH113 - Path's raises where a name is too long
        entries = _map_in(Path(given))
    else:
        entries = os.fspath(given).split(",")
    found: dict[int, int] = {}
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise UsageError(
                f"label_map holds {entry!r}, expected OLD=NEW such as 255=1, 0=ignore or #804080=0, a file of such "
                "lines, or the word cityscapes"
            )
        old = int(match[1][1:], 16) | _COLORS if match[1].startswith("#") else int(match[1])
        if old in found:
            raise UsageError(f"label_map names {value_text(old)} twice; give each value once")
        found[old] = IGNORED if match[2] == "ignore" else int(match[2])
    return found


def _map_in(path: Path) -> list[str]:
    if path.suffix.lower() == ".json":
        document = json_from_file(path, where=f"the label map {path}", raising=UsageError)
        if not isinstance(document, dict):
            raise UsageError(f'the label map {path} must be a JSON object such as {{"255": 1, "0": "ignore"}}')
        return [f"{old}={new}" for old, new in document.items()]
    text = text_from_file(path, where=f"the label map {path}", raising=UsageError)
    return [line for line in text.splitlines() if line.strip()]


@dataclass(frozen=True)
class Reading:
    """What values mean.

    Attributes:
        classes: the class of each, ``IGNORED`` for what does not count.
        notes: how that was found out, in sentences.
        offset: what was added to numbers without being asked for; None where the user says what values mean, or colors.
    """

    classes: Mapping[int, int]
    notes: tuple[str, ...] = ()
    offset: int | None = None


class ClassNumbers:
    """Decides what the values of label images mean to a model.

    Args:
        names: of the model's classes.
        palette: their colors.
        rules: what the user says.
        origin: where the label images are, for messages.

    Attributes:
        by_color: the class of each color, as a value, that the palette has once.

    Raises:
        UsageError: the rules name a class that the model does not have.
    """

    def __init__(self, names: Sequence[str], palette: Sequence[Color], rules: LabelRules, *, origin: str) -> None:
        self._names, self._rules, self._origin = tuple(names), rules, origin
        self._is_camvid = [name.casefold() for name in names] == list(_CAMVID_COLORS)
        values = [color_value(*color) for color in palette]
        self.by_color = {value: index for index, value in enumerate(values) if values.count(value) == 1}
        if wrong := [new for new in rules.label_map.values() if new >= len(names)]:
            raise UsageError(f"label_map says class {wrong[0]}, but the model has {self._classes}; name one of them")

    def reading(self, values: Values, *, data_set: str = "") -> Reading:
        """Return what each value means.

        Args:
            values: all that occur in the truth, with the number of their pixels.
            data_set: whose they are as the files' names say: ``ADE20K``, ``CITYSCAPES_LABEL_IDS``, others, or nothing.

        Raises:
            UsageError: they do not fit the model's classes, or may mean several things.
        """
        rules, notes = self._rules_for(values, data_set)
        found = {
            value: rules.label_map.get(value, IGNORED) for value in values if value in (*rules.label_map, *rules.ignore)
        }
        numbers = {value for value in values if not is_color(value) and value not in found}
        found |= {value: number for value in numbers if (number := self._number(value, rules.label_offset)) is not None}
        if colors := {value: count for value, count in values.items() if value not in found and is_color(value)}:
            found |= self._by_color(colors, notes)
        if beyond := {value for value in values if value not in found}:
            if not self._are_ignored(beyond, values, rules):
                raise UsageError(self._misfit(values, beyond))
            found |= dict.fromkeys(beyond, IGNORED)
            notes.append(f"{_listed(sorted(beyond))} is no class and is ignored")
        is_asked_for = self._rules.are_given or rules.label_map or any(map(is_color, values))
        return Reading(found, tuple(notes), None if is_asked_for else rules.label_offset or 0)

    def _rules_for(self, values: Values, data_set: str) -> tuple[LabelRules, list[str]]:
        """Return the user's rules, or those of the data set to which the label images belong."""
        count = len(self._names)
        if self._rules.are_given:
            return self._rules, []
        if data_set == CITYSCAPES_LABEL_IDS and count == len(_CITYSCAPES_IDS):
            note = "Cityscapes' labelIds are read as the 19 classes that networks are trained on"
            return LabelRules(label_map=_mapping("cityscapes")), [note]
        if data_set == ADE20K and count == _ADE20K_CLASSES and 255 not in values:
            note = "ADE20K's labels are numbered from 1: one is subtracted, and 0 is ignored (--label-offset 0 if not)"
            return LabelRules(label_offset=-1), [note]
        return self._rules, []

    def _number(self, value: int, offset: int | None) -> int | None:
        """Return the class that a number stands for, ``IGNORED`` where an offset leads below 0; None for none."""
        number = value + (offset or 0)
        if number < 0:
            return IGNORED if value >= 0 else None
        return number if number < len(self._names) else None

    def _by_color(self, colors: Values, notes: list[str]) -> dict[int, int]:
        """Return the classes that colors stand for: the model's, or CamVid's.

        Raises:
            UsageError: some stand for none.
        """
        void = {color_value(*_VOC_VOID): IGNORED} if len(self._names) == _VOC_CLASSES else {}
        known, whose = {**void, **self.by_color}, "the model's classes"
        if self._is_camvid and not colors.keys() <= known.keys():
            known, whose = {color_value(*_BLACK): IGNORED}, "CamVid's 32 classes"
            known |= {
                color_value(*each): index for index, every in enumerate(_CAMVID_COLORS.values()) for each in every
            }
        if unknown := {value: count for value, count in colors.items() if value not in known}:
            most = sorted(unknown, key=lambda value: -unknown[value])
            raise UsageError(
                f"the label images in {self._origin} are colored, and the model has no class of {len(unknown)} of "
                f"their {len(colors)} colors: {_shares(most, colors)}; say what these mean with --label-map "
                f"'{value_text(most[0])}=0,...' (or =ignore), or give label images of class numbers"
            )
        notes.append(f"the label images are colored, and read by the colors of {whose}")
        return {value: known[value] for value in colors}

    def _are_ignored(self, beyond: set[int], values: Values, rules: LabelRules) -> bool:
        """Whether values that are no class may be taken for ignored without asking."""
        if rules.ignore:
            return False
        # In CamVid's own numbers void is the one behind the classes.
        void = {len(self._names)} if self._is_camvid and rules.label_offset is None else set()
        is_mask = values.keys() - beyond == {0} and not rules.are_given
        return beyond <= _USUAL | void and not (is_mask and beyond <= _USUAL)

    @property
    def _classes(self) -> str:
        count = len(self._names)
        return f"{count} classes, 0 to {count - 1}" if count > 1 else "one class, 0"

    def _misfit(self, values: Values, beyond: set[int]) -> str:
        """Return what is wrong, and the options that may be meant."""
        # Of many, those that it is about come first.
        shown = sorted(values, key=lambda value: (len(values) > _SHOWN and value not in beyond, value))
        return (
            f"the label images in {self._origin} have the values {_shares(shown, values)}, but the model has "
            f"{self._classes}; {self._advice(sorted(values), sorted(beyond))}"
        )

    def _advice(self, values: list[int], beyond: list[int]) -> str:
        count, plain = len(self._names), [value for value in beyond if value not in _USUAL]
        known = _listed(beyond)
        if self._rules.ignore:
            ignored = _listed(self._rules.ignore)
            return f"ignored is {ignored}: give --ignore {ignored},{known}, or say what they mean with --label-map"
        if not plain:
            one = f"1 ({self._names[1]})" if count == 2 else "CLASS"
            return (
                f"masks are often written so: give --label-map {known}={one.split()[0]} if {known} is the class {one}, "
                f"or --ignore {known} if such pixels do not count"
            )
        if plain == [count]:
            return (
                f"give --label-offset -1 if the classes are numbered from 1, or --ignore {known} if such pixels do not "
                "count"
            )
        if plain[-1] >= _INSTANCES:
            return "numbers so large are those of instances: give label images of class numbers"
        if count == len(_CITYSCAPES_IDS) and plain[-1] < _CITYSCAPES_LABELS:
            return "give --label-map cityscapes if they are Cityscapes' labelIds, or else --label-map OLD=NEW,..."
        if len(values) <= count and values[0] == 0:
            order = ",".join(f"{value}={index}" for index, value in enumerate(values) if value in beyond)
            return f"give --label-map {order} if they stand for the classes in this order, or --ignore {known}"
        return f"give --ignore {known} if such pixels do not count, or say what they mean with --label-map OLD=NEW,..."


def _listed(values: Sequence[int]) -> str:
    return ",".join(map(value_text, values))


def _shares(shown: Sequence[int], values: Values) -> str:
    """Return values with their parts of all pixels."""
    total = sum(values.values())
    percents = {value: 100 * values[value] / total for value in shown[:_SHOWN]}
    parts = [f"{value_text(value)} ({each:{'.0f' if each > 9 else '.2g'}} %)" for value, each in percents.items()]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(parts) + more
