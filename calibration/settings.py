"""What to make, from which frames, and what it may lose: the settings of one calibration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sfpp.runtime.bench.settings import BackendSpec, backend_spec
from sfpp.runtime.cli.console import positive_int
from sfpp.runtime.contract import FloatType
from sfpp.runtime.errors import UsageError, did_you_mean
from sfpp.runtime.options import check_choices, option
from sfpp.tooling.label_rules import LabelRules

Made = Literal["fp16", "int8"]
Selection = Literal["random", "diverse"]
Ranges = Literal["auto", "minmax", "entropy", "percentile"]
PRECISIONS: tuple[Made, ...] = get_args(Made)
_SOURCE = "DIR|VIDEO|LIST"


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


@dataclass(frozen=True)
class CalibrationSettings(LabelRules):
    """The settings of one calibration; paths may be given as text, and backends as ``NAME[:PRECISION]``.

    Raises:
        UsageError: a value that cannot be meant.
    """

    model: Path = option("the float32 file that sfpp-export wrote", flags=("model",), metavar="MODEL.onnx")
    images: str = option("images, a video, or a .txt with one path per line", metavar=_SOURCE)
    validation: str | None = option(
        "other frames to evaluate on (default: some of --images, held out)", default=None, metavar=_SOURCE
    )
    labels: Path | None = option(
        "the truth about the validation frames: label images named like them; for pose a COCO data set or an .npz",
        default=None,
        metavar="DIR|FILE",
    )
    boxes: Path | None = option(
        "for pose: people's boxes (COCO); without, an image is one person's crop", default=None, metavar="FILE"
    )
    frames: int = option("how many frames to calibrate with", default=64, type=positive_int, metavar="N")
    held_out: int = option("how many others to evaluate on", default=24, type=positive_int, metavar="N")
    select: Selection = option("frames that look least alike, or any", default="diverse", choices=get_args(Selection))
    seed: int = option("seed of the selection", default=0, type=int, metavar="N")
    precision: tuple[Made, ...] = option(
        "fp16, int8 or both (default: fp16,int8)", default=PRECISIONS, type=_names, metavar="LIST"
    )
    max_drop: float | None = option(
        "what INT8 may lose: points (of 100) of mIoU or PCK with --labels, else per cent of predictions; the most "
        "sensitive layers then stay in higher precision (default: no limit)",
        default=None,
        type=float,
        metavar="X",
    )
    ranges: Ranges = option(
        "how INT8's ranges are cut; auto takes what costs least accuracy", default="auto", choices=get_args(Ranges)
    )
    rest: FloatType | None = option(
        "what an INT8 file computes in elsewhere: fp16 for GPUs, fp32 for CPUs (default: by the export's target)",
        default=None,
        choices=("fp32", "fp16"),
    )
    backends: tuple[BackendSpec, ...] = option(
        "where to time, as for sfpp-bench (default: the CPU backends that are installed)",
        default=(),
        flags=("--backend",),
        nargs="+",
        metavar="NAME",
    )
    latency: bool = option("time the files", default=True)
    output: Path = option("folder to write to", default=Path(), flags=("-o", "--output"), metavar="DIR")
    cache: bool = option(
        "reuse the ranges that were observed earlier for the same model, frames and settings",
        default=True,
    )
    contract: Path | None = option("metadata of a model that carries none, as JSON", default=None, metavar="FILE")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("model", "labels", "boxes", "output", "contract"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))
        for name in ("images", "validation"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else os.fspath(value))
        object.__setattr__(self, "precision", tuple(self.precision))
        specs = (each if isinstance(each, BackendSpec) else backend_spec(each) for each in self.backends)
        object.__setattr__(self, "backends", tuple(specs))
        check_choices(self)
        if unknown := [each for each in self.precision if each not in PRECISIONS]:
            raise UsageError(
                f"precision is {unknown[0]!r}{did_you_mean(str(unknown[0]), PRECISIONS)}; expected fp16, int8, or both"
            )
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
        if self.output.exists() and not self.output.is_dir():
            raise UsageError(f"the folder to write to, {self.output}, is a file; give a folder")

    def path_of(self, precision: str) -> Path:
        """Return where the file of a precision goes: beside the others, named after the float32 one."""
        return self.output / f"{self.model.stem}.{precision}.onnx"

    @property
    def page_path(self) -> Path:
        """Where the report goes as a page."""
        return self.output / f"{self.model.stem}.calibration.html"

    @property
    def json_path(self) -> Path:
        """Where the report goes as data."""
        return self.output / f"{self.model.stem}.calibration.json"
