"""Engines: built in a process of their own, for ``sfpp-engine`` or on first use, and kept beside their contract."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from sfpp.runtime import errors
from sfpp.runtime.cache import compiled_models_folder
from sfpp.runtime.contract import EngineRecord, ModelContract, contract_from_metadata
from sfpp.runtime.errors import BackendError, ModelFileError, SfppError, UsageError
from sfpp.runtime.files import check_destinations, check_utf8, identity, python_module, sha256_of, whole_file
from sfpp.runtime.onnx_file import metadata_of
from sfpp.runtime.tensorrt.building import CURRENT, EngineSettings, PhaseProgress
from sfpp.runtime.tensorrt.cuda import Card, Cuda
from sfpp.runtime.tensorrt.facts import trtexec_path
from sfpp.runtime.tensorrt.library import Library, has_strong_types, library_of, version_numbers
from sfpp.runtime.tensorrt.sidecar import SUFFIX, SUFFIXES, sidecar_of, this_platform

# Tried with TensorRT-RTX 1.7: three bytes for each value that a depth-wise convolution gives, 90 MB for a B0 at
# 1920x1080. https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix.html
_INT8_ON_RTX = (
    "NVIDIA lists INT8 for weights alone in TensorRT-RTX, and its engines of INT8 convolutions are large: the FP16 "
    "file is the better choice there, unless you measured otherwise"
)
_INTERVAL_S = 10.0
_WORKER = "sfpp.runtime.tensorrt.worker"
_LAST_WORDS = 6  # lines


@dataclass(frozen=True)
class EngineReport:
    """What was built.

    Attributes:
        path: the engine; plain bytes that any tool for this library can load.
        contract: what it takes and gives, and in ``engine`` what it was built with and for; stored in ``sidecar``.
        sidecar: a JSON file beside it.
        size_bytes: of the engine.
        seconds: that the build took.
        command: the line that builds the same with NVIDIA's own tool; TensorRT 8's lowers float32 layers too.
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
        notify: called with what is being done.
        progress: called with each phase of the builder.

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
    check_utf8(file, reader=library.title)
    command = trtexec_line(library, file, engine, settings, precision=contract.precision)
    near = (
        "the same with its own tool" if has_strong_types(library) else "its own tool, which lowers float32 layers too"
    )
    notify(f"building with {library.title} {library.version}; {near}: {command}")
    if library.is_rtx and contract.precision == "int8":
        notify(_INT8_ON_RTX)
    start = time.perf_counter()
    # The contract takes its place first: an engine without one cannot be opened.
    with whole_file(engine) as temporary, whole_file(sidecar_of(engine)) as sidecar:
        card = build_in_process_of_its_own(
            library, file, temporary, settings, precision=contract.precision, progress=progress, shown=engine
        )
        size = temporary.stat().st_size
        spec = replace(contract.input, open_batch=False)
        contract = replace(contract, input=spec, engine=_record(library, card, settings, file))
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
    if identity(engine) == identity(model):
        raise UsageError(f"{engine} is the model itself; name the engine otherwise, for example with {SUFFIX}")
    if engine.suffix not in SUFFIXES:
        raise UsageError(f"{engine} is no name that an engine is opened by; expected one in {', '.join(SUFFIXES)}")
    check_destinations(engine, sidecar_of(engine), timing_cache, also_read=[model])


def _record(library: Library, card: Card | None, settings: EngineSettings, model: Path) -> EngineRecord:
    on_this_card = not library.is_rtx or settings.devices == (CURRENT,)
    here = () if card is None else (card.capability,)
    return EngineRecord(
        library=library.name,
        version=library.version,
        devices=here if on_this_card else settings.devices or (),
        card=card.name if card and on_this_card else "",
        platform=this_platform(),
        onnx_sha256=sha256_of([model]),
        version_compatible=settings.version_compatible,
        hardware_compatible=settings.hardware_compatible,
        dla=settings.dla,
        same_capability=settings.same_capability,
        multiprocessors=card.multiprocessors if card and on_this_card else None,
    )


def kept_engine(model: Path, *, backend: str, build: bool, notify: Callable[[str], object]) -> Path:
    """Return the engine of an ONNX file for this card; it is built on first use, which takes minutes.

    It belongs to the file's content, the library's version and the card, so that a stale one is never used.

    Args:
        model: the .onnx file.
        backend: ``tensorrt`` or ``tensorrt-rtx``.
        build: whether one may be built; otherwise it must be there.
        notify: called with what is being built and how.

    Raises:
        BackendError: there is no card, there is no engine yet and none may be built, or the build fails.
        ModelFileError, ContractError, MissingDependencyError: as for :func:`build_engine`.
    """
    library = library_of(backend, purpose=f"running {model.name}")
    card = Cuda().card()
    engine = _place(model, library, card)
    if engine is not None and engine.is_file():
        return engine
    if not build:
        raise BackendError(
            f"there is no engine of {model.name} for {library.title} {library.version} on {card.name} yet, and none "
            f"may be built now; build it with sfpp-engine, or leave --no-build off"
        )
    if engine is None:
        raise BackendError(
            f"there is no place to keep an engine of {model.name} in: set SFPP_CACHE to a folder that can be written "
            "to, or build it with sfpp-engine"
        )
    notify(f"building an engine of {model.name} for {card.name}: takes minutes, and is kept for the next time")
    devices = (CURRENT,) if library.is_rtx else None
    report = build_engine(
        model, engine, backend=backend, settings=EngineSettings(devices=devices), progress=_every_few_seconds(notify)
    )
    notify(f"built in {report.seconds:.0f} s, {report.size_bytes / 1e6:.1f} MB")
    return engine


def has_kept_engine(model: Path, *, backend: str) -> bool:
    """Return whether :func:`kept_engine` need not build."""
    library = library_of(backend, purpose=f"running {model.name}")
    engine = _place(model, library, Cuda().card())
    return engine is not None and engine.is_file()


def _place(model: Path, library: Library, card: Card) -> Path | None:
    """Return where the engine lies or is to lie, None where nothing can be kept."""
    options = {
        "version": library.version,
        "card": card.name,
        "device": card.capability,
        "multiprocessors": card.multiprocessors,
        "platform": this_platform(),
    }
    folder = compiled_models_folder(model, library=f"{library.name}-engines", options=options)
    return None if folder is None else folder / (model.stem + SUFFIX)


def _every_few_seconds(notify: Callable[[str], object]) -> Callable[[str, int, int], None]:
    start = last = time.monotonic()

    def progress(phase: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _INTERVAL_S:
            last = now
            notify(f"building for {now - start:.0f} s: {phase}, {done} of {total}")

    return progress


def trtexec_line(library: Library, model: Path, engine: Path, settings: EngineSettings, *, precision: str) -> str:
    """Return the equivalent call of ``trtexec``, or of ``tensorrt_rtx``, which is its name in TensorRT-RTX."""
    numbers = version_numbers(library.version)
    tool = "tensorrt_rtx" if library.is_rtx else trtexec_path(library.version)
    words = [tool, f"--onnx={model}", f"--saveEngine={engine}"]
    if not library.is_rtx and numbers < (10,):
        words += {"fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}.get(precision, [])
    elif not library.is_rtx and numbers < (11,):
        words.append("--stronglyTyped")  # later versions have no other networks
    if settings.workspace_bytes is not None:
        words.append(f"--memPoolSize=workspace:{settings.workspace_bytes / (1 << 20):.12g}M")
    if settings.timing_cache is not None:
        words.append(f"--timingCacheFile={settings.timing_cache}")
    if settings.dla is not None:
        words += [f"--useDLACore={settings.dla}", "--allowGPUFallback"]
    if settings.version_compatible:
        words.append("--versionCompatible")
    if settings.hardware_compatible:
        words.append("--hardwareCompatibilityLevel=ampere+")
    if settings.same_capability:
        words.append("--hardwareCompatibilityLevel=sameComputeCapability")
    if library.is_rtx and settings.devices == (CURRENT,):
        words.append("--useGpu")
    elif library.is_rtx and settings.devices:
        words.append("--computeCapabilities=" + ",".join(each.removeprefix("sm") for each in settings.devices))
    return shlex.join([*words, "--skipInference"])


def build_in_process_of_its_own(
    library: Library,
    model: Path,
    engine: Path,
    settings: EngineSettings,
    *,
    precision: str,
    progress: PhaseProgress,
    parse_only: bool = False,
    shown: Path | None = None,
) -> Card | None:
    """Build ``model`` into the file ``engine``, and return this machine's card, if there is one.

    Arguments and errors are those of :func:`.building.engine_bytes`; ``shown`` is what the engine will be called.

    Raises:
        SfppError: the disk is full.
        BackendError: also where the process is killed or crashes.
    """
    job = {
        "library": library.name,
        "model": str(model),
        "engine": str(engine),
        "shown": str(shown or engine),
        "precision": precision,
        "parse_only": parse_only,
        "settings": dataclasses.asdict(settings),
    }
    # Not a pipe: nothing reads it during the build, and a library that prints more than it holds would wait for ever.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words, _worker(job, words) as process:
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line)
            if "phase" in message:
                progress(*message["phase"])
            elif "error" in message:
                raise _as_raised(message["error"])
            else:
                return Card(**message["done"]) if message["done"] else None
        code = process.wait()
        words.seek(0)
        raise _ended(code, library, words.read())


@contextlib.contextmanager
def _worker(job: dict[str, Any], words: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """Start the worker with a job, its errors into a file; whatever happens, it does not outlive the block."""
    with subprocess.Popen(
        **python_module(_WORKER),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=words,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it ended at once; its last words say why
                process.stdin.write(json.dumps(job, default=str) + "\n")
                process.stdin.flush()
            yield process
        finally:
            process.kill()


def _as_raised(error: dict[str, str]) -> SfppError:
    """Return the worker's error as it was raised there."""
    kind = getattr(errors, error["kind"])
    found: SfppError = (BackendError if kind is errors.MissingDependencyError else kind)(error["message"])
    return found


def _ended(code: int, library: Library, last_words: str) -> BackendError:
    """Return the error for a worker that ended without a message."""
    if code == -signal.SIGKILL:
        return BackendError(
            f"the build was killed, most likely by the system because memory ran out; {library.title} needs several "
            "times the model's size: close other programs, add swap, set --workspace 512MiB, or build for a smaller "
            "input size"
        )
    last = "; ".join(line.strip() for line in last_words.strip().splitlines()[-_LAST_WORDS:])
    how = f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with code {code}"
    return BackendError(
        f"the build ended {how}, which is a fault in {library.title} or its installation"
        + (f": {last}" if last else "; `sfpp-engine --check` may name the node that it does not take")
    )
