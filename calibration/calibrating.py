"""The Python face of ``sfpp-calibrate``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sfpp.calibration.frames.chosen import Selection
from sfpp.calibration.report.page import write_report
from sfpp.calibration.results import CalibrationReport
from sfpp.calibration.run import run
from sfpp.calibration.settings import PRECISIONS, CalibrationSettings, Made, Ranges
from sfpp.runtime.bench.settings import backend_spec
from sfpp.runtime.contract import FloatType
from sfpp.runtime.files import check_destinations, write_text


def _silent(*args: Any) -> None:
    """Say nothing."""


def calibrate(
    model: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    judge_by: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    boxes: str | os.PathLike[str] | None = None,
    contract: str | os.PathLike[str] | None = None,
    precision: Sequence[Made] = PRECISIONS,
    frames: int = 64,
    held_out: int = 24,
    select: Selection = "diverse",
    seed: int = 0,
    ranges: Ranges = "auto",
    max_drop: float | None = None,
    rest: FloatType | None = None,
    ignore: int | None = None,
    backends: Sequence[str] = (),
    output: str | os.PathLike[str] = ".",
    cache: bool = True,
    latency: bool = True,
    report: bool = True,
    notify: Callable[[str], object] = _silent,
    progress: Callable[[str, int, int], object] = _silent,
) -> CalibrationReport:
    """Make FP16 and INT8 files of a float32 model, and measure what each loses and how fast it is.

    Writes ``NAME.fp16.onnx``, ``NAME.int8.onnx`` and the report as ``NAME.calibration.html`` and ``.json``.

    Args:
        model: the float32 .onnx file that sfpp-export wrote.
        images: what to calibrate with and judge by: a folder of pictures, a video, a .txt list, or one picture.
        judge_by: other frames to judge by; None holds some of ``images`` out.
        labels: the truth about the frames to judge by: a folder of label pictures named like
            them, or for pose a COCO data set or an .npz.
        boxes: for pose without annotated people, their boxes in a COCO-style file; without, each picture is taken for a
            crop of one person.
        contract: facts about a model that carries none, as JSON.
        precision: what to make: ``fp16``, ``int8``, or both.
        frames: how many to calibrate with.
        held_out: how many others to judge by.
        select: ``diverse`` takes frames that look least alike, ``random`` any.
        seed: of the choice.
        ranges: how INT8's ranges are cut: ``minmax``, ``entropy``, ``percentile``, or ``auto``, whichever does least
            harm.
        max_drop: what INT8 may lose: points (of 100) of mean IoU or PCK with labels, else per cent of the answers. The
            parts that it harms most are then kept out of it. None sets no limit.
        rest: what an INT8 file computes in where INT8 is not; None is ``fp16`` for models exported for TensorRT, else
            ``fp32``.
        ignore: value of label pictures for pixels that do not count; None takes the one value beyond the classes.
        backends: where to time the files, such as ``openvino:bf16``; none takes the CPU backends that are installed.
        output: the folder to write to.
        cache: keep observed ranges in the user's cache, and use them if model, frames and settings are the same.
        latency: time the files.
        report: write the report.
        notify: told what is being done.
        progress: told how far a step has come: its name, how many parts are done, and how many there are.

    Raises:
        UsageError: a setting that cannot be meant, a model of lower precision already, or a file to write that is one
            of those that are read.
        ModelFileError: the model cannot be read, or its sizes are not fixed.
        ContractError: it carries no contract and none is given.
        MediaError: frames or labels cannot be read.
        BackendError: the model does not run, or answers with NaN.
        MissingDependencyError: a library is not installed.
    """
    settings = CalibrationSettings(
        model=Path(model),
        images=os.fspath(images),
        judge_by=None if judge_by is None else os.fspath(judge_by),
        labels=None if labels is None else Path(labels),
        boxes=None if boxes is None else Path(boxes),
        contract=None if contract is None else Path(contract),
        precision=tuple(precision),
        frames=frames,
        held_out=held_out,
        select=select,
        seed=seed,
        ranges=ranges,
        max_drop=max_drop,
        rest=rest,
        ignore=ignore,
        backends=tuple(backend_spec(each) for each in backends),
        output=Path(output),
        cache=cache,
        latency=latency,
    )
    check_destinations(
        *map(settings.path_of, settings.precision),
        *(report_paths(settings.model, settings.output) if report else ()),
        also_read=[model, images, judge_by, labels, boxes, contract],
    )
    found = run(settings, notify=notify, progress=progress)
    if report:
        page, data = report_paths(settings.model, settings.output)
        write_report(found, page)
        write_text(data, found.to_json())
    return found


def report_paths(model: Path, output: Path) -> tuple[Path, Path]:
    """Return where the report of a model goes: the page, and the JSON."""
    stem = output / f"{model.stem}.calibration"
    return stem.with_name(f"{stem.name}.html"), stem.with_name(f"{stem.name}.json")
