"""People from a detector in an ONNX file, YOLOX- or YOLOv8-style.

YOLOX (arXiv 2107.08430) gives (1, A, 5 + classes): center, size, objectness, classes; in most files the boxes are
relative to the cells of its three grids, in others they are already in pixels. YOLOv8 gives (1, 4 + classes, A):
center and size in pixels, classes. Both have one anchor A a cell of the grids with strides 8, 16 and 32, the finest
first, row by row.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.backends import Arrays, BackendOptions, OnnxRuntimeBackend, TensorInfo
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import BackendError, ContractError, ModelFileError
from sfpp.runtime.images import Image, Placement, bgr_from_frame, padded, place_frame
from sfpp.runtime.imports import import_cv2
from sfpp.runtime.people.detections import Boxes, Detections, PersonFinder, cut_to_frame, kept_by_suppression
from sfpp.runtime.typed_json import dataclass_from_json

_DEFAULT_SIDE = 640  # of detectors whose input may have any size
_DTYPES = ("float32", "float16")
Style = Literal["yolox", "yolov8"]
Letterbox = Literal["top-left", "center"]
METADATA_KEY = "sfpp.detector"
_STRIDES = (8, 16, 32)
_MIN_SCORE = 0.4
_MAX_IOU = 0.6  # of people that overlap by more than this only the surest stays
_LARGEST_EXPONENT = 20.0  # e^20 cells are wider than any picture, and no overflow


class OnnxDetector(PersonFinder):
    """People from a YOLOX- or YOLOv8-style detector.

    The style is told from the metadata ``sfpp.detector`` (see :class:`DetectorContract`), else from the shapes that a
    first run on an empty picture gives.

    Args:
        path: the .onnx file; its input is (1, 3, height, width) floating point.
        threads: threads within an operator; None leaves the choice to the backend.

    Raises:
        ModelFileError: the file cannot be opened, or is a detector of neither style.
        ContractError: the metadata are malformed.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise ModelFileError(f"{path} is not a file; give a person detector as an ONNX file")
        self._backend = OnnxRuntimeBackend(self._path, BackendOptions(threads=threads))
        try:
            self._input = _image_input(self._backend.inputs, self._path)
            self._output_name, self._contract = self._first_run()
        except BaseException:
            self._backend.close()
            raise

    @property
    def description(self) -> str:
        """File, style, size and library."""
        size = f"{self._input.width}x{self._input.height}"
        return f"{self._path.name} ({self._contract.style} style, {size}) in {self._backend.description}"

    def find(self, frame_bgr: NDArray[Any], *, index: int = 0, name: str = "") -> Detections:
        """Find the people in a frame; see :class:`PersonFinder`.

        Raises:
            MediaError: not an image.
            BackendError: the model failed, or gave NaN.
        """
        tensor, placement = letterboxed(bgr_from_frame(frame_bgr), self._contract, self._input)
        output = self._infer(tensor)[self._output_name]
        boxes_xywh, scores = people_from_output(output, self._contract, self._input.size_hw)
        if np.isnan(scores).any() or np.isnan(boxes_xywh).any():
            raise BackendError(f"{self.description} gave NaN; if it is a file of lower precision, try the FP32 one")
        sure = scores >= _MIN_SCORE
        boxes_xywh, scores = boxes_in_frame(boxes_xywh[sure], placement), scores[sure]
        inside = (boxes_xywh[:, 2:] > 0).all(axis=1)
        boxes_xywh, scores = boxes_xywh[inside], scores[inside]
        kept = kept_by_suppression(boxes_xywh, scores, max_iou=_MAX_IOU)
        # Scores come from a foreign graph, in which nothing says that they end at 1.
        return Detections(boxes_xywh[kept], np.minimum(scores[kept], 1))

    def close(self) -> None:
        """Release the model."""
        self._backend.close()

    def _infer(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Run on (1, 3, height, width) float32, in the type that the model takes."""
        return self._backend.run({self._input.name: tensor.astype(self._backend.inputs[0].dtype, copy=False)})

    def _first_run(self) -> tuple[str, DetectorContract]:
        """Tell the style, and which output has it, from a run on an empty picture: declared shapes may be symbolic."""
        text = self._backend.metadata.get(METADATA_KEY)
        given = None if text is None else detector_contract_from_json(text, origin=self._path.name)
        outputs = self._infer(np.zeros(self._input.shape, np.float32))
        for name, values in outputs.items():
            style = style_of_output(values.shape, self._input.size_hw)
            if style is not None and (given is None or given.style == style):
                contract = given or STYLES[style]
                classes = values.shape[2] - 5 if style == "yolox" else values.shape[1] - 4
                if contract.person_class >= classes:
                    raise ModelFileError(
                        f"{self._path} has {classes} classes, but its contract has the person_class "
                        f"{contract.person_class}, counted from 0"
                    )
                return name, contract
        raise ModelFileError(_no_style(self._path, outputs, self._input.size_hw, given))


def _image_input(inputs: Sequence[TensorInfo], path: Path) -> InputSpec:
    """Return the one input; a height or width that is open becomes the usual one."""
    sides = [side or _DEFAULT_SIDE for each in inputs for side in each.shape[2:]]
    if len(inputs) != 1 or len(sides) != 2 or inputs[0].dtype not in _DTYPES or not inputs[0].fits((1, 3, *sides)):
        takes = ", ".join(f"{each.name}: {each.dtype} {each.size}" for each in inputs)
        raise ModelFileError(
            f"{path} takes {takes}, expected one input of floating point numbers, (1, 3, height, width); "
            "export the detector with batch 1"
        )
    height, width = sides
    return InputSpec(inputs[0].name, height, width, layout="NCHW", dtype="float32")


def _no_style(path: Path, outputs: Arrays, size_hw: tuple[int, int], given: DetectorContract | None) -> str:
    shapes = ", ".join(f"{name} {'x'.join(map(str, values.shape))}" for name, values in outputs.items())
    anchors = _anchors(size_hw)
    expected = {
        "yolox": f"1x{anchors}x(5 + classes) as YOLOX gives",
        "yolov8": f"1x(4 + classes)x{anchors} as YOLOv8 gives",
    }
    wanted = [text for style, text in expected.items() if given is None or style == given.style]
    return (
        f"{path} gives {shapes} for an input {size_hw[1]} wide and {size_hw[0]} high, expected {' or '.join(wanted)}: "
        "export such a detector without non-maximum suppression in the graph"
    )


def letterboxed(image_bgr: Image, contract: DetectorContract, spec: InputSpec) -> tuple[NDArray[np.float32], Placement]:
    """Make a detector's input from a frame, with the frame's aspect ratio kept.

    Args:
        image_bgr: (H, W, 3) uint8 BGR.
        contract: color order, normalization, and where the frame lies amid which padding.
        spec: name and size of the input.

    Returns:
        (1, 3, height, width) float32, and where the frame lies in it.
    """
    placement = place_frame(image_bgr.shape[:2], spec)
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


@dataclass(frozen=True)
class DetectorContract:
    """How a detector is fed and read: JSON under ``sfpp.detector`` in the file's metadata, or told from its shapes.

    ``mean`` and ``std`` are on the 0..255 scale, in ``color_order``. The frame keeps its aspect ratio and lies in the
    ``letterbox`` place of the input, amid ``pad_value``. ``decoded`` says whether a YOLOX gives pixels; None tells it
    from the numbers.
    """

    style: Style
    person_class: int = 0
    color_order: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    letterbox: Letterbox = "center"
    pad_value: int = 114
    decoded: bool | None = None

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.mean)) or not all(0 < value < math.inf for value in self.std):
            raise ContractError("the detector's contract cannot be right: mean must be finite and std positive")
        if self.person_class < 0 or not 0 <= self.pad_value <= 255:
            raise ContractError("the detector's contract cannot be right: person_class from 0, pad_value 0 to 255")


STYLES: dict[Style, DetectorContract] = {
    "yolox": DetectorContract("yolox", color_order="BGR", std=(1.0, 1.0, 1.0), letterbox="top-left"),
    "yolov8": DetectorContract("yolov8"),
}


def detector_contract_from_json(text: str, *, origin: str) -> DetectorContract:
    """Read a detector's contract; what it does not say is as usual for its style.

    Raises:
        ContractError: not JSON, an unknown field, no style, or a value of the wrong type or range.
    """
    where = f"the detector's contract ({METADATA_KEY!r}) in {origin}"
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{where} is not valid JSON: {error}") from error
    known = vars(STYLES["yolox"])
    if not isinstance(fields, dict) or not fields.keys() <= known.keys():
        raise ContractError(f"{where} is {text[:200]}, expected a JSON object with the fields {', '.join(known)}")
    if fields.get("style") not in STYLES:
        raise ContractError(f"{where} has the style {fields.get('style')!r}, expected one of {', '.join(STYLES)}")
    usual = json.loads(json.dumps(vars(STYLES[fields["style"]])))  # in JSON's types, which are checked next
    return dataclass_from_json(DetectorContract, {**usual, **fields}, where=where)


def _anchors(input_size_hw: tuple[int, int]) -> int:
    return sum(rows * columns for rows, columns in _grids_hw(input_size_hw))


def style_of_output(shape: tuple[int, ...], input_size_hw: tuple[int, int]) -> Style | None:
    """Tell the style from the shape of an output; None if it is neither."""
    anchors = _anchors(input_size_hw)
    if len(shape) != 3 or shape[0] != 1:
        return None
    # YOLOv5 looks like YOLOX, but has three anchors a cell.
    if shape[1] == anchors and shape[2] >= 6:
        return "yolox"
    return "yolov8" if shape[2] == anchors and shape[1] >= 5 else None


def people_from_output(
    output: NDArray[Any], contract: DetectorContract, input_size_hw: tuple[int, int]
) -> tuple[Boxes, NDArray[np.float32]]:
    """Return all candidates for a person.

    Args:
        output: of the shape that belongs to the contract's style.
        contract: how to read it.
        input_size_hw: height and width of the model's input.

    Returns:
        Boxes (A, 4) float32, left, top, width, height in model pixels; and scores (A,) float32, 0..1.
    """
    values = output[0].astype(np.float32, copy=False)
    # The person's score alone counts: where another class is surer still, the pose model sees it soon enough.
    if contract.style == "yolov8":
        boxes_cxcywh, scores = values[:4].T, values[4 + contract.person_class]
    else:
        boxes_cxcywh, scores = values[:, :4], values[:, 4] * values[:, 5 + contract.person_class]
        decoded = _in_pixels(boxes_cxcywh) if contract.decoded is None else contract.decoded
        if not decoded:
            boxes_cxcywh = _decoded(boxes_cxcywh, input_size_hw)
    size_wh = boxes_cxcywh[:, 2:]
    return np.concatenate([boxes_cxcywh[:, :2] - size_wh / 2, size_wh], axis=1), scores


def _grids_hw(input_size_hw: tuple[int, int]) -> list[tuple[int, int]]:
    return [(input_size_hw[0] // stride, input_size_hw[1] // stride) for stride in _STRIDES]


def _in_pixels(boxes_cxcywh: NDArray[np.float32]) -> bool:
    """Every cell gives a box near itself: in pixels their median lies amid the picture, relative ones are about 0.5."""
    return bool(np.median(np.abs(boxes_cxcywh[:, :2])) > _STRIDES[0])


def _decoded(raw: NDArray[np.float32], input_size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Turn boxes relative to their cells into pixels: (offset + cell) * stride, and e^size * stride."""
    cells_xy, strides = [], []
    for stride, (rows, columns) in zip(_STRIDES, _grids_hw(input_size_hw), strict=True):
        y, x = np.mgrid[:rows, :columns]
        cells_xy.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full((rows * columns, 1), stride, np.float32))
    stride_of = np.concatenate(strides)
    center_xy = (raw[:, :2] + np.concatenate(cells_xy)) * stride_of
    size_wh = np.exp(np.minimum(raw[:, 2:], _LARGEST_EXPONENT)) * stride_of
    return np.concatenate([center_xy, size_wh], axis=1).astype(np.float32)
