"""Where the people are in a frame: what every way of finding them gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.people.boxes import Boxes


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
