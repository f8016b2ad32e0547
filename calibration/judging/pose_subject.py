"""Pose as calibration sees it: keypoints of each person, and the heatmaps that they were made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.calibration.frames.annotations import Annotations
from sfpp.calibration.frames.shelves import NamedFrame
from sfpp.calibration.judging.subjects import Opened, Tally, no_model
from sfpp.calibration.results import Accuracy
from sfpp.runtime.agreement import unmoved_keypoints
from sfpp.runtime.backends.protocol import FunctionBackend, Precision
from sfpp.runtime.contract import KeypointSpec, ModelContract
from sfpp.runtime.crops import Boxes, box_of_crop
from sfpp.runtime.images import Image
from sfpp.runtime.model_file import load_pose
from sfpp.runtime.pose import PoseEstimator
from sfpp.tooling.marks import marked_keypoints
from sfpp.tooling.metrics import KeypointHits
from sfpp.tooling.truth import PeopleTruth


class PoseSubject:
    """Keypoints of each person, and the heatmaps that they were made of.

    People are where the annotations say; a picture without any is taken for a crop of one person, as it was grown.
    """

    def __init__(self, contract: ModelContract, keypoints: KeypointSpec, annotations: Annotations) -> None:
        self._contract = contract
        self.spec = keypoints
        self._annotations = annotations
        self._preparing = PoseEstimator(FunctionBackend(no_model, {}), contract)

    def inputs(self, frame: NamedFrame) -> list[dict[str, NDArray[Any]]]:
        """Return one input for each batch of people."""
        prepared = self._preparing.prepare(frame.image_bgr, self.boxes_of(frame))
        return [{self._contract.input.name: batch} for batch in prepared.batches]

    def open(self, path: Path, *, backend: str | None, precision: Precision | None) -> Opened:
        """Open a pose model; see :class:`Subject`."""
        return _OpenedPose(load_pose(path, backend=backend, precision=precision, self_test=False), self)

    def tally(self) -> Tally:
        """Return a new tally."""
        return _PoseTally(self)

    def marked(self, frame: NamedFrame, answer: NDArray[Any], expected: NDArray[Any]) -> Image:
        """Return the frame with the keypoints marked that moved."""
        return marked_keypoints(frame.image_bgr, answer, expected, ~self.unmoved(frame, answer, expected))

    def unmoved(self, frame: NamedFrame, answer: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which keypoints (P, K) are where float32 has them."""
        return unmoved_keypoints(answer, expected, self.boxes_of(frame))

    def truth_of(self, frame: NamedFrame) -> NDArray[np.float32] | None:
        """Return the true keypoints (P, K, 3) of the frame's people, None where nobody annotated it."""
        people = self._people(frame)
        return None if people is None else people.keypoints

    def boxes_of(self, frame: NamedFrame) -> Boxes:
        """Return the boxes (P, 4) of the frame's people."""
        people = self._people(frame)
        if people is not None and people.boxes_xywh is not None:
            return people.boxes_xywh
        if self._annotations.boxes is not None:
            return self._annotations.boxes.find(frame.image_bgr, name=frame.name).boxes_xywh
        height, width = frame.image_bgr.shape[:2]
        return box_of_crop((height, width), padding=self.spec.box_padding)

    def _people(self, frame: NamedFrame) -> PeopleTruth | None:
        truth = self._annotations.keypoints
        return None if truth is None else truth.find(frame.name)


class _OpenedPose:
    def __init__(self, model: PoseEstimator, subject: PoseSubject) -> None:
        self._model = model
        self._subject = subject
        self._output = model.contract.output_of_kind("heatmaps").name

    def ask(self, frame: NamedFrame) -> tuple[NDArray[Any], NDArray[Any]]:
        prepared = self._model.prepare(frame.image_bgr, self._subject.boxes_of(frame))
        outputs = self._model.infer(prepared)
        raw = [each[self._output] for each in outputs]
        found = self._model.finish(outputs, prepared).keypoints_xy
        return found, np.concatenate(raw) if raw else np.zeros(0, np.float32)

    def close(self) -> None:
        self._model.close()


class _PoseTally:
    def __init__(self, subject: PoseSubject) -> None:
        self._subject = subject
        self._hits: KeypointHits | None = None
        self._unmoved: list[NDArray[np.bool_]] = []

    def add(self, frame: NamedFrame, answer: NDArray[Any], expected: NDArray[Any]) -> float:
        unmoved = self._subject.unmoved(frame, answer, expected)
        self._unmoved.append(unmoved.ravel())
        truth = self._subject.truth_of(frame)
        if truth is not None:
            self._hits = self._hits or KeypointHits(self._subject.spec.names)
            for found, true in zip(answer, truth, strict=True):
                self._hits.update(found, true)
        return float(unmoved.mean()) if unmoved.size else float("nan")

    def accuracy(self) -> Accuracy:
        hits, unmoved = self._hits, np.concatenate(self._unmoved)
        return Accuracy(
            agreement=float(unmoved.mean()) if unmoved.size else float("nan"),
            pck=None if hits is None else hits.pck(),
            pck_by_keypoint={} if hits is None else hits.by_keypoint(),
        )
