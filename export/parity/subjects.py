"""What is compared, by task: labels at the frames' own size, or people's keypoints; always through the runtime.

PyTorch stands in the place of a backend, so both sides run the same preparation and decoding and only the networks
differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sfpp.export.parity.reference import Reference
from sfpp.runtime.agreement import label_agreement, unmoved_keypoints
from sfpp.runtime.backends.protocol import Backend, FunctionBackend
from sfpp.runtime.contract import ModelContract
from sfpp.runtime.crops import box_of_crop
from sfpp.runtime.errors import ModelFileError
from sfpp.runtime.images import Image
from sfpp.runtime.pose import PoseEstimator, PreparedPeople
from sfpp.runtime.segmentation import PreparedFrames, Segmenter

# Keypoints of which PyTorch is less sure are left out: the maximum of an empty heatmap is anywhere.
SURE = 0.3


@dataclass(frozen=True)
class Agreement:
    """How alike two answers for one frame are.

    Attributes:
        same: the share, 0..1, of pixels with the same label, or of sure keypoints in the same place.
        distances_px: of the sure keypoints, in pixels of the frame; empty for labels.
    """

    same: float
    distances_px: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Prepared:
    """Frames as a model takes them: the tensor, and what the runtime needs to read the answer."""

    tensor: NDArray[Any]
    details: PreparedFrames | PreparedPeople

    @property
    def frames(self) -> int:
        """How many frames there are, without those that fill up the batch."""
        return len(self.details.placements) if isinstance(self.details, PreparedFrames) else 1

    def with_tensor(self, tensor: NDArray[Any]) -> Prepared:
        """Return the same frames with another tensor."""
        if isinstance(self.details, PreparedFrames):
            return Prepared(tensor, dataclasses.replace(self.details, tensor=tensor))
        return Prepared(tensor, dataclasses.replace(self.details, batches=(tensor,)))


class Side(Protocol):
    """The file or PyTorch, for one task."""

    @property
    def batch(self) -> int:
        """How many frames are taken at a time."""

    def prepare(self, frames_bgr: Sequence[Image]) -> Prepared:
        """Make the input of at most ``batch`` frames."""

    def infer(self, prepared: Prepared) -> NDArray[Any]:
        """Run the network and return its first output.

        Raises:
            ModelFileError: it does not give the output that its contract names.
        """

    def answers(self, output: NDArray[Any], prepared: Prepared) -> list[Any]:
        """Return what a user gets, one for each frame: labels (H, W), or a :class:`sfpp.runtime.pose.Pose`.

        Raises:
            BackendError: the output holds NaN or infinity.
            ModelFileError: it does not fit the contract.
        """

    def agreement(self, answer: Any, expected: Any) -> Agreement:
        """Compare two answers for a frame."""


def file_side(backend: Backend, contract: ModelContract) -> Side:
    """Return the model file's side, prepared as its contract says."""
    return PoseSide(backend, contract) if contract.task == "pose" else SegmentationSide(backend, contract)


def pytorch_side(reference: Reference) -> Side:
    """Return PyTorch's side, prepared as the checkpoint was trained."""
    contract = reference.trained_contract()
    return file_side(FunctionBackend(reference.run, {}, description="PyTorch"), contract)


class SegmentationSide:
    """A segmentation model."""

    def __init__(self, backend: Backend, contract: ModelContract) -> None:
        self._model = Segmenter(backend, contract)
        self._output = contract.outputs[0].name
        self.batch = contract.input.batch

    def prepare(self, frames_bgr: Sequence[Image]) -> Prepared:
        """See :class:`Side`."""
        details = self._model.prepare_batch(frames_bgr)
        return Prepared(details.tensor, details)

    def infer(self, prepared: Prepared) -> NDArray[Any]:
        """See :class:`Side`."""
        assert isinstance(prepared.details, PreparedFrames)
        return _named(self._output, self._model.infer(prepared.details))

    def answers(self, output: NDArray[Any], prepared: Prepared) -> list[NDArray[np.uint8]]:
        """See :class:`Side`."""
        assert isinstance(prepared.details, PreparedFrames)
        return [each.labels for each in self._model.finish_batch({self._output: output}, prepared.details)]

    def agreement(self, answer: NDArray[np.uint8], expected: NDArray[np.uint8]) -> Agreement:
        """See :class:`Side`."""
        return Agreement(label_agreement(answer, expected))


class PoseSide:
    """A pose model; each frame is taken for the crop of one person."""

    def __init__(self, backend: Backend, contract: ModelContract) -> None:
        assert contract.keypoints is not None
        self._model = PoseEstimator(backend, contract)
        self._padding = contract.keypoints.box_padding
        self._output = contract.outputs[0].name
        self.batch = 1  # the model's own batch is people of one frame

    def prepare(self, frames_bgr: Sequence[Image]) -> Prepared:
        """See :class:`Side`."""
        (frame,) = frames_bgr
        height, width = frame.shape[:2]
        details = self._model.prepare(frame, box_of_crop((height, width), padding=self._padding))
        return Prepared(details.batches[0], details)

    def infer(self, prepared: Prepared) -> NDArray[Any]:
        """See :class:`Side`."""
        assert isinstance(prepared.details, PreparedPeople)
        return _named(self._output, self._model.infer(prepared.details)[0])

    def answers(self, output: NDArray[Any], prepared: Prepared) -> list[Any]:
        """See :class:`Side`."""
        assert isinstance(prepared.details, PreparedPeople)
        return [self._model.finish([{self._output: output}], prepared.details)]

    def agreement(self, answer: Any, expected: Any) -> Agreement:
        """See :class:`Side`."""
        # In pixels of the frame, where people look; heatmap cells are four of the input's.
        distances = np.linalg.norm(answer.keypoints_xy - expected.keypoints_xy, axis=2)
        same = unmoved_keypoints(answer.keypoints_xy, expected.keypoints_xy, expected.boxes_xywh)
        sure = expected.above(SURE)
        counted = sure if sure.any() else np.ones_like(sure)
        return Agreement(float(same[counted].mean()), tuple(map(float, distances[counted])))


def _named(output: str, outputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    if output not in outputs:
        raise ModelFileError(
            f"the model gives {', '.join(map(repr, outputs))}, but its contract says {output!r}; "
            "give the contract of this model"
        )
    return outputs[output]
