"""How well a file answers on the held-out frames, against the truth and against the float32 file."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.calibration.frames.chosen import Frames
from sfpp.calibration.frames.shelves import Progress
from sfpp.calibration.judging.subjects import Opened, Subject
from sfpp.calibration.results import Accuracy
from sfpp.runtime.bench.settings import BackendSpec
from sfpp.runtime.errors import MediaError

# ONNX Runtime is there wherever models are calibrated, and on a CPU it computes what the file says.
JUDGE = BackendSpec("onnxruntime", "fp32")


@dataclass(frozen=True)
class Examination:
    """What a file answered.

    Attributes:
        accuracy: in all.
        error: mean squared error of the raw outputs against float32's, over their mean square.
        disagreement: by frame, the part of its labels or keypoints, 0..1, that differ from float32's.
    """

    accuracy: Accuracy
    error: float
    disagreement: Mapping[str, float]


class Examiner:
    """Asks files for their answers on the same frames, and compares them with those of the float32 file.

    The float32 answers are kept on disk: at 3840x2160 they take 70 MB a frame.

    Args:
        subject: the task, and what is known about the frames.
        frames: to judge by.
        reference: the float32 file.
        folder: an empty folder for its answers.
        progress: told of how many frames the float32 file has answered.

    Raises:
        BackendError: the float32 file does not run, or answers with NaN.
        MediaError: nobody is in the frames of a pose model, or there is a truth, but nothing in it counts.
    """

    def __init__(
        self,
        subject: Subject,
        frames: Frames,
        *,
        reference: Path,
        folder: Path,
        progress: Progress = lambda done, total: None,
    ) -> None:
        self.subject = subject
        self.frames = frames
        self._folder = folder
        self.reference = self._learn(reference, progress)

    def examine(
        self,
        path: Path,
        *,
        first: int | None = None,
        backend: BackendSpec = JUDGE,
        progress: Progress = lambda done, total: None,
    ) -> Examination:
        """Judge a file by all frames, or by the ``first`` ones; ``progress`` is told how many are done.

        Raises:
            BackendError: it does not run, or answers with NaN.
        """
        tally = self.subject.tally()
        error = signal = 0.0
        disagreement: dict[str, float] = {}
        frames = self.frames if first is None else self.frames.first(first)
        with contextlib.closing(self.open(path, backend)) as model:
            for index, frame in enumerate(frames):
                answer, raw = model.ask(frame)
                disagreement[frame.name] = 1 - tally.add(frame, answer, self.answer(index))
                expected = np.load(self._file(index, "raw"))
                error += _difference(raw, expected)
                signal += _difference(expected, np.zeros_like(expected))
                progress(index + 1, len(frames))
        return Examination(tally.accuracy(), error / max(signal, 1e-12), disagreement)

    def open(self, path: Path, backend: BackendSpec = JUDGE) -> Opened:
        """Open a file to be asked."""
        return self.subject.open(path, backend=backend.name, precision=backend.precision)

    def answer(self, index: int) -> NDArray[Any]:
        """Return the float32 file's answer for a frame: labels (H, W), or keypoints (P, K, 2)."""
        answer: NDArray[Any] = np.load(self._file(index, "answer"))
        return answer

    def inputs(self, frames: Frames) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the model's inputs by name, as the runtime makes them, for each of ``frames`` in turn."""
        for frame in frames:
            yield from self.subject.inputs(frame)

    def _learn(self, reference: Path, progress: Progress) -> Examination:
        """Ask the float32 file, keep what it answers, and judge it."""
        tally = self.subject.tally()
        with contextlib.closing(self.open(reference)) as model:
            for index, frame in enumerate(self.frames):
                answer, raw = model.ask(frame)
                np.save(self._file(index, "answer"), answer)
                np.save(self._file(index, "raw"), raw)
                tally.add(frame, answer, answer)
                progress(index + 1, len(self.frames))
        accuracy = tally.accuracy()
        if math.isnan(accuracy.agreement):
            raise MediaError(
                f"there is nobody in the {len(self.frames)} frames to judge by; give frames of people, with boxes or "
                "annotations that name them"
            )
        if accuracy.against_truth is not None and math.isnan(accuracy.against_truth):
            raise MediaError(
                f"the truth about the {len(self.frames)} frames to judge by holds nothing that counts: every pixel is "
                "ignored, or no person has the keypoints that PCK is measured by; give other labels, or leave them off"
            )
        return Examination(accuracy, 0.0, dict.fromkeys(self.frames.names, 0.0))

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
