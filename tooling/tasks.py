"""Segmentation and pose as calibration and parity see them: inputs, predictions, and how good they are.

Frames are prepared and predictions decoded by the runtime itself, so that nothing but networks is compared.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.agreement import label_agreement, mask_agreement, unmoved_keypoints
from sfpp.runtime.backends.choice import open_backend
from sfpp.runtime.backends.protocol import Backend, BackendOptions, FunctionBackend, Precision
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.crops import Boxes, box_of_crop
from sfpp.runtime.images import Image
from sfpp.runtime.model import OpenedModel
from sfpp.runtime.pose import Pose, PoseEstimator
from sfpp.runtime.segmentation import Segmenter
from sfpp.tooling.frames import NamedFrame
from sfpp.tooling.label_rules import IGNORED
from sfpp.tooling.marks import marked_keypoints, marked_labels
from sfpp.tooling.metrics import Accuracy, ConfusionMatrix, KeypointHits, boundary_f_score
from sfpp.tooling.truth import Annotations, PeopleTruth

# Keypoints of which the reference is less sure are left out: the maximum of an empty heatmap is anywhere.
SURE = 0.3


@dataclass(frozen=True)
class Agreement:
    """How alike two predictions for one frame are.

    Attributes:
        same: the share, 0..1, of pixels with the same label, or of sure keypoints in the same place.
        distances_px: of the sure keypoints, in pixels of the frame; empty for labels.
    """

    same: float
    distances_px: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Prepared:
    """Frames as a model takes them.

    Attributes:
        tensors: the network's inputs: one, or for pose as many batches as there are people for.
        details: what the runtime needs to decode the output.
        frames: how many frames there are, without those that fill up the batch.
    """

    tensors: tuple[NDArray[Any], ...]
    details: Any
    frames: int = 1

    @property
    def tensor(self) -> NDArray[Any]:
        """The first input, which is the only one unless a frame has many people."""
        return self.tensors[0]

    def with_tensor(self, tensor: NDArray[Any]) -> Prepared:
        """Return the same frames with another input."""
        return dataclasses.replace(self, tensors=(tensor,))


class Predictor(ABC):
    """A model of one task, opened.

    Attributes:
        batch: how many frames are taken at a time.
    """

    batch = 1
    _backend: Backend
    _model: OpenedModel[Any]

    @abstractmethod
    def prepare(self, frames: Sequence[NamedFrame]) -> Prepared:
        """Make the inputs of at most ``batch`` frames."""

    def infer(self, prepared: Prepared) -> NDArray[Any]:
        """Run the network and return its output: logits, labels, or the heatmaps (P, K, h, w) of a frame's people.

        Heatmaps are those that fill up a batch too; without people there are none.

        Raises:
            ModelFileError: it does not give the output that its contract names.
        """
        name = self._model.contract.input.name
        outputs = [self._model.named_output(self._backend.run({name: each})) for each in prepared.tensors]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs or [np.zeros(0, np.float32)])

    @abstractmethod
    def predictions(self, output: NDArray[Any], prepared: Prepared) -> list[Any]:
        """Return what a user gets, one for each frame: labels (H, W), masks, or a :class:`sfpp.runtime.pose.Pose`.

        Raises:
            BackendError: the output holds NaN or infinity.
            ModelFileError: it does not fit the contract.
        """

    @abstractmethod
    def agreement(self, prediction: Any, expected: Any) -> Agreement:
        """Compare two predictions for a frame."""

    def close(self) -> None:
        """Release the model."""
        self._model.close()


class SegmentationPredictor(Predictor):
    """A segmentation model, opened; a prediction is labels (H, W), or masks (K, H, W) of a multi-label model.

    Args:
        backend: the opened model.
        contract: what it takes and gives.
    """

    _model: Segmenter

    def __init__(self, backend: Backend, contract: ModelContract) -> None:
        self._backend, self._model, self.batch = backend, Segmenter(backend, contract), contract.input.batch

    def prepare(self, frames: Sequence[NamedFrame]) -> Prepared:
        """Make the inputs of at most ``batch`` frames."""
        details = self._model.prepare_batch([frame.image_bgr for frame in frames])
        return Prepared((details.tensor,), details, len(details.placements))

    def predictions(self, output: NDArray[Any], prepared: Prepared) -> list[NDArray[np.uint8]]:
        """Return labels or masks, one for each frame."""
        found = self._model.finish_batch({self._model.output.name: output}, prepared.details)
        return [each.labels if each.masks is None else each.masks for each in found]

    def agreement(self, prediction: NDArray[np.uint8], expected: NDArray[np.uint8]) -> Agreement:
        """Compare two predictions for a frame."""
        return Agreement(_same(prediction, expected))


def _same(prediction: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the share of pixels, 0..1, with the same label, or with the same masks."""
    return (mask_agreement if expected.ndim == 3 else label_agreement)(prediction, expected)


class _PosePredictor(Predictor):
    """``boxes_of`` gives the boxes (P, 4) of a frame's people, who are what the model's own batch holds."""

    _model: PoseEstimator

    def __init__(self, backend: Backend, contract: ModelContract, boxes_of: Callable[[NamedFrame], Boxes]) -> None:
        self._backend, self._model, self._boxes_of = backend, PoseEstimator(backend, contract), boxes_of

    def prepare(self, frames: Sequence[NamedFrame]) -> Prepared:
        (frame,) = frames
        details = self._model.prepare(frame.image_bgr, self._boxes_of(frame))
        return Prepared(details.batches, details)

    def predictions(self, output: NDArray[Any], prepared: Prepared) -> list[Pose]:
        batches = np.split(output, len(prepared.tensors)) if prepared.tensors else []
        return [self._model.finish([{self._model.output.name: each} for each in batches], prepared.details)]

    def agreement(self, prediction: Pose, expected: Pose) -> Agreement:
        # In pixels of the frame, where people look; heatmap cells are four of the input's.
        distances = np.linalg.norm(prediction.keypoints_xy - expected.keypoints_xy, axis=2)
        same = unmoved_keypoints(prediction.keypoints_xy, expected.keypoints_xy, expected.boxes_xywh)
        sure = expected.above(SURE)
        counted = sure if sure.any() else np.ones_like(sure)
        return Agreement(float(same[counted].mean()), tuple(map(float, distances[counted])))


def predictor_of(
    backend: Backend, contract: ModelContract, boxes_of: Callable[[NamedFrame], Boxes] | None = None
) -> Predictor:
    """Return the model that a backend runs, prepared as its contract says.

    For pose, ``boxes_of`` gives the boxes (P, 4) of a frame's people; without it a frame is one person's crop.
    """
    if contract.task == "pose":
        return _PosePredictor(backend, contract, boxes_of or partial(whole_frame, contract=contract))
    return SegmentationPredictor(backend, contract)


def whole_frame(frame: NamedFrame, contract: ModelContract) -> Boxes:
    """Return the box (1, 4) of the person of whom a frame is the crop that a pose model takes."""
    assert contract.keypoints is not None
    height, width = frame.image_bgr.shape[:2]
    return box_of_crop((height, width), padding=contract.keypoints.box_padding)


class Task:
    """A contract's task, with what is known of the frames to evaluate on.

    People are where the annotations say; a frame without any is taken for a crop of one person.
    """

    def __init__(self, contract: ModelContract, annotations: Annotations) -> None:
        self.contract, self.annotations = contract, annotations
        self._preparing = predictor_of(FunctionBackend(_not_run, {}), contract, self.boxes_of)

    def inputs(self, frame: NamedFrame) -> list[dict[str, NDArray[Any]]]:
        """Return the model's inputs by name for one frame, as the runtime makes them: one, or one for each batch."""
        return [{self.contract.input.name: each} for each in self._preparing.prepare([frame]).tensors]

    def open(self, path: Path, *, backend: str | None, precision: Precision | None) -> Predictor:
        """Open a file; what is None is left to the runtime."""
        opened, _ = open_backend(path, backend=backend, options=BackendOptions(precision=precision))
        return predictor_of(opened, self.contract, self.boxes_of)

    def predict(self, model: Predictor, frame: NamedFrame) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return a frame's prediction and the raw output behind it.

        A prediction is labels (H, W), masks (K, H, W) of a multi-label model, or keypoints (P, K, 2).
        """
        prepared = model.prepare([frame])
        output = model.infer(prepared)
        (found,) = model.predictions(output, prepared)
        return (found.keypoints_xy if isinstance(found, Pose) else found), output

    def tally(self) -> _SegmentationTally | _PoseTally:
        """Return a new, empty tally of how good predictions are.

        ``add`` counts one frame's prediction beside float32's, arrays as :meth:`predict` gives them, and returns the
        share, 0..1, that is equal, NaN for nothing; ``accuracy`` sums up, and refuses label images whose numbers are
        off by one (UsageError).
        """
        return _PoseTally(self) if self.contract.task == "pose" else _SegmentationTally(self)

    def marked(self, frame: NamedFrame, prediction: NDArray[Any], expected: NDArray[Any]) -> Image:
        """Return the frame with what differs between two predictions marked, (H, W, 3) uint8 BGR."""
        if self.contract.task == "segmentation":
            return marked_labels(frame.image_bgr, prediction, expected, self.contract.palette)
        moved = ~unmoved_keypoints(prediction, expected, self.boxes_of(frame))
        return marked_keypoints(frame.image_bgr, prediction, expected, moved)

    def boxes_of(self, frame: NamedFrame) -> Boxes:
        """Return the boxes (P, 4) of the frame's people."""
        people = self.people_in(frame)
        if people is not None and people.boxes_xywh is not None:
            return people.boxes_xywh
        if self.annotations.boxes is not None:
            return self.annotations.boxes.find(frame.image_bgr, name=frame.name).boxes_xywh
        return whole_frame(frame, self.contract)

    def people_in(self, frame: NamedFrame) -> PeopleTruth | None:
        """Return the frame's annotated people, None where nobody annotated it."""
        return None if self.annotations.keypoints is None else self.annotations.keypoints.find(frame.name)


class _SegmentationTally:
    def __init__(self, task: Task) -> None:
        self._classes, self._truth = task.contract.classes, task.annotations.labels
        self._confusion: ConfusionMatrix | None = None
        self._agreements: list[float] = []
        self._boundaries: list[float] = []

    def add(self, frame: NamedFrame, prediction: NDArray[Any], expected: NDArray[Any]) -> float:
        truth = None if self._truth is None else self._truth.find(frame.name, frame.image_bgr.shape[:2])
        if truth is not None:
            self._confusion = self._confusion or ConfusionMatrix(len(self._classes), ignore=IGNORED)
            self._confusion.update(prediction, truth)
        reference, ignore = (expected, None) if truth is None else (truth, IGNORED)
        planes = zip(prediction, reference, strict=True) if prediction.ndim == 3 else [(prediction, reference)]
        scores = [boundary_f_score(found, there, ignore=ignore) for found, there in planes]
        self._boundaries.append(float(np.mean(scores)))
        self._agreements.append(_same(prediction, expected))
        return self._agreements[-1]

    def accuracy(self) -> Accuracy:
        confusion = self._confusion
        if confusion is not None and self._truth is not None:
            self._truth.check_numbering(confusion)
        return Accuracy(
            agreement=float(np.mean(self._agreements)),
            boundary_f=float(np.mean(self._boundaries)),
            mean_iou=None if confusion is None else confusion.mean_iou(),
            iou_by_class={} if confusion is None else confusion.iou_of(self._classes),
        )


class _PoseTally:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._hits: KeypointHits | None = None
        self._unmoved: list[NDArray[np.bool_]] = []

    def add(self, frame: NamedFrame, prediction: NDArray[Any], expected: NDArray[Any]) -> float:
        unmoved = unmoved_keypoints(prediction, expected, self._task.boxes_of(frame))
        self._unmoved.append(unmoved.ravel())
        people, keypoints = self._task.people_in(frame), self._task.contract.keypoints
        if people is not None and keypoints is not None:
            self._hits = self._hits or KeypointHits(keypoints.names)
            for found, true in zip(prediction, people.keypoints, strict=True):
                self._hits.update(found, true)
        return _mean(unmoved)

    def accuracy(self) -> Accuracy:
        hits, agreement = self._hits, _mean(np.concatenate(self._unmoved))
        if hits is None:
            return Accuracy(agreement)
        return Accuracy(agreement, pck=hits.pck(), pck_by_keypoint=hits.by_keypoint())


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _not_run(inputs: Any) -> dict[str, NDArray[Any]]:
    """Stand in for a model where only the preparing of its inputs is wanted."""
    raise AssertionError("only the preparing of inputs is asked for")
