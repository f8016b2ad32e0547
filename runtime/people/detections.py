"""Where the people are in a frame: what every way of finding them gives back, and sums with their boxes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.crops import Boxes as Boxes
from sfpp.runtime.errors import UsageError

_PERSON = "person"
_PERSON_WORDS = ("people", "persons", "pedestrian", "pedestrians", "human", "humans")


@dataclass(frozen=True, eq=False)
class Detections:
    """The people found in one frame.

    Attributes:
        boxes_xywh: (P, 4) float32, left, top, width and height in frame pixels; P may be 0.
        scores: (P,) float32, 0..1, how sure the finder is.
    """

    boxes_xywh: Boxes
    scores: NDArray[np.float32]


class PersonFinder(Protocol):
    """A way to find people."""

    @property
    def description(self) -> str:
        """How people are found, for people: it completes the sentence "people are found by ..."."""

    def find(self, frame_bgr: NDArray[Any], *, index: int = 0, name: str = "") -> Detections:
        """Find the people in a frame.

        Args:
            frame_bgr: (H, W, 3) uint8 BGR.
            index: the frame's number in its source, from 0; only what was found beforehand asks for it.
            name: the frame's name in its source, likewise.

        Raises:
            SfppError: not an image, or the finder failed.
        """

    def close(self) -> None:
        """Release what the finder holds; most hold nothing."""
        return


class FullFrame(PersonFinder):
    """The whole frame is one person: for pictures cut to a person, and where nothing better is at hand."""

    description = "taking each whole frame as one person"

    def find(self, frame_bgr: NDArray[Any], *, index: int = 0, name: str = "") -> Detections:
        """One box, as large as the frame; see :class:`PersonFinder`."""
        height, width = frame_bgr.shape[:2]
        return Detections(np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32))


class FirstToFind(PersonFinder):
    """Asks one finder after the other until one finds somebody.

    Args:
        finders: in the order in which they are asked; they are closed with this one.
    """

    def __init__(self, finders: Sequence[PersonFinder]) -> None:
        self.finders = tuple(finders)

    @property
    def description(self) -> str:
        """Every finder's description, in order."""
        return ", or where that finds nobody by ".join(finder.description for finder in self.finders)

    def find(self, frame_bgr: NDArray[Any], *, index: int = 0, name: str = "") -> Detections:
        """Return what the first finder with an answer found; see :class:`PersonFinder`."""
        found = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        for finder in self.finders:
            found = finder.find(frame_bgr, index=index, name=name)
            if len(found.boxes_xywh):
                break
        return found

    def close(self) -> None:
        """Close every finder."""
        for finder in self.finders:
            finder.close()


def person_among(names: Mapping[int, str], given: str | int | None, *, where: str) -> int | None:
    """Return the number of the class that is a person.

    Args:
        names: of the classes, by number.
        given: a name or a number that somebody has said; None looks for a person's name.
        where: begins the message of every error.

    Returns:
        None where nothing was said and there are no names.

    Raises:
        UsageError: no class has the name or the number, or none or several are called like a person.
    """
    if given is None and not names:
        return None
    shown = ", ".join(f"{number} {name!r}" for number, name in list(names.items())[:20]) + ", ..." * (len(names) > 20)
    told = f"{where} has the classes {shown}" if names else f"{where} names no classes"
    if given is None:
        found = [number for number, name in names.items() if name.strip().casefold() == _PERSON] or [
            number for number, name in names.items() if name.strip().casefold() in _PERSON_WORDS
        ]
        if len(found) == 1:
            return found[0]
        which = "several" if found else "none"
        raise UsageError(f"{told}, {which} of them a person by name; say which one is, with --person-class")
    number = int(given) if re.fullmatch(r"\d{1,9}", str(given)) else None
    same_name = (key for key, name in names.items() if name.strip().casefold() == str(given).strip().casefold())
    number = next(same_name, number)
    if number is None or (names and number not in names):
        raise UsageError(f"{told}, and no {given!r}; give --person-class one of them" + " by number" * (not names))
    return number


def iou_matrix(boxes_xywh: Boxes, others_xywh: Boxes) -> NDArray[np.float32]:
    """Return the intersection over union, 0..1, of each box with each other one: (P, 4) and (Q, 4) give (P, Q)."""
    first, second = boxes_xywh[:, np.newaxis], others_xywh[np.newaxis]
    left_top = np.maximum(first[..., :2], second[..., :2])
    right_bottom = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    common = np.clip(right_bottom - left_top, 0, None).prod(axis=-1)
    union = first[..., 2:].prod(axis=-1) + second[..., 2:].prod(axis=-1) - common
    iou: NDArray[np.float32] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


def kept_by_suppression(boxes_xywh: Boxes, scores: NDArray[np.float32], *, max_iou: float) -> NDArray[np.intp]:
    """Non-maximum suppression: of boxes that overlap by more than ``max_iou`` only the one with the best score stays.

    Returns:
        Indices of the boxes that stay, best score first.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while waiting.size:
        best, rest = waiting[0], waiting[1:]
        kept.append(best)
        # Row by row: a model may give thousands of candidates, whose whole matrix would not fit into memory.
        waiting = rest[iou_matrix(boxes_xywh[[best]], boxes_xywh[rest])[0] <= max_iou]
    return np.array(kept, np.intp)


def cut_to_frame(boxes_xywh: Boxes, frame_size_hw: tuple[int, int]) -> Boxes:
    """Return the part of each box that lies in the frame; a box outside gets width or height 0."""
    limit_xy = np.array(frame_size_hw[::-1], np.float32)
    left_top = np.clip(boxes_xywh[:, :2], 0, limit_xy)
    right_bottom = np.clip(boxes_xywh[:, :2] + boxes_xywh[:, 2:], 0, limit_xy)
    return np.concatenate([left_top, right_bottom - left_top], axis=1).astype(np.float32)
