"""Choosing how people are found."""

from __future__ import annotations

import os
from typing import Literal, get_args

from sfpp.runtime.errors import UsageError
from sfpp.runtime.opencv import import_cv2
from sfpp.runtime.people.boxes_file import BoxesFile
from sfpp.runtime.people.detections import FirstToFind, FullFrame, PersonFinder
from sfpp.runtime.people.detector import OnnxDetector
from sfpp.runtime.people.hog import HogPeople, hog_available

PersonKind = Literal["hog", "full-frame"]


def choose_finder(
    *,
    detector: str | os.PathLike[str] | None = None,
    boxes: str | os.PathLike[str] | None = None,
    person: PersonKind | None = None,
    threads: int | None = None,
) -> tuple[PersonFinder, str]:
    """Choose a finder: the one that is asked for, else HOG where OpenCV has it, else the full frame.

    Args:
        detector: an ONNX file.
        boxes: a COCO-style file.
        person: ``hog`` or ``full-frame``.
        threads: for the detector, threads within an operator.

    Returns:
        The finder, and one line that says which was chosen and why.

    Raises:
        UsageError: more than one is asked for, or a ``person`` that is neither.
        SfppError: the detector or the boxes cannot be opened.
        BackendError: HOG is asked for, and this OpenCV lacks it.
        MissingDependencyError: OpenCV or ONNX Runtime is not installed.
    """
    if sum(way is not None for way in (detector, boxes, person)) > 1:
        raise UsageError("people can be found in one way only: give either a detector, or boxes, or person")
    if person is not None and person not in get_args(PersonKind):
        raise UsageError(f"person is {person!r}, expected one of {', '.join(get_args(PersonKind))}")
    reason = ""
    finder: PersonFinder
    if detector is not None:
        finder = OnnxDetector(detector, threads=threads)
    elif boxes is not None:
        finder = BoxesFile(boxes)
    elif person is not None:
        finder = HogPeople() if person == "hog" else FullFrame()
    else:
        finder, reason = _default_finder()
    return finder, f"people are found by {finder.description}{reason}"


def _default_finder() -> tuple[PersonFinder, str]:
    if hog_available():
        # HOG knows whole, upright people only; one who sits before the camera would never be found.
        return FirstToFind((HogPeople(), FullFrame())), ", as no detector was given"
    version = import_cv2(purpose="finding people").__version__
    return FullFrame(), (
        f", as no detector was given and OpenCV {version} has no HOG; "
        "--detector FILE or --boxes FILE crop each person by itself"
    )
