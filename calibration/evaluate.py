"""How well a file does on the validation frames, against the truth and against the float32 file."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.calibration.chosen_frames import Frames
from sfpp.runtime.bench.settings import BackendSpec
from sfpp.runtime.errors import MediaError
from sfpp.tooling.frames import NamedFrame
from sfpp.tooling.metrics import Accuracy
from sfpp.tooling.tasks import Predictor, Task

Progress = Callable[[int, int], object]  # how many are done, of how many

# ONNX Runtime is there wherever models are calibrated, and on a CPU it computes what the file says.
REFERENCE_BACKEND = BackendSpec("onnxruntime", "fp32")


@dataclass(frozen=True)
class Evaluation:
    """What a file predicted.

    Attributes:
        accuracy: in all.
        error: mean squared error of the raw outputs against float32's, over their mean square.
        disagreement: by frame, the share of its labels or keypoints, 0..1, that differ from float32's.
    """

    accuracy: Accuracy
    error: float
    disagreement: Mapping[str, float]


class Evaluator:
    """Runs files on the same frames, and compares their predictions with those of the float32 file.

    The float32 predictions are kept on disk: at 3840x2160 they take 70 MB per frame.

    Args:
        task: with what is known about the frames.
        frames: to evaluate on.
        reference: the float32 file.
        folder: an empty folder for its predictions.
        progress: called with how many frames the float32 file has seen.

    Attributes:
        reference: how well the float32 file does.

    Raises:
        BackendError: the float32 file does not run, or gives NaN.
        MediaError: nobody is in the frames of a pose model, or there is a truth, but nothing in it counts.
    """

    def __init__(
        self,
        task: Task,
        frames: Frames,
        *,
        reference: Path,
        folder: Path,
        progress: Progress = lambda done, total: None,
    ) -> None:
        self.task = task
        self.frames = frames
        self._folder = folder
        self.reference = self._learn(reference, progress)

    def evaluate(
        self,
        path: Path,
        *,
        first: int | None = None,
        backend: BackendSpec = REFERENCE_BACKEND,
        progress: Progress = lambda done, total: None,
    ) -> Evaluation:
        """Evaluate a file on all frames, or on the ``first`` ones; ``progress`` is called with how many are done.

        Raises:
            BackendError: it does not run, or gives NaN.
        """
        tally = self.task.tally()
        error = signal = 0.0
        disagreement: dict[str, float] = {}
        frames = self.frames if first is None else self.frames.first(first)
        for index, frame, prediction, raw in self._answers(path, backend, frames, progress):
            disagreement[frame.name] = 1 - tally.add(frame, prediction, self.expected(index))
            expected = np.load(self._file(index, "raw"))
            error += _difference(raw, expected)
            signal += _difference(expected, np.zeros_like(expected))
        return Evaluation(tally.accuracy(), error / max(signal, 1e-12), disagreement)

    def open(self, path: Path, backend: BackendSpec = REFERENCE_BACKEND) -> Predictor:
        """Open a file."""
        return self.task.open(path, backend=backend.name, precision=backend.precision)

    def expected(self, index: int) -> NDArray[Any]:
        """Return the float32 file's prediction for a frame: labels (H, W), or keypoints (P, K, 2)."""
        prediction: NDArray[Any] = np.load(self._file(index, "prediction"))
        return prediction

    def inputs(self, frames: Frames) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the model's inputs by name, as the runtime makes them, for each of ``frames`` in turn."""
        for frame in frames:
            yield from self.task.inputs(frame)

    def _answers(
        self, path: Path, backend: BackendSpec, frames: Frames, progress: Progress
    ) -> Iterator[tuple[int, NamedFrame, NDArray[Any], NDArray[Any]]]:
        """Yield each frame by its number, with what a file predicts for it and the raw output behind that."""
        with contextlib.closing(self.open(path, backend)) as model:
            for index, frame in enumerate(frames):
                yield index, frame, *self.task.predict(model, frame)
                progress(index + 1, len(frames))

    def _learn(self, reference: Path, progress: Progress) -> Evaluation:
        """Run the float32 file, keep what it predicts, and evaluate it."""
        tally = self.task.tally()
        for index, frame, prediction, raw in self._answers(reference, REFERENCE_BACKEND, self.frames, progress):
            np.save(self._file(index, "prediction"), prediction)
            np.save(self._file(index, "raw"), raw)
            tally.add(frame, prediction, prediction)
        accuracy = tally.accuracy()
        if math.isnan(accuracy.agreement):
            raise MediaError(
                f"there is nobody in the {len(self.frames)} validation frames; give frames of people, with boxes or "
                "annotations that name them"
            )
        if accuracy.against_truth is not None and math.isnan(accuracy.against_truth):
            raise MediaError(
                f"the truth about the {len(self.frames)} validation frames holds nothing that counts: every pixel is "
                "ignored, or no person has the keypoints that PCK is measured by; give other labels, or leave them off"
            )
        return Evaluation(accuracy, 0.0, dict.fromkeys(self.frames.names, 0.0))

    def _file(self, index: int, kind: str) -> Path:
        return self._folder / f"{index}.{kind}.npy"


def _difference(raw: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the sum of squared differences; of labels, how many differ, since their numbers mean nothing."""
    if np.issubdtype(raw.dtype, np.integer):
        return float(np.count_nonzero(raw != expected))
    return float(np.square(raw.astype(np.float64) - expected).sum())


def drop_of(accuracy: Accuracy, reference: Accuracy) -> float:
    """Return what is lost: points of mean IoU or PCK where there is truth, else the labels that differ in per cent.

    A label that differs without a truth counts as lost, though it may be the better one.
    """
    if accuracy.against_truth is None or reference.against_truth is None:
        return 100 * (1 - accuracy.agreement)
    return 100 * (reference.against_truth - accuracy.against_truth)
