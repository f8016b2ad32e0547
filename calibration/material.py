"""What all steps of a calibration work on, and how they tell how far they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from sfpp.calibration.frames.chosen import ChosenFrames
from sfpp.calibration.graph import opset_of, write_model
from sfpp.calibration.int8.form import Int8Form, form_for
from sfpp.calibration.judging.examination import Examination, Examiner, drop_of
from sfpp.calibration.results import FileResult
from sfpp.calibration.self_test import fitted_self_test
from sfpp.calibration.settings import CalibrationSettings
from sfpp.runtime.contract import CalibrationRecord, FloatType, ModelContract
from sfpp.runtime.timing import StepClock

Notify = Callable[[str], object]
# Told of a step: its name, how many of its parts are behind us, and how many there are.
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, eq=False)
class Material:
    """What all steps work on.

    Attributes:
        settings: what was asked for.
        model: the float32 graph, with the shape of every tensor.
        contract: its contract.
        model_sha256: of its file.
        chosen: the frames.
        examiner: judges files by the held-out frames.
        folder: for files that nobody keeps.
        clock: times the steps, and is told what is found.
        progress: told how far a step has come.
        disagreement: filled with what each file that was made answers differently, by frame.
    """

    settings: CalibrationSettings
    model: onnx.ModelProto
    contract: ModelContract
    model_sha256: str
    chosen: ChosenFrames
    examiner: Examiner
    folder: Path
    clock: StepClock
    progress: Progress
    disagreement: dict[Path, Mapping[str, float]] = field(default_factory=dict)

    @property
    def rest(self) -> FloatType:
        """What an INT8 file computes in where INT8 is not: what is fastest on the target."""
        return self.settings.rest or ("fp16" if self.contract.target == "tensorrt" else "fp32")

    @property
    def form(self) -> Int8Form:
        """How INT8 is written for what will run it."""
        return form_for(self.contract.target, self.rest)

    def notify(self, line: str) -> None:
        """Say what was found."""
        self.clock.notify(line)

    def part(self, step: str) -> Callable[[int, int], object]:
        """Return the progress of one step."""
        return lambda done, total: self.progress(step, done, total)

    def write(self, model: onnx.ModelProto, precision: str, record: CalibrationRecord) -> Path:
        """Write the file of a precision."""
        path = self.settings.path_of(precision)
        contract = replace(self.contract, precision=precision, calibration=record, opset=opset_of(model))
        contract = replace(contract, self_test=fitted_self_test(model, contract, self.folder))
        write_model(model, contract, path)
        return path

    def record(self, frames: int, **facts: Any) -> CalibrationRecord:
        """Return how a file is made from these many of the calibration frames."""
        used = self.chosen.calibration.first(frames)
        return CalibrationRecord(
            model_sha256=self.model_sha256,
            frames_sha256=used.sha256,
            frames=len(used),
            selection=self.settings.select,
            seed=self.settings.seed,
            **facts,
        )

    def result(self, path: Path, precision: str, seen: Examination, **facts: Any) -> FileResult:
        """Return a row of the report, and remember on which frames the file differs."""
        self.disagreement[path] = seen.disagreement
        drop = drop_of(seen.accuracy, self.examiner.reference.accuracy)
        return FileResult(path, precision, path.stat().st_size, seen.accuracy, drop, **facts)
