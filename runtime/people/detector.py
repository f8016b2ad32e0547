"""People from a detector in an ONNX file, YOLOX- or YOLOv8-style."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.backends import Arrays, OnnxRuntimeBackend
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import BackendError, ModelFileError
from sfpp.runtime.images import bgr_from_frame
from sfpp.runtime.people.boxes import Boxes, kept_by_suppression
from sfpp.runtime.people.detections import Detections
from sfpp.runtime.people.detector_input import boxes_in_frame, letterboxed
from sfpp.runtime.people.detector_output import (
    METADATA_KEY,
    STYLES,
    DetectorContract,
    class_count,
    detector_contract_from_json,
    people_from_output,
    style_of_output,
)

_DEFAULT_SIDE = 640  # of detectors whose input may have any size
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxDetector:
    """People from a YOLOX- or YOLOv8-style detector.

    The style is told from the metadata ``sfpp.detector`` (see :class:`DetectorContract`), else from the shapes that a
    first run on an empty picture gives.

    Args:
        path: the .onnx file; its input is (1, 3, height, width) floating point.
        min_score: people of a lower score are dropped.
        max_iou: of people that overlap by more than this only the surest stays.
        threads: threads within an operator; None leaves the choice to the backend.

    Raises:
        ModelFileError: the file cannot be opened, or is a detector of neither style.
        ContractError: the metadata are malformed.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        min_score: float = 0.4,
        max_iou: float = 0.6,
        threads: int | None = None,
    ) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise ModelFileError(f"{path} is not a file; give a person detector as an ONNX file")
        self._min_score, self._max_iou = min_score, max_iou
        self._session = _Session(self._path, threads=threads)
        try:
            self._input = self._session.image_input(self._path)
            self._output_name, self._contract = self._first_run()
        except BaseException:
            self._session.close()
            raise

    @property
    def description(self) -> str:
        """File, style, size and library."""
        size = f"{self._input.width}x{self._input.height}"
        return f"{self._path.name} ({self._contract.style} style, {size}) in {self._session.description}"

    @property
    def contract(self) -> DetectorContract:
        """How the detector is fed and read."""
        return self._contract

    def find(self, frame_bgr: NDArray[Any], *, index: int = 0, name: str = "") -> Detections:
        """Find the people in a frame; see :class:`PersonFinder`.

        Raises:
            MediaError: not an image.
            BackendError: the model failed, or gave NaN.
        """
        tensor, placement = letterboxed(bgr_from_frame(frame_bgr), self._contract, self._input)
        output = self._session.infer(tensor)[self._output_name]
        boxes_xywh, scores = people_from_output(output, self._contract, self._input.size_hw)
        if np.isnan(scores).any() or np.isnan(boxes_xywh).any():
            raise BackendError(f"{self.description} gave NaN; if it is a file of lower precision, try the FP32 one")
        sure = scores >= self._min_score
        return self._once_each(boxes_in_frame(boxes_xywh[sure], placement), scores[sure])

    def close(self) -> None:
        """Release the model."""
        self._session.close()

    def _once_each(self, boxes_xywh: Boxes, scores: NDArray[np.float32]) -> Detections:
        inside = (boxes_xywh[:, 2:] > 0).all(axis=1)
        boxes_xywh, scores = boxes_xywh[inside], scores[inside]
        kept = kept_by_suppression(boxes_xywh, scores, max_iou=self._max_iou)
        # Scores come from a foreign graph, in which nothing says that they end at 1.
        return Detections(boxes_xywh[kept], np.minimum(scores[kept], 1))

    def _first_run(self) -> tuple[str, DetectorContract]:
        """Tell the style, and which output has it, from a run on an empty picture: declared shapes may be symbolic."""
        text = self._session.metadata.get(METADATA_KEY)
        given = None if text is None else detector_contract_from_json(text, origin=self._path.name)
        outputs = self._session.infer(np.zeros(self._input.shape, np.float32))
        for name, values in outputs.items():
            style = style_of_output(values.shape, self._input.size_hw)
            if style is not None and (given is None or given.style == style):
                contract = given or STYLES[style]
                _check_person_class(contract, class_count(values.shape, style), self._path)
                return name, contract
        raise ModelFileError(_no_style(self._path, outputs, self._input.size_hw, given))


class _Session(OnnxRuntimeBackend):
    """ONNX Runtime for a file that does not carry sfpp's contract and so must be asked what it takes."""

    def __init__(self, path: Path, *, threads: int | None) -> None:
        super().__init__(path, threads=threads)
        self._declared: list[Any] = self._session.get_inputs()

    def image_input(self, path: Path) -> InputSpec:
        """Return the one input; a symbolic height or width becomes the usual one."""
        if len(self._declared) != 1 or not _takes_a_picture(self._declared[0]):
            takes = ", ".join(f"{each.name}: {each.type} {each.shape}" for each in self._declared)
            raise ModelFileError(
                f"{path} takes {takes}, expected one input of floating point numbers, (1, 3, height, width); "
                "export the detector with batch 1"
            )
        (image,) = self._declared
        height, width = (side if isinstance(side, int) else _DEFAULT_SIDE for side in image.shape[2:])
        return InputSpec(image.name, height, width, layout="NCHW", dtype="float32")

    def infer(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Run on (1, 3, height, width) float32, in the type that the model takes."""
        (image,) = self._declared
        return self.run({image.name: tensor.astype(_DTYPES[image.type], copy=False)})


def _takes_a_picture(declared: Any) -> bool:
    if len(declared.shape) != 4 or declared.type not in _DTYPES:
        return False
    # Symbolic sizes are names or None.
    return all(
        not isinstance(side, int) or side == wanted for side, wanted in zip(declared.shape, (1, 3), strict=False)
    )


def _check_person_class(contract: DetectorContract, count: int, path: Path) -> None:
    if contract.person_class >= count:
        raise ModelFileError(
            f"{path} has {count} classes, but its contract has the person_class {contract.person_class}, counted from 0"
        )


def _no_style(path: Path, outputs: Arrays, size_hw: tuple[int, int], given: DetectorContract | None) -> str:
    shapes = ", ".join(f"{name} {'x'.join(map(str, values.shape))}" for name, values in outputs.items())
    anchors = sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in (8, 16, 32))
    expected = {
        "yolox": f"1x{anchors}x(5 + classes) as YOLOX gives",
        "yolov8": f"1x(4 + classes)x{anchors} as YOLOv8 gives",
    }
    wanted = [text for style, text in expected.items() if given is None or style == given.style]
    return (
        f"{path} gives {shapes} for an input {size_hw[1]} wide and {size_hw[0]} high, expected {' or '.join(wanted)}: "
        "export such a detector without non-maximum suppression in the graph"
    )
