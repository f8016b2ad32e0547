"""A labeled sequence as a file and as a camera, and a network whose answers for it are known beforehand."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sfpp.runtime import ModelContract, Segmenter, read_image
from sfpp.runtime.backends.protocol import Arrays, FunctionBackend
from sfpp.runtime.video import Source
from sfpp.runtime.video.frame import Decoded
from sfpp.tooling.label_images import LabelFolder

FRAMES_PER_SECOND = 15

Answers: TypeAlias = Mapping[bytes, dict[str, NDArray[Any]]]


@dataclass(frozen=True, eq=False)
class Drive:
    """Frames that follow each other, (H, W, 3) uint8 BGR, and their true labels, (H, W) int16, -1 where none counts."""

    frames_bgr: Sequence[NDArray[np.uint8]]
    truth: Sequence[NDArray[np.int16]]

    @staticmethod
    def read(data: Path, contract: ModelContract) -> Drive:
        """Read the folder's images/ and labels/."""
        folder = LabelFolder(data / "labels", classes=contract.classes, palette=contract.palette)
        frames, truth = [], []
        for path in sorted((data / "images").iterdir()):
            frames.append(read_image(path))
            labels = folder.find(path.stem, frames[-1].shape[:2])
            if labels is None:
                sys.exit(f"{data / 'labels'} has no image for {path.name}; each frame needs one")
            truth.append(labels)
        return Drive(frames, truth)

    def __len__(self) -> int:
        return len(self.frames_bgr)

    def file(self, first: int = 0) -> Source:
        """Return the frames from ``first`` on as a file, which waits until they are taken."""
        some = self.frames_bgr[first:]
        decoded = (Decoded(frame, index / FRAMES_PER_SECOND) for index, frame in enumerate(some))
        return self._source(decoded, live=False)

    def camera(self, came_s: list[float]) -> Source:
        """Return the frames by the clock; when each one came is added to ``came_s``, on ``time.monotonic``."""

        def decoded() -> Iterator[Decoded]:
            start_s = time.monotonic()
            for index, frame in enumerate(self.frames_bgr):
                time.sleep(max(0.0, start_s + index / FRAMES_PER_SECOND - time.monotonic()))
                came_s.append(time.monotonic())
                yield Decoded(frame, index / FRAMES_PER_SECOND, taken_s=came_s[-1])

        return self._source(decoded(), live=True)

    def _source(self, decoded: Iterator[Decoded], *, live: bool) -> Source:
        generator = (each for each in decoded)
        rate = None if live else Fraction(FRAMES_PER_SECOND)
        return Source(generator, kind="camera" if live else "video", name="drive", frames_per_second=rate, live=live)


def answers_of(model: Segmenter, drive: Drive) -> Answers:
    """Run the network once on each frame: its outputs by what it was given."""
    answers = {}
    for frame in tqdm(drive.frames_bgr, desc="network", unit="frame", disable=None):
        prepared = model.prepare(frame)
        answers[_digest(prepared.tensor)] = model.infer(prepared)
    return answers


def recorded(contract: ModelContract, answers: Answers, *, takes_s: float = 0.0) -> Segmenter:
    """Return a model that gives the known answers, after as long as it would take: a wait, which uses no core."""

    def run(inputs: Arrays) -> dict[str, NDArray[Any]]:
        start_s = time.monotonic()
        found = answers[_digest(inputs[contract.input.name])]
        time.sleep(max(0.0, start_s + takes_s - time.monotonic()))
        return dict(found)

    return Segmenter(FunctionBackend(run, metadata={}), contract)


def _digest(tensor: NDArray[Any]) -> bytes:
    return hashlib.blake2b(tensor.tobytes(), digest_size=16).digest()
