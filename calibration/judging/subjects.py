"""What calibration asks of a model, alike for segmentation and pose: inputs, answers, and how good they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from sfpp.calibration.frames.shelves import NamedFrame
from sfpp.calibration.results import Accuracy
from sfpp.runtime.backends.protocol import Precision
from sfpp.runtime.images import Image


class Tally(Protocol):
    """Adds up how good answers are."""

    def add(self, frame: NamedFrame, answer: NDArray[Any], expected: NDArray[Any]) -> float:
        """Count one frame's answer, and float32's; return the part of them, 0..1, that is equal; NaN for nothing."""

    def accuracy(self) -> Accuracy:
        """Sum up."""


class Opened(Protocol):
    """A file that was opened to be asked."""

    def ask(self, frame: NamedFrame) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the answer for people, and the raw output that it was made of."""

    def close(self) -> None:
        """Release the file."""


class Subject(Protocol):
    """A task, as far as calibration must know it."""

    def inputs(self, frame: NamedFrame) -> list[dict[str, NDArray[Any]]]:
        """Return the model's inputs by name for one frame, as the runtime makes them: one, or one a person."""

    def open(self, path: Path, *, backend: str | None, precision: Precision | None) -> Opened:
        """Open a file; what is None is left to the runtime."""

    def tally(self) -> Tally:
        """Return a new, empty tally."""

    def marked(self, frame: NamedFrame, answer: NDArray[Any], expected: NDArray[Any]) -> Image:
        """Return the frame with what differs between two answers marked, (H, W, 3) uint8 BGR."""


def no_model(inputs: Any) -> dict[str, NDArray[Any]]:
    """Stand in for a model where only the preparing of its inputs is wanted."""
    raise AssertionError("only the preparing of inputs is asked for")
