"""The outputs of YOLOX- and YOLOv8-style detectors as boxes with scores.

YOLOX (arXiv 2107.08430) gives (1, A, 5 + classes): center, size, objectness, classes; in most files the boxes are
relative to the cells of its three grids, in others they are already in pixels. YOLOv8 gives (1, 4 + classes, A):
center and size in pixels, classes. Both have one anchor A a cell of the grids with strides 8, 16 and 32, the finest
first, row by row.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import ContractError
from sfpp.runtime.people.boxes import Boxes
from sfpp.runtime.typed_json import dataclass_from_json

Style = Literal["yolox", "yolov8"]
Letterbox = Literal["top-left", "center"]

METADATA_KEY = "sfpp.detector"
_STRIDES = (8, 16, 32)
_LARGEST_EXPONENT = 20.0  # e^20 cells are wider than any picture, and no overflow


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


def style_of_output(shape: tuple[int, ...], input_size_hw: tuple[int, int]) -> Style | None:
    """Tell the style from the shape of an output; None if it is neither."""
    anchors = sum(rows * columns for rows, columns in _grids_hw(input_size_hw))
    if len(shape) != 3 or shape[0] != 1:
        return None
    # YOLOv5 looks like YOLOX, but has three anchors a cell.
    if shape[1] == anchors and shape[2] >= 6:
        return "yolox"
    return "yolov8" if shape[2] == anchors and shape[1] >= 5 else None


def class_count(shape: tuple[int, ...], style: Style) -> int:
    """How many classes an output of this shape has."""
    return shape[2] - 5 if style == "yolox" else shape[1] - 4


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
