"""Building an engine: the Python side of ``sfpp-engine``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sfpp.runtime.contract import EngineRecord, ModelContract, contract_from_metadata
from sfpp.runtime.errors import ModelFileError, UsageError
from sfpp.runtime.files import check_destinations, identity, sha256_of, whole_file
from sfpp.runtime.onnx_file import metadata_of
from sfpp.runtime.tensorrt.building import PhaseProgress
from sfpp.runtime.tensorrt.isolated import Built, build_in_process_of_its_own
from sfpp.runtime.tensorrt.library import Library, library_of
from sfpp.runtime.tensorrt.settings import CURRENT, EngineSettings
from sfpp.runtime.tensorrt.sidecar import SUFFIX, SUFFIXES, sidecar_of, this_platform
from sfpp.runtime.tensorrt.trtexec import trtexec_line

# Tried with TensorRT-RTX 1.7: three bytes for each value that a depth-wise convolution gives, 90 MB for a B0 at
# 1920x1080. https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix.html
_INT8_ON_RTX = (
    "NVIDIA lists INT8 for weights alone in TensorRT-RTX, and its engines of INT8 convolutions are large: the FP16 "
    "file is the better choice there, unless you measured otherwise"
)


@dataclass(frozen=True)
class EngineReport:
    """What was built.

    Attributes:
        path: the engine; plain bytes that any tool for this library can load.
        contract: what it takes and gives, and in ``engine`` what it was built with and for; stored in ``sidecar``.
        sidecar: a JSON file beside it.
        size_bytes: of the engine.
        seconds: that the build took.
        command: the line that builds the same with NVIDIA's own tool.
    """

    path: Path
    contract: ModelContract
    sidecar: Path
    size_bytes: int
    seconds: float
    command: str


def build_engine(
    model: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    backend: str | None = None,
    settings: EngineSettings | None = None,
    contract: ModelContract | None = None,
    notify: Callable[[str], object] = lambda line: None,
    progress: PhaseProgress = lambda phase, done, total: None,
) -> EngineReport:
    """Build an engine from an ONNX file, in a process of its own.

    The engine's types are the file's: float32, float16 or INT8 as it was exported or calibrated. Files appear whole or
    not at all, and nothing is left of a build that was stopped.

    Args:
        model: the .onnx file.
        path: the engine to write; None names it after the model, beside it. Its contract goes into a .json file of the
            same name.
        backend: ``tensorrt`` or ``tensorrt-rtx``; None takes what is installed, TensorRT first.
        settings: what to build for; None takes the defaults.
        contract: what the model takes and gives, for a file that does not say so itself.
        notify: told what is being done.
        progress: told of each phase of the builder.

    Raises:
        ModelFileError, ContractError: no such file, no contract, or the parser does not take it.
        UsageError: the library does not have what the settings ask for.
        BackendError: the builder gives up or is killed.
        MissingDependencyError: the library is not installed.
        SfppError: the engine cannot be written.
    """
    file, settings = Path(model), settings or EngineSettings()
    contract = contract or contract_of_model(file)
    library = library_of(backend, purpose="building an engine")
    settings.check_for(library.name)
    engine = file.with_suffix(SUFFIX) if path is None else Path(path)
    _check_destination(engine, file, settings.timing_cache)
    command = trtexec_line(library, file, engine, settings, precision=contract.precision)
    notify(f"building with {library.title} {library.version}; the same with its own tool: {command}")
    if library.is_rtx and contract.precision == "int8":
        notify(_INT8_ON_RTX)
    start = time.perf_counter()
    # The contract takes its place first: an engine without one cannot be opened.
    with whole_file(engine) as temporary, whole_file(sidecar_of(engine)) as sidecar:
        built = build_in_process_of_its_own(
            library, file, temporary, settings, precision=contract.precision, progress=progress
        )
        size = temporary.stat().st_size
        contract = replace(contract, engine=_record(library, built, settings, file))
        sidecar.write_text(contract.to_json() + "\n", encoding="utf-8")
    return EngineReport(engine, contract, sidecar_of(engine), size, time.perf_counter() - start, command)


def contract_of_model(file: Path) -> ModelContract:
    """Read the contract of an ONNX file, without any library.

    Raises:
        ModelFileError, ContractError: no such file, not an ONNX model, or it carries none.
    """
    if not file.is_file():
        raise ModelFileError(f"{file} is not a file; give the .onnx file that sfpp-export or sfpp-calibrate wrote")
    return contract_from_metadata(metadata_of(file), origin=file.name, instead="with --contract FILE.json")


def _check_destination(engine: Path, model: Path, timing_cache: Path | None) -> None:
    if engine.suffix == ".json":
        raise UsageError(f"{engine} would be overwritten by the engine's contract; name the engine {SUFFIX}")
    if identity(engine) == identity(model):
        raise UsageError(f"{engine} is the model itself; name the engine otherwise, for example with {SUFFIX}")
    if engine.suffix not in SUFFIXES:
        raise UsageError(f"{engine} is no name that an engine is opened by; expected one in {', '.join(SUFFIXES)}")
    check_destinations(engine, sidecar_of(engine), timing_cache, also_read=[model])


def _record(library: Library, built: Built, settings: EngineSettings, model: Path) -> EngineRecord:
    on_this_card = not library.is_rtx or settings.devices == (CURRENT,)
    here = (built.capability,) if built.capability else ()
    return EngineRecord(
        library=library.name,
        version=built.version,
        devices=here if on_this_card else settings.devices or (),
        card=built.card if on_this_card else "",
        platform=this_platform(),
        onnx_sha256=sha256_of([model]),
        version_compatible=settings.version_compatible,
        hardware_compatible=settings.hardware_compatible,
        dla=settings.dla,
    )
