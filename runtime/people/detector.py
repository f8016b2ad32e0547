"""People from a detector in an ONNX file, of the YOLO, RTMDet and RT-DETR families."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.backends import Arrays, BackendOptions, OnnxRuntimeBackend, TensorInfo
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import BackendError, ModelFileError, UsageError
from sfpp.runtime.images import Image, Placement, bgr_from_frame, padded, place_frame
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.limits import advice, limit
from sfpp.runtime.people.detections import (
    Boxes,
    Detections,
    PersonFinder,
    cut_to_frame,
    kept_by_suppression,
    person_among,
)
from sfpp.runtime.people.detector_output import (
    METADATA_KEY,
    MIN_SCORE,
    STYLES,
    DetectorContract,
    Style,
    class_names_from,
    classes_of,
    detector_contract_from_json,
    expected_outputs,
    people_from_outputs,
    style_of_outputs,
)

_DEFAULT_SIDE = 640  # of detectors whose input may have any size
_DTYPES = ("float32", "float16")
_MAX_IOU = 0.6  # of people that overlap by more than this only the surest stays
_TASKS = ("detect", "segment", "pose")
_SIZE_KEY = "imgsz"
_COCO_CLASSES = 80


class OnnxDetector(PersonFinder):
    """People from a detector.

    Its style is told from the metadata ``sfpp.detector`` (see :class:`DetectorContract`), else from the shapes that a
    first run on an empty picture gives; which class is a person from the classes' names in the metadata.

    Args:
        path: the .onnx file; its input is (1, 3, height, width) floating point, beside which there may be the frame's
            size, (1, 2) integers.
        person_class: the class that is a person, by name or by number from 0; None goes by the names, and takes 0 where
            there are none and the classes may be COCO's.
        threads: threads within an operator; None leaves the choice to the backend.

    Raises:
        ModelFileError: the file cannot be opened, or is a detector of no known style.
        UsageError: which class is a person cannot be told.
        ContractError: the metadata are malformed.
        BackendError: the outputs cannot be boxes and scores.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        person_class: str | int | None = None,
        threads: int | None = None,
    ) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise ModelFileError(f"{path} is not a file; give a person detector as an ONNX file")
        self._backend = OnnxRuntimeBackend(self._path, BackendOptions(threads=threads))
        try:
            self._names = class_names_from(self._backend.metadata)
            self._input, self._sizes = _image_input(self._backend.inputs, self._backend.metadata, self._path)
            self._first_run(person_class)
        except BaseException:
            self._backend.close()
            raise

    @property
    def description(self) -> str:
        """File, style, size, how it is fed, which class is a person, and the library."""
        contract, person = self._contract, self._person
        feeding = f"{self._input.width}x{self._input.height} {contract.color_order} {_range_of(contract)}"
        which = (
            f"{person} {self._names[person]!r}" if person in self._names else f"{person}, as its classes have no names"
        )
        return f"{self._path.name} ({contract.style} style, {feeding}, class {which}) in {self._backend.description}"

    def find(self, frame_bgr: NDArray[Any], *, index: int = 0, name: str = "") -> Detections:
        """Find the people in a frame; see :class:`PersonFinder`.

        Raises:
            MediaError: not an image.
            BackendError: the model failed, or gave NaN, or numbers that are no boxes or scores.
        """
        tensor, placement = letterboxed(bgr_from_frame(frame_bgr), self._contract, self._input)
        boxes_xywh, scores = self._people(self._infer(tensor))
        if np.isnan(scores).any() or np.isnan(boxes_xywh).any():
            raise BackendError(f"{self.description} gave NaN; if it is a file of lower precision, try the FP32 one")
        sure = scores >= MIN_SCORE
        boxes_xywh, scores = boxes_in_frame(boxes_xywh[sure], placement), scores[sure]
        inside = (boxes_xywh[:, 2:] > 0).all(axis=1)
        boxes_xywh, scores = boxes_xywh[inside], scores[inside]
        kept = kept_by_suppression(boxes_xywh, scores, max_iou=_MAX_IOU)
        return Detections(boxes_xywh[kept], np.minimum(scores[kept], 1))

    def close(self) -> None:
        """Release the model."""
        self._backend.close()

    def _infer(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Run on (1, 3, height, width) float32, in the type that the model takes."""
        inputs: dict[str, NDArray[Any]] = {}
        for each in self._backend.inputs:
            # The size of the frame is said to be that of the input, so that boxes come in its pixels.
            size_wh = self._input.size_hw[::-1] if each.name == self._sizes else None
            inputs[each.name] = (tensor if size_wh is None else np.array([size_wh])).astype(each.dtype, copy=False)
        return self._backend.run(inputs)

    def _people(self, outputs: Arrays) -> tuple[Boxes, NDArray[np.float32]]:
        values = [outputs[name] for name in self._output_names]
        try:
            return people_from_outputs(values, self._contract, self._person, self._input.size_hw)
        except BackendError as error:
            raise BackendError(f"{self._path}: {error}") from error

    def _first_run(self, person_class: str | int | None) -> None:
        """Tell all from a run on an empty picture: declared shapes may be symbolic."""
        metadata, size_hw, where = self._backend.metadata, self._input.size_hw, str(self._path)
        text, task = metadata.get(METADATA_KEY), metadata.get("task", "detect")
        given = None if text is None else detector_contract_from_json(text, origin=self._path.name)
        wanted = None if given is None else given.style
        if task not in _TASKS:
            raise ModelFileError(f"{where} is a model for the task {task!r}, expected one of {', '.join(_TASKS)}")
        outputs = self._infer(np.zeros(self._input.shape, np.float32))
        more = task != "detect" or any(values.ndim == 4 for values in outputs.values())  # as prototypes of masks have
        found = style_of_outputs(
            outputs, size_hw, wanted=wanted, sized=self._sizes is not None, classes=len(self._names), more=more
        )
        if found is None:
            shapes = ", ".join(f"{name} {'x'.join(map(str, values.shape))}" for name, values in outputs.items())
            raise ModelFileError(
                f"{where} gives {shapes} for an input {size_hw[1]} wide and {size_hw[0]} high, expected "
                f"{expected_outputs(size_hw, wanted)}; export the detector in such a form"
            )
        style, self._output_names = found
        self._contract = given or _usual_contract(style, self._path)
        room = classes_of(style, outputs[self._output_names[0]].shape)
        self._person = self._person_class(person_class, room, more=more)
        self._people(outputs)  # numbers that cannot be scores show at once

    def _person_class(self, given: str | int | None, room: int | None, *, more: bool) -> int:
        """Tell which class is a person, where the outputs have ``room`` for so many, and perhaps ``more`` behind."""
        names, where = self._names, self._path
        count = 1 + max(names, default=-1)
        if room is not None and names and room != count and not (more and room > count):
            raise ModelFileError(f"{where} names {count} classes, but its outputs have room for {room}")
        person = person_among(names, self._contract.person_class if given is None else given, where=str(where))
        if person is None and room not in (None, 1, _COCO_CLASSES):
            raise UsageError(
                f"{where} has {room} classes and names none; say which one is a person, with --person-class NUMBER"
            )
        if (person or 0) >= (room or math.inf):
            raise ModelFileError(f"{where} has {room} classes, but its person_class is {person}, counted from 0")
        return person or 0


def _image_input(inputs: Sequence[TensorInfo], metadata: Mapping[str, str], path: Path) -> tuple[InputSpec, str | None]:
    """Return the frame's input, with the usual size or the exporter's where it is open; and the input for the size."""
    images = [each for each in inputs if len(each.shape) == 4]
    sizes = [each.name for each in inputs if each.fits((1, 2)) and each.dtype in ("int64", "int32")]
    told = re.fullmatch(r"\[([1-9]\d{1,3}), ([1-9]\d{1,3})\]", metadata.get(_SIZE_KEY, ""))
    usual = (int(told[1]), int(told[2])) if told else (_DEFAULT_SIDE, _DEFAULT_SIDE)
    sides = [side or other for each in images for side, other in zip(each.shape[2:], usual, strict=False)]
    fits = len(sides) == 2 and images[0].dtype in _DTYPES and images[0].fits((1, 3, *sides))
    if not fits or len(inputs) != 1 + len(sizes) or len(sizes) > 1:
        takes = ", ".join(f"{each.name}: {each.dtype} {each.size}" for each in inputs)
        raise ModelFileError(
            f"{path} takes {takes}, expected one input of floating point numbers, (1, 3, height, width), and at most "
            "the frame's size beside it, (1, 2) integers; export the detector with batch 1"
        )
    height, width = sides
    if min(sides) < 1 or height * width > limit("PIXELS"):
        raise ModelFileError(
            f"{path} takes pictures of {width}x{height} pixels (width x height), which none has; export the detector "
            f"with the size that it was trained at, or {advice('PIXELS')}"
        )
    return InputSpec(images[0].name, height, width, layout="NCHW", dtype="float32"), next(iter(sizes), None)


def _usual_contract(style: Style, path: Path) -> DetectorContract:
    """Return how a detector of a style is fed; those that MMDeploy writes of YOLOX give what RTMDet gives."""
    if style == "rtmdet" and "yolox" in f"{path.parent.name} {path.name}".casefold():
        return replace(STYLES["yolox"], style=style)
    return STYLES[style]


def _range_of(contract: DetectorContract) -> str:
    if any(contract.mean):
        return "normalized"
    return f"0 to {255 / contract.std[0]:g}"


def letterboxed(image_bgr: Image, contract: DetectorContract, spec: InputSpec) -> tuple[NDArray[np.float32], Placement]:
    """Make a detector's input from a frame, whose aspect ratio is kept unless the contract says that it is stretched.

    Args:
        image_bgr: (H, W, 3) uint8 BGR.
        contract: color order, normalization, and where the frame lies amid which padding.
        spec: name and size of the input.

    Returns:
        (1, 3, height, width) float32, and where the frame lies in it.
    """
    stretched = contract.letterbox == "stretch"
    placement = place_frame(image_bgr.shape[:2], replace(spec, resize="stretch") if stretched else spec)
    if contract.letterbox == "top-left":
        placement = replace(placement, top=0, left=0)
    cv2 = import_cv2(purpose="preparing a detector's input")
    # Linear even when it shrinks a lot, unlike for segmentation: detectors are trained with it.
    resized = cv2.resize(image_bgr, (placement.width, placement.height), interpolation=cv2.INTER_LINEAR)
    canvas = padded(resized, placement, spec.size_hw, color=contract.pad_value)
    ordered = canvas if contract.color_order == "BGR" else canvas[..., ::-1]
    values = (ordered - np.array(contract.mean, np.float32)) / np.array(contract.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis]), placement


def boxes_in_frame(boxes_xywh: NDArray[Any], placement: Placement) -> Boxes:
    """Move boxes (P, 4), left, top, width, height, from model pixels to frame pixels, and cut them to the frame."""
    scale_xy = np.array(placement.scale_yx[::-1], np.float32)
    left_top = (boxes_xywh[:, :2] - np.array([placement.left, placement.top], np.float32)) / scale_xy
    boxes = np.concatenate([left_top, boxes_xywh[:, 2:] / scale_xy], axis=1)
    return cut_to_frame(boxes, placement.frame_size_hw)
