"""What a detector's outputs mean: told from their shapes and the file's metadata, read as boxes of people.

Three styles give a candidate for each anchor of their grids with strides 8, 16, 32 and, in large models, 64, the finest
first, row by row. YOLOX (arXiv 2107.08430) gives (1, A, 5 + classes): center, size, objectness, classes; in most files
the boxes are relative to the cells, in others they are already in pixels. YOLOv5 gives the same in pixels, with three
anchors a cell. YOLOv8 gives (1, 4 + classes, A): center and size in pixels, classes.

Three have chosen already. YOLOv10 gives (1, N, 6): left, top, right, bottom, score, class; so do YOLO26, and others
that were exported with their suppression. RTMDet gives (1, N, 5), the same without the class, and (1, N) classes.
RT-DETR gives classes, (1, N, 4) boxes and scores, or in one output (1, N, 4 + classes) center, size and classes.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.backends import Arrays
from sfpp.runtime.errors import BackendError, ContractError
from sfpp.runtime.people.detections import Boxes
from sfpp.runtime.typed_json import dataclass_from_json, json_from_text

Style = Literal["yolox", "yolov5", "yolov8", "yolov10", "rtmdet", "rtdetr"]
Letterbox = Literal["top-left", "center", "stretch"]
METADATA_KEY = "sfpp.detector"
MIN_SCORE = 0.4
_STRIDES = (8, 16, 32, 64)
_FEWEST_STRIDES = 3
_ANCHORS_A_CELL = {"yolov5": 3}
_LARGEST_EXPONENT = 20.0  # e^20 cells are wider than any picture, and no overflow
_SCORE_SLACK = 0.01  # half precision rounds beyond 0 and 1
# In pixels nobody is within two of the corner; relative to the input, 0..1, everybody is.
_LARGEST_RELATIVE = 2.0
_LONGEST_NAMES = 200_000  # characters; parsing takes hundreds of times the memory
_NAMES_KEYS = ("names", "class_names", "classes", "labels")


@dataclass(frozen=True)
class DetectorContract:
    """How a detector is fed and read: JSON under ``sfpp.detector`` in the file's metadata, or told from its shapes.

    ``mean`` and ``std`` are on the 0..255 scale, in ``color_order``. The frame keeps its aspect ratio and lies in the
    ``letterbox`` place of the input, amid ``pad_value``, or is stretched to fill it. ``person_class`` counts from 0;
    None tells it from the classes' names. ``decoded`` says whether a YOLOX gives pixels; None tells it from the
    numbers.
    """

    style: Style
    person_class: int | None = None
    color_order: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    letterbox: Letterbox = "center"
    pad_value: int = 114
    decoded: bool | None = None

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.mean)) or not all(0 < value < math.inf for value in self.std):
            raise ContractError("the detector's contract cannot be right: mean must be finite and std positive")
        if (self.person_class or 0) < 0 or not 0 <= self.pad_value <= 255:
            raise ContractError("the detector's contract cannot be right: person_class from 0, pad_value 0 to 255")


STYLES: dict[Style, DetectorContract] = {
    "yolox": DetectorContract("yolox", color_order="BGR", std=(1.0, 1.0, 1.0), letterbox="top-left"),
    "yolov5": DetectorContract("yolov5"),
    "yolov8": DetectorContract("yolov8"),
    "yolov10": DetectorContract("yolov10"),
    "rtmdet": DetectorContract(
        "rtmdet",
        color_order="BGR",
        mean=(103.53, 116.28, 123.675),
        std=(57.375, 57.12, 58.395),
        letterbox="top-left",
    ),
    "rtdetr": DetectorContract("rtdetr", letterbox="stretch"),
}


def detector_contract_from_json(text: str, *, origin: str) -> DetectorContract:
    """Read a detector's contract; what it does not say is as usual for its style.

    Raises:
        ContractError: not JSON, an unknown field, no style, or a value of the wrong type or range.
    """
    where = f"the detector's contract ({METADATA_KEY!r}) in {origin}"
    fields = json_from_text(text, where=where, raising=ContractError)
    known = vars(STYLES["yolox"])
    if not isinstance(fields, dict) or not fields.keys() <= known.keys():
        raise ContractError(f"{where} is {text[:200]}, expected a JSON object with the fields {', '.join(known)}")
    style = fields.get("style")
    if not isinstance(style, str) or style not in STYLES:
        raise ContractError(f"{where} has the style {style!r}, expected one of {', '.join(STYLES)}")
    usual = json.loads(json.dumps(vars(STYLES[style])))  # in JSON's types, which are checked next
    return dataclass_from_json(DetectorContract, {**usual, **fields}, where=where)


def class_names_from(metadata: Mapping[str, str]) -> dict[int, str]:
    """Return the classes' names by number, as exporters write them; empty where there are none.

    They may be a list or a dictionary, in JSON or as Python writes it, or words between commas or on lines.

    Raises:
        ContractError: the text is far longer than names are.
    """
    text = next((metadata[key] for key in _NAMES_KEYS if metadata.get(key, "").strip()), "")
    if len(text) > _LONGEST_NAMES:
        raise ContractError(
            f"the detector's class names have {len(text)} characters, expected at most {_LONGEST_NAMES}; export it "
            "again with short ones"
        )
    names = _literal(text)
    if not isinstance(names, dict | list | tuple):
        names = [word.strip() for word in text.replace("\n", ",").split(",") if word.strip()] if names is None else ()
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    found = ((str(number), name) for number, name in pairs if isinstance(number, int | str))
    # More digits than a class's number has are none.
    return {int(number): str(name) for number, name in found if re.fullmatch(r"\d{1,6}", number)}


def _literal(text: str) -> Any:
    """Return what a text of Python or JSON says; None where it is neither, or holds a number beyond any use."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in it that Python does not know
            value = ast.literal_eval(text)
        str(value)  # Python writes no integer of more than 4300 digits
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value


def style_of_output(
    shape: tuple[int, ...], input_size_hw: tuple[int, int], *, classes: int = 0, more: bool = False
) -> Style | None:
    """Tell the style from the shape of one output; None if it has none.

    Args:
        shape: of the output.
        input_size_hw: height and width of the model's input.
        classes: how many the file names, 0 if none.
        more: whether each row goes on behind the classes, for masks or keypoints.
    """
    if len(shape) != 3 or shape[0] != 1:
        return None
    for style in ("yolox", "yolov5"):
        if strides_of(shape[1], input_size_hw, style) and shape[2] >= 6:
            return style
    if strides_of(shape[2], input_size_hw, "yolov8") and shape[1] >= 5:
        return "yolov8"
    if classes and not more and shape[2] == 4 + classes and classes != 2:
        return "rtdetr"
    return "yolov10" if shape[2] == 6 or (shape[2] > 6 and more) else None


def style_of_outputs(
    outputs: Arrays,
    input_size_hw: tuple[int, int],
    *,
    wanted: Style | None = None,
    sized: bool = False,
    classes: int = 0,
    more: bool = False,
) -> tuple[Style, tuple[str, ...]] | None:
    """Tell the style from all outputs, and the names of those that have it: of one, or of boxes, scores and classes.

    Args:
        outputs: of a run.
        input_size_hw: height and width of the model's input.
        wanted: the style, if it is known; None tells it.
        sized: whether the model takes the frame's size too, as RT-DETR does.
        classes: see :func:`style_of_output`.
        more: likewise.
    """
    by_shape = {name: values.shape for name, values in outputs.items()}
    for name, shape in by_shape.items():
        style = style_of_output(shape, input_size_hw, classes=classes, more=more)
        if style is not None and wanted in (None, style):
            return style, (name,)
    boxes = [name for name, shape in by_shape.items() if len(shape) == 3 and shape[0] == 1 and shape[2] in (4, 5)]
    if len(boxes) != 1:
        return None
    count, columns = by_shape[boxes[0]][1:]
    beside = [name for name, shape in by_shape.items() if shape == (1, count)]
    labels = [name for name in beside if outputs[name].dtype.kind in "iu" or "label" in name or "class" in name]
    scores = [name for name in beside if name not in labels]
    if columns == 5 and len(labels) == 1 and wanted in (None, "rtmdet"):
        return "rtmdet", (boxes[0], labels[0])
    if columns == 4 and len(labels) == len(scores) == 1 and (wanted == "rtdetr" or (sized and wanted is None)):
        return "rtdetr", (boxes[0], scores[0], labels[0])
    return None


def expected_outputs(size_hw: tuple[int, int], given: Style | None) -> str:
    """Say which outputs are read, for an input of this size; of one style where it is given."""
    anchors = sum(rows * columns for rows, columns in _grids_hw(size_hw, _STRIDES[:_FEWEST_STRIDES]))
    expected: dict[Style, str] = {
        "yolox": f"1x{anchors}x(5 + classes) as YOLOX gives",
        "yolov5": f"1x{3 * anchors}x(5 + classes) as YOLOv5 gives",
        "yolov8": f"1x(4 + classes)x{anchors} as YOLOv8 gives",
        "yolov10": "1xNx6 as YOLOv10 gives",
        "rtmdet": "1xNx5 and 1xN as RTMDet gives",
        "rtdetr": "1xNx4, 1xN and 1xN as RT-DETR gives, which takes the frame's size",
    }
    return ", or ".join(text for style, text in expected.items() if given in (None, style))


def classes_of(style: Style, shape: tuple[int, ...]) -> int | None:
    """Return for how many classes the first output has room; None where it gives their numbers."""
    if style == "yolov8":
        return shape[1] - 4
    if style in ("yolox", "yolov5"):
        return shape[2] - 5
    return shape[2] - 4 if style == "rtdetr" and shape[2] > 4 else None


def people_from_outputs(
    outputs: Sequence[NDArray[Any]], contract: DetectorContract, person_class: int, input_size_hw: tuple[int, int]
) -> tuple[Boxes, NDArray[np.float32]]:
    """Return all candidates for a person.

    Args:
        outputs: of the shapes that belong to the contract's style.
        contract: how to read them.
        person_class: from 0.
        input_size_hw: height and width of the model's input.

    Returns:
        Boxes (A, 4) float32, left, top, width, height in model pixels; and scores (A,) float32, 0..1.

    Raises:
        BackendError: the numbers cannot be what the style gives.
    """
    values = outputs[0][0].astype(np.float32, copy=False)
    if len(outputs) > 1 or contract.style == "yolov10":
        boxes_xywh, scores = _chosen(values, [each[0] for each in outputs[1:]], person_class)
    else:
        boxes_xywh, scores = _candidates(values, contract, person_class, input_size_hw)
    if scores.size and scores.max() > 1 + _SCORE_SLACK:
        raise BackendError(_no_scores(scores))
    sure = boxes_xywh[scores >= MIN_SCORE]
    if contract.style != "yolox" and sure.size and np.abs(sure).max() <= _LARGEST_RELATIVE:
        boxes_xywh = boxes_xywh * np.array(input_size_hw[::-1] * 2, np.float32)
    return boxes_xywh, scores


def _candidates(
    values: NDArray[np.float32], contract: DetectorContract, person: int, input_size_hw: tuple[int, int]
) -> tuple[Boxes, NDArray[np.float32]]:
    """Read center, size and classes of each anchor or query."""
    # The person's score alone counts: where another class is surer still, the pose model sees it soon enough.
    if contract.style == "yolov8":
        boxes_cxcywh, scores = values[:4].T, values[4 + person]
    elif contract.style == "rtdetr":
        boxes_cxcywh, scores = values[:, :4], values[:, 4 + person]
    else:
        boxes_cxcywh, scores = values[:, :4], values[:, 4] * values[:, 5 + person]
        decoded = contract.style == "yolov5" or contract.decoded
        if not (_in_pixels(boxes_cxcywh) if decoded is None else decoded):
            boxes_cxcywh = _decoded(boxes_cxcywh, input_size_hw)
    if scores.size and scores.min() < -_SCORE_SLACK:
        raise BackendError(_no_scores(scores))
    size_wh = boxes_cxcywh[:, 2:]
    return np.concatenate([boxes_cxcywh[:, :2] - size_wh / 2, size_wh], axis=1), scores


def _chosen(
    values: NDArray[np.float32], beside: Sequence[NDArray[Any]], person: int
) -> tuple[Boxes, NDArray[np.float32]]:
    """Read left, top, right, bottom, score and class of what was chosen in the graph; rows of no score are empty."""
    if not beside:
        scores, labels = values[:, 4], values[:, 5]
    else:
        scores, labels = values[:, 4] if len(beside) == 1 else beside[0].astype(np.float32), beside[-1]
    sure = scores >= MIN_SCORE
    size_wh = values[:, 2:4] - values[:, :2]
    if (size_wh[sure] < 0).any() or not np.array_equal(labels, np.round(labels), equal_nan=True):
        raise BackendError(
            "the detector's numbers are in no known order: expected left, top, right, bottom and the score of each "
            "person, and the number of the class as a whole one"
        )
    return np.concatenate([values[:, :2], size_wh], axis=1), np.where(labels == person, scores, np.float32(0))


def _no_scores(scores: NDArray[np.float32]) -> str:
    return (
        f"the detector gave scores from {scores.min():.3g} to {scores.max():.3g}, expected 0 to 1; "
        "export it with the sigmoid of its scores in the graph"
    )


def strides_of(anchors: int, input_size_hw: tuple[int, int], style: Style) -> tuple[int, ...]:
    """Return the strides of the grids that have so many anchors; none if that is no number of theirs."""
    for count in range(_FEWEST_STRIDES, len(_STRIDES) + 1):
        cells = sum(rows * columns for rows, columns in _grids_hw(input_size_hw, _STRIDES[:count]))
        if anchors == cells * _ANCHORS_A_CELL.get(style, 1) > 0:
            return _STRIDES[:count]
    return ()


def _grids_hw(input_size_hw: tuple[int, int], strides: Sequence[int]) -> list[tuple[int, int]]:
    return [(input_size_hw[0] // stride, input_size_hw[1] // stride) for stride in strides]


def _in_pixels(boxes_cxcywh: NDArray[np.float32]) -> bool:
    """Every cell gives a box near itself: in pixels their median lies amid the picture, relative ones are about 0.5."""
    return bool(np.median(np.abs(boxes_cxcywh[:, :2])) > _STRIDES[0])


def _decoded(raw: NDArray[np.float32], input_size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Turn boxes relative to their cells into pixels: (offset + cell) * stride, and e^size * stride."""
    cells_xy, stride_of = [], []
    strides = strides_of(len(raw), input_size_hw, "yolox")
    for stride, (rows, columns) in zip(strides, _grids_hw(input_size_hw, strides), strict=True):
        y, x = np.mgrid[:rows, :columns]
        cells_xy.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        stride_of.append(np.full((rows * columns, 1), stride, np.float32))
    scale = np.concatenate(stride_of)
    center_xy = (raw[:, :2] + np.concatenate(cells_xy)) * scale
    size_wh = np.exp(np.minimum(raw[:, 2:], _LARGEST_EXPONENT)) * scale
    return np.concatenate([center_xy, size_wh], axis=1).astype(np.float32)
