"""The held-out frames on which a file's answers change most, with what changed marked."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from sfpp.calibration.material import Material
from sfpp.calibration.results import FileResult, Picture

_PICTURES_PER_FILE = 3


def worst_pictures(material: Material, files: Sequence[FileResult]) -> tuple[Picture, ...]:
    """Return a few frames of each file, those first on which it differs most from float32."""
    return tuple(picture for file in files for picture in _of_file(material, file.path, file.precision))


def _of_file(material: Material, path: Path, precision: str) -> list[Picture]:
    examiner = material.examiner
    disagreement = material.disagreement[path]
    worst = sorted(disagreement, key=lambda name: -disagreement[name])[:_PICTURES_PER_FILE]
    found: dict[str, Picture] = {}
    with contextlib.closing(examiner.open(path)) as model:
        for index, frame in enumerate(examiner.frames):
            if frame.name in worst:
                answer, _ = model.ask(frame)
                image = examiner.subject.marked(frame, answer, examiner.answer(index))
                found[frame.name] = Picture(frame.name, precision, image, 100 * disagreement[frame.name])
    return [found[name] for name in worst]
