"""Segmentation as calibration sees it: labels at the frame's size, and the logits that they were made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.calibration.frames.annotations import Annotations
from sfpp.calibration.frames.shelves import NamedFrame
from sfpp.calibration.judging.subjects import Opened, Tally, no_model
from sfpp.calibration.results import Accuracy
from sfpp.runtime.agreement import label_agreement
from sfpp.runtime.backends.protocol import FunctionBackend, Precision
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.images import Image
from sfpp.runtime.model_file import load_segmenter
from sfpp.runtime.segmentation import Segmenter
from sfpp.tooling.marks import marked_labels
from sfpp.tooling.metrics import ConfusionMatrix, boundary_f_score


class SegmentationSubject:
    """Labels at the frame's size, and the logits that they were made of."""

    def __init__(self, contract: ModelContract, annotations: Annotations) -> None:
        self._contract = contract
        self._truth = annotations.labels
        self._preparing = Segmenter(FunctionBackend(no_model, {}), contract)

    def inputs(self, frame: NamedFrame) -> list[dict[str, NDArray[Any]]]:
        """Return the one input."""
        return [{self._contract.input.name: self._preparing.prepare(frame.image_bgr).tensor}]

    def open(self, path: Path, *, backend: str | None, precision: Precision | None) -> Opened:
        """Open a segmentation model; see :class:`Subject`."""
        return _OpenedSegmenter(load_segmenter(path, backend=backend, precision=precision, self_test=False))

    def tally(self) -> Tally:
        """Return a new tally."""
        return _SegmentationTally(self)

    def marked(self, frame: NamedFrame, answer: NDArray[Any], expected: NDArray[Any]) -> Image:
        """Return the frame with the pixels marked whose labels differ."""
        return marked_labels(frame.image_bgr, answer, expected, self._contract.palette)

    def truth_of(self, frame: NamedFrame) -> NDArray[np.uint8] | None:
        """Return the frame's true labels, None where nobody annotated it."""
        height, width = frame.image_bgr.shape[:2]
        return None if self._truth is None else self._truth.find(frame.name, (height, width))

    @property
    def ignore(self) -> int | None:
        """The truth's value for pixels that do not count."""
        return None if self._truth is None else self._truth.ignore

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names."""
        return self._contract.classes


class _OpenedSegmenter:
    def __init__(self, model: Segmenter) -> None:
        self._model = model
        self._output = model.contract.output_of_kind("logits", "labels").name

    def ask(self, frame: NamedFrame) -> tuple[NDArray[Any], NDArray[Any]]:
        prepared = self._model.prepare(frame.image_bgr)
        outputs = self._model.infer(prepared)
        return self._model.finish(outputs, prepared).labels, outputs[self._output]

    def close(self) -> None:
        self._model.close()


class _SegmentationTally:
    def __init__(self, subject: SegmentationSubject) -> None:
        self._subject = subject
        self._confusion: ConfusionMatrix | None = None
        self._agreements: list[float] = []
        self._boundaries: list[float] = []

    def add(self, frame: NamedFrame, answer: NDArray[Any], expected: NDArray[Any]) -> float:
        truth = self._subject.truth_of(frame)
        if truth is not None:
            # Only now: the value to ignore is known once a label picture was read.
            self._confusion = self._confusion or ConfusionMatrix(
                len(self._subject.classes), ignore=self._subject.ignore
            )
            self._confusion.update(answer, truth)
        reference = expected if truth is None else truth
        self._boundaries.append(
            boundary_f_score(answer, reference, ignore=None if truth is None else self._subject.ignore)
        )
        self._agreements.append(label_agreement(answer, expected))
        return self._agreements[-1]

    def accuracy(self) -> Accuracy:
        confusion = self._confusion
        iou = {} if confusion is None else dict(zip(self._subject.classes, map(float, confusion.iou()), strict=True))
        return Accuracy(
            agreement=float(np.mean(self._agreements)),
            boundary_f=float(np.mean(self._boundaries)),
            mean_iou=None if confusion is None else confusion.mean_iou(),
            iou_by_class=iou,
        )
