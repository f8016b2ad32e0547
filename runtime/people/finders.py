"""Choosing how people are found; OpenCV's own people detector, which needs no file."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import BackendError, UsageError, check_known
from sfpp.runtime.images import bgr_from_frame
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.people.boxes_file import BoxesFile
from sfpp.runtime.people.detections import (
    Detections,
    FirstToFind,
    FullFrame,
    PersonFinder,
    cut_to_frame,
    kept_by_suppression,
)
from sfpp.runtime.people.detector import OnnxDetector

PersonKind = Literal["hog", "full-frame"]
_PURPOSE = "finding people with HOG"
# The time grows with the pixels; at this size people down to a sixth of the frame's height are found.
_LONGEST_SIDE = 800
_SCALE_STEP = 1.05
_STRIDE = (8, 8)
# Windows are 64x128 (width x height), of which 16 pixels on every side are margin (Dalal and Triggs 2005).
_WINDOW_WH = (64, 128)
_MARGIN_SHARE_XY = (16 / 64, 16 / 128)
_MIN_MARGIN = 0.5  # distance from the classifier's boundary below which a detection is dropped
_MAX_IOU = 0.5  # of people that overlap by more than this only one stays


def choose_finder(
    *,
    detector: str | os.PathLike[str] | None = None,
    boxes: str | os.PathLike[str] | None = None,
    person: PersonKind | None = None,
    person_class: str | int | None = None,
    threads: int | None = None,
) -> tuple[PersonFinder, str]:
    """Choose a finder: the one that is asked for, else HOG where OpenCV has it, else the full frame.

    Args:
        detector: an ONNX file.
        boxes: a COCO-style file.
        person: ``hog`` or ``full-frame``.
        person_class: which of the classes of the detector or of the boxes is a person, by name or number; None goes by
            the names in the file.
        threads: for the detector, threads within an operator.

    Returns:
        The finder, and one line that says which was chosen and why.

    Raises:
        UsageError: more than one is asked for, a ``person`` that is neither, or a class of nothing.
        SfppError: the detector or the boxes cannot be opened.
        BackendError: HOG is asked for, and this OpenCV lacks it.
        MissingDependencyError: OpenCV or ONNX Runtime is not installed.
    """
    if sum(way is not None for way in (detector, boxes, person)) > 1:
        raise UsageError("people can be found in one way only: give either a detector, or boxes, or person")
    if person_class is not None and detector is None and boxes is None:
        raise UsageError("person_class is a class of a detector or of boxes, and neither is given; give one of them")
    if person is not None:
        check_known("person", person, get_args(PersonKind))
    reason = ""
    finder: PersonFinder
    if detector is not None:
        finder = OnnxDetector(detector, person_class=person_class, threads=threads)
    elif boxes is not None:
        finder = BoxesFile(boxes, person_class=person_class)
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


def hog_available() -> bool:
    """Whether this OpenCV has the detector: 4 has it, plain 5 lost it to the contrib modules."""
    return hasattr(import_cv2(purpose=_PURPOSE), "HOGDescriptor")


class HogPeople(PersonFinder):
    """People from OpenCV's HOG detector.

    Raises:
        BackendError: this OpenCV has no HOG detector.
        MissingDependencyError: OpenCV is not installed.
    """

    def __init__(self) -> None:
        cv2 = import_cv2(purpose=_PURPOSE)
        if not hog_available():
            raise BackendError(
                f"OpenCV {cv2.__version__} has no HOG people detector (plain OpenCV 5 dropped it): give --detector "
                "with an ONNX file, --boxes with a file of boxes, or --person full-frame; or install "
                "opencv-contrib-python-headless or an OpenCV 4"
            )
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())

    @property
    def description(self) -> str:
        """The detector and the library's version."""
        return f"the HOG people detector of OpenCV {import_cv2(purpose=_PURPOSE).__version__}"

    def find(self, frame_bgr: NDArray[Any], *, index: int = 0, name: str = "") -> Detections:
        """Find upright people; see :class:`PersonFinder`. Scores are margins m as m / (1 + m)."""
        image = bgr_from_frame(frame_bgr)
        small, scale = _shrunk(image)
        if small.shape[1] < _WINDOW_WH[0] or small.shape[0] < _WINDOW_WH[1]:  # OpenCV fails on them
            return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32))
        windows, margins = self._hog.detectMultiScale(small, winStride=_STRIDE, scale=_SCALE_STEP)
        boxes_xywh = _without_margin(np.asarray(windows, np.float32).reshape(-1, 4)) / np.float32(scale)
        return self._detections(boxes_xywh, np.asarray(margins, np.float32).reshape(-1), image.shape[:2])

    def _detections(
        self, boxes_xywh: NDArray[np.float32], margins: NDArray[np.float32], frame_size_hw: tuple[int, int]
    ) -> Detections:
        sure = margins >= _MIN_MARGIN
        boxes_xywh, margins = cut_to_frame(boxes_xywh[sure], frame_size_hw), margins[sure]
        kept = kept_by_suppression(boxes_xywh, margins, max_iou=_MAX_IOU)
        return Detections(boxes_xywh[kept], margins[kept] / (1 + margins[kept]))


def _shrunk(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """Return the picture with its longer side limited, and its pixels per pixel of the original."""
    scale = _LONGEST_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image, 1.0
    cv2 = import_cv2(purpose=_PURPOSE)
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), scale


def _without_margin(windows_xywh: NDArray[np.float32]) -> NDArray[np.float32]:
    margin_xy = windows_xywh[:, 2:] * np.array(_MARGIN_SHARE_XY, np.float32)
    return np.concatenate([windows_xywh[:, :2] + margin_xy, windows_xywh[:, 2:] - 2 * margin_xy], axis=1)
