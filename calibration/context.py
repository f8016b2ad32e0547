"""What all steps of a calibration work on, and how they report how far they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from sfpp.calibration.chosen_frames import ChosenFrames
from sfpp.calibration.evaluate import REFERENCE_BACKEND, Evaluation, Evaluator, drop_of
from sfpp.calibration.int8.int8_model import int8_model
from sfpp.calibration.int8.quantizable import Int8Form, form_for
from sfpp.calibration.int8.ranges import Range
from sfpp.calibration.results import FileResult
from sfpp.calibration.settings import CalibrationSettings
from sfpp.runtime.contract import CalibrationRecord, FloatType, InputSpec, ModelContract, SelfTest
from sfpp.runtime.model_file import load
from sfpp.runtime.self_test import self_test, threshold_for
from sfpp.runtime.timing import StepClock
from sfpp.tooling.graph import opened_batch, opset_of, write_model
from sfpp.tooling.label_images import TruthSummary

Notify = Callable[[str], object]
# Called with the name of a step, how many of its parts are done, and how many there are.
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, eq=False)
class CalibrationContext:
    """What all steps work on.

    Attributes:
        settings: what was asked for.
        model: the float32 graph, with the shape of every tensor.
        contract: its contract; of a file for any number of frames, that for one.
        file_input: what the file takes, and so what is made of it.
        model_sha256: of its file.
        chosen: the frames.
        evaluator: evaluates files on the held-out frames.
        folder: for files that nobody keeps.
        clock: times the steps, and reports what is found.
        progress: called with how far a step has come.
        truth: what the label images of the held-out frames hold; None without any.
        disagreement: filled with what each file that was made predicts differently, by frame.
    """

    settings: CalibrationSettings
    model: onnx.ModelProto
    contract: ModelContract
    file_input: InputSpec
    model_sha256: str
    chosen: ChosenFrames
    evaluator: Evaluator
    folder: Path
    clock: StepClock
    progress: Progress
    truth: TruthSummary | None = None
    disagreement: dict[Path, Mapping[str, float]] = field(default_factory=dict)

    @property
    def rest(self) -> FloatType:
        """What an INT8 file computes in where INT8 is not: what is fastest on the target."""
        return self.settings.rest or ("fp16" if self.contract.target == "tensorrt" else "fp32")

    @property
    def form(self) -> Int8Form:
        """How INT8 is written for what will run it."""
        return form_for(self.contract.target, self.rest)

    def evaluated(self, step: str, path: Path) -> Evaluation:
        """Evaluate a file on all frames, as a step of its own."""
        with self.clock.step(step):
            return self.evaluator.evaluate(path, progress=partial(self.progress, step))

    def evaluate(self, model: onnx.ModelProto, precision: str, **options: Any) -> Evaluation:
        """Evaluate a graph that nobody keeps; for the options see :meth:`.Evaluator.evaluate`."""
        with _written(model, replace(self.contract, precision=precision), self.folder) as path:
            return self.evaluator.evaluate(path, **options)

    def write(self, model: onnx.ModelProto, precision: str, record: CalibrationRecord) -> Path:
        """Write the file of a precision."""
        path = self.settings.path_of(precision)
        contract = replace(self.contract, precision=precision, calibration=record, opset=opset_of(model))
        contract = replace(contract, self_test=fitted_self_test(model, contract, self.folder))
        if self.file_input.open_batch:
            model, contract = opened_batch(model), replace(contract, input=self.file_input)
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

    def result(self, path: Path, precision: str, seen: Evaluation, **facts: Any) -> FileResult:
        """Return a row of the report, and remember on which frames the file differs."""
        self.disagreement[path] = seen.disagreement
        return FileResult(path, precision, path.stat().st_size, seen.accuracy, self.drop(seen), **facts)

    def drop(self, seen: Evaluation) -> float:
        """Return what is lost against float32; see :func:`drop_of`."""
        return drop_of(seen.accuracy, self.evaluator.reference.accuracy)


@dataclass(frozen=True, eq=False)
class Trials:
    """A network with these or those nodes in INT8, written only to be evaluated.

    It has float32 elsewhere: that is faster on a CPU, and shows what INT8 alone does.

    Attributes:
        context: what to work on.
        base: the float32 graph.
        ranges: of the tensors that are quantized.
    """

    context: CalibrationContext
    base: onnx.ModelProto
    ranges: Mapping[str, Range]

    def evaluate(self, nodes: Collection[str] | None, *, first: int | None = None) -> Evaluation:
        """Evaluate the network with these nodes in INT8 (None: all) on all frames, or on the ``first`` ones."""
        model = int8_model(self.base, self.ranges, nodes=nodes, form=self.context.form)
        return self.context.evaluate(model, "int8", first=first)

    def drop(self, nodes: Collection[str]) -> float:
        """Return what is lost with these nodes in INT8."""
        return self.context.drop(self.evaluate(nodes))


def fitted_self_test(model: onnx.ModelProto, contract: ModelContract, folder: Path) -> SelfTest | None:
    """Return the contract's self-test with a threshold that suits the model; None where it has none.

    The expected answer stays that of float32. How much of it a quantized network gives depends on the network, so it is
    measured, where it computes what the file says.

    Args:
        model: the graph of lower precision.
        contract: its contract, with the self-test of the float32 file.
        folder: for a file that nobody keeps.

    Raises:
        BackendError: the model does not run, or gives NaN.
        ContractError: the self-test is damaged.
    """
    if contract.self_test is None:
        return None
    backend, precision = REFERENCE_BACKEND.name, REFERENCE_BACKEND.precision
    with (
        _written(model, contract, folder) as path,
        load(path, backend=backend, precision=precision, self_test=False) as opened,
    ):
        seen = self_test(opened)
    threshold = min(contract.self_test.threshold, threshold_for(contract, seen.agreement))
    return replace(contract.self_test, threshold=threshold)


@contextlib.contextmanager
def _written(model: onnx.ModelProto, contract: ModelContract, folder: Path) -> Iterator[Path]:
    """Write a file that nobody keeps, for the length of a block."""
    path = folder / "candidate.onnx"
    write_model(model, contract, path)
    try:
        yield path
    finally:
        path.unlink()
