"""What to make, from which frames, and what it may lose: the settings of one calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sfpp.calibration.frames.chosen import Selection
from sfpp.calibration.int8.ranges import METHODS
from sfpp.runtime.bench.settings import BackendSpec
from sfpp.runtime.contract import FloatType
from sfpp.runtime.errors import UsageError, did_you_mean

Made = Literal["fp16", "int8"]
Ranges = Literal["auto", "minmax", "entropy", "percentile"]
PRECISIONS: tuple[Made, ...] = get_args(Made)


@dataclass(frozen=True)
class CalibrationSettings:
    """The settings of one run; see :func:`sfpp.calibration.calibrate` for their meaning.

    Raises:
        UsageError: a value that cannot be meant.
    """

    model: Path
    images: str
    judge_by: str | None = None
    labels: Path | None = None
    boxes: Path | None = None
    contract: Path | None = None
    precision: tuple[Made, ...] = PRECISIONS
    frames: int = 64
    held_out: int = 24
    select: Selection = "diverse"
    seed: int = 0
    ranges: Ranges = "auto"
    max_drop: float | None = None
    rest: FloatType | None = None
    ignore: int | None = None
    backends: tuple[BackendSpec, ...] = ()
    output: Path = Path()
    cache: bool = True
    latency: bool = True

    def __post_init__(self) -> None:
        for name, value, known in (
            *(("precision", each, PRECISIONS) for each in self.precision),
            ("ranges", self.ranges, ("auto", *METHODS)),
            ("select", self.select, get_args(Selection)),
            *((("rest", self.rest, get_args(FloatType)),) if self.rest is not None else ()),
        ):
            if value not in known:
                hint = did_you_mean(str(value), known)
                raise UsageError(f"{name} is {value!r}{hint}; expected one of {', '.join(known)}")
        if not self.precision:
            raise UsageError("no precision is asked for; expected fp16, int8, or both")
        if self.frames < 1 or self.held_out < 1:
            raise UsageError(f"frames is {self.frames} and held_out {self.held_out}, expected at least 1 of each")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}, expected a whole number from 0")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise UsageError(f"max_drop is {self.max_drop}, expected points or per cent from 0 to 100")
        if self.model.suffix != ".onnx":
            raise UsageError(f"{self.model.name} is not an ONNX file; give the float32 .onnx file of sfpp-export")
        if not self.output.is_dir():
            problem = "is a file; give a folder" if self.output.exists() else "does not exist; create it first"
            raise UsageError(f"the folder to write to, {self.output}, {problem}")

    def path_of(self, precision: str) -> Path:
        """Return where the file of a precision goes: beside the others, named after the float32 one."""
        return self.output / f"{self.model.stem}.{precision}.onnx"
