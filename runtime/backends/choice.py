"""Choosing the library that runs a model file, and saying why."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sfpp.runtime.backends.onnxruntime import OnnxRuntimeBackend
from sfpp.runtime.backends.openvino import OpenVinoBackend
from sfpp.runtime.backends.protocol import DEFAULT_OPTIONS, PRECISION_WORDS, Backend, BackendOptions, Notify, say
from sfpp.runtime.contract import METADATA_KEY
from sfpp.runtime.errors import BackendError, ContractError, ModelFileError, UsageError, check_known
from sfpp.runtime.onnx_file import metadata_of
from sfpp.runtime.tensorrt.cuda import card_of_this_machine
from sfpp.runtime.tensorrt.library import LIBRARIES, LibraryName, is_installed
from sfpp.runtime.tensorrt.sidecar import SUFFIXES
from sfpp.runtime.typed_json import json_from_text

AUTO = "auto"  # on command lines, for a backend that is to be chosen
_ONNX = ".onnx"
_ENGINES = frozenset(SUFFIXES)
_STANDARD_TARGETS = frozenset({"portable", "openvino", "tensorrt"})  # operators of the ONNX standard only
_ALL_TARGETS = _STANDARD_TARGETS | {"onnxruntime"}  # and those of the domain com.microsoft
_X86 = {"x86_64", "amd64", "i386", "i686", "x86"}


@dataclass(frozen=True)
class Machine:
    """What of this machine decides on the backend; libraries are looked for, not imported."""

    x86: bool
    onnxruntime: bool
    openvino: bool
    cuda: bool
    tensorrt: str = ""  # which of its libraries is there together with a card


def _open_tensorrt(path: Path, options: BackendOptions, *, notify: Notify | None, library: LibraryName) -> Backend:
    from sfpp.runtime.backends.tensorrt import TensorRtBackend
    from sfpp.runtime.tensorrt.engines import kept_engine

    if path.suffix == _ONNX:
        path = kept_engine(path, backend=library, build=options.build, notify=lambda line: say(line, notify))
    opened = TensorRtBackend(path, options, library=library, notify=notify)
    if options.precision not in (None, opened.precision):
        opened.close()
        raise UsageError(
            f"an engine computes in what its file holds, here {opened.precision}, and {options.precision} was asked "
            "for; leave the precision off, or make a file of that precision with sfpp-calibrate"
        )
    return opened


_BACKENDS: dict[str, Callable[..., Backend]] = {  # called with path, options and notify=
    "onnxruntime": OnnxRuntimeBackend,
    "onnxruntime-cuda": partial(OnnxRuntimeBackend, device="cuda"),
    "onnxruntime-tensorrt": partial(OnnxRuntimeBackend, device="tensorrt"),
    "openvino": lambda path, options, *, notify: OpenVinoBackend(path, options),
    "tensorrt": partial(_open_tensorrt, library="tensorrt"),
    "tensorrt-rtx": partial(_open_tensorrt, library="tensorrt-rtx"),
}


def _targets(backend: str) -> frozenset[str]:
    """Return the targets of `sfpp-export` that a backend can run."""
    return _ALL_TARGETS if backend.startswith("onnxruntime") else _STANDARD_TARGETS


def backend_names() -> tuple[str, ...]:
    """Return the names that :func:`open_backend` takes."""
    return tuple(_BACKENDS)


@dataclass(frozen=True)
class Choice:
    """A backend for a file, not opened yet.

    Attributes:
        name: one of :func:`backend_names`.
        because: why this one, for people.
        asked: the user named it, or gave an engine, which nothing else runs: no other backend may take its place.
        path: the file.
        options: threads, precision, profile, cache, build.
    """

    name: str
    because: str
    asked: bool
    path: Path
    options: BackendOptions

    def open(self, notify: Notify | None = None) -> tuple[Backend, str]:
        """Open the file; return the opened model, and one line that says in which library it runs and why.

        Raises:
            SfppError: as for :func:`open_backend`.
        """
        opened = _BACKENDS[self.name](self.path, self.options, notify=notify)
        hint = "" if self.path.suffix in _ENGINES else _precision_hint(opened, self.options)
        return opened, f"{opened.description}: {self.because}{hint}"


def open_backend(
    path: Path,
    *,
    backend: str | None = None,
    options: BackendOptions = DEFAULT_OPTIONS,
    target: str | None = None,
    notify: Notify | None = None,
) -> tuple[Backend, str]:
    """Open ``path`` in the library that is asked for, or in the one that suits the file and this machine.

    Args:
        path: the .onnx file, or an engine that sfpp-engine built.
        backend: one of :func:`backend_names`; None chooses.
        options: threads, precision, profile, cache, build.
        target: what the file was exported for; None reads it from the file's contract, and a file without one is taken
            for portable.
        notify: called with warnings, besides the logger ``sfpp``.

    Returns:
        The opened model, and one line that says which library was chosen and why.

    Raises:
        ModelFileError: no such file, or a file that no backend opens.
        BackendError: the backend cannot run a file of this target, or its device is not there.
        MissingDependencyError: the backend's library is not installed.
        UsageError: an unknown backend, or a precision that it does not have on this machine.
    """
    return backend_choices(path, backend=backend, options=options, target=target)[0].open(notify)


def backend_choices(
    path: Path, *, backend: str | None = None, options: BackendOptions = DEFAULT_OPTIONS, target: str | None = None
) -> tuple[Choice, ...]:
    """Return the backends that suit a file and this machine, the preferred one first, or the one that is asked for.

    Args:
        path, backend, options, target: as for :func:`open_backend`.

    Raises:
        ModelFileError, BackendError, UsageError: as for :func:`open_backend`.
    """
    if not path.is_file():
        raise ModelFileError(f"{path} is not a file; give the .onnx file that sfpp-export wrote, or an engine of it")
    if path.suffix not in {_ONNX, *_ENGINES}:
        raise ModelFileError(
            f"{path.name}: no backend opens {path.suffix or 'a file without suffix'}; expected .onnx or .engine"
        )
    if backend is not None:
        check_known("backend", backend, _BACKENDS)
    if path.suffix in _ENGINES:
        return (_engine_choice(path, backend, options),)
    target = _target_of(path) if target is None else target
    if backend is not None:
        _check_target(path, target, backend)
        return (Choice(backend, "as asked for", True, path, options),)
    preferred = _preferred(target, _machine_for(path, options))
    _check_target(path, target, next(iter(preferred)))
    able = {name: because for name, because in preferred.items() if target in _targets(name)}
    return tuple(Choice(name, f"chosen because {because}", False, path, options) for name, because in able.items())


def _engine_choice(path: Path, backend: str | None, options: BackendOptions) -> Choice:
    if backend is not None and backend not in LIBRARIES:
        raise BackendError(
            f"{path.name} is an engine, which {backend} cannot run; leave the backend off, or take "
            f"{' or '.join(LIBRARIES)}"
        )
    # An engine knows its library; one that does not say is TensorRT's, unless the user knows better.
    return Choice(backend or "tensorrt", "the file is an engine", True, path, options)


def _machine_for(path: Path, options: BackendOptions) -> Machine:
    """Return this machine; TensorRT counts only where it has an engine of the file already, or may build one."""
    machine = this_machine()
    if machine.tensorrt and not options.build:
        from sfpp.runtime.tensorrt.engines import has_kept_engine

        if not has_kept_engine(path, backend=machine.tensorrt):
            return replace(machine, tensorrt="")
    return machine


def this_machine() -> Machine:
    """Return what of this machine decides on the backend."""
    return Machine(
        x86=platform.machine().lower() in _X86,
        onnxruntime=_installed_in("onnxruntime") is not None,
        openvino=_installed_in("openvino") is not None,
        cuda=_has_cuda(_installed_in("onnxruntime")),
        tensorrt=_usable_tensorrt(),
    )


def _usable_tensorrt() -> str:
    """Return the library that is installed, if there is a card for it."""
    installed = [name for name in LIBRARIES if is_installed(name)]
    return installed[0] if installed and card_of_this_machine() is not None else ""


def _preferred(target: str, machine: Machine) -> dict[str, str]:
    """Return the backends that suit, the preferred one first, each with the reason.

    ONNX Runtime's own TensorRT must be asked for.
    """
    preferences = (
        ("onnxruntime", target == "onnxruntime", "the file was exported for it"),
        ("tensorrt", machine.tensorrt == "tensorrt", "TensorRT and a card are there"),
        ("tensorrt-rtx", machine.tensorrt == "tensorrt-rtx", "TensorRT-RTX and a card are there"),
        ("onnxruntime-cuda", machine.cuda, "the installed ONNX Runtime has CUDA"),
        ("openvino", machine.x86 and machine.openvino, "this is an x86 CPU and OpenVINO is installed"),
        ("onnxruntime", machine.onnxruntime or not machine.openvino, "it runs ONNX files on every CPU"),
        ("openvino", machine.openvino, "ONNX Runtime is not installed"),
    )
    suiting: dict[str, str] = {}
    for backend, suits, because in preferences:
        if suits:
            suiting.setdefault(backend, because)
    return suiting


def _target_of(path: Path) -> str:
    """Return the target in the file's contract; a faulty contract is reported by whoever reads all of it."""
    text = metadata_of(path).get(METADATA_KEY, "{}")
    try:
        contract = json_from_text(text, where=path.name, raising=ContractError)
    except ContractError:
        return "portable"
    target = contract.get("target", "portable") if isinstance(contract, dict) else None
    return target if isinstance(target, str) else "portable"


def _check_target(path: Path, target: str, name: str) -> None:
    if target in _targets(name):
        return
    able = [each for each in _BACKENDS if target in _targets(each)]
    if not able:
        raise BackendError(
            f"{path.name} was exported for the target {target!r}, which this sfpp does not know (it knows "
            f"{', '.join(sorted(_ALL_TARGETS))}): upgrade sfpp on this machine, "
            "or export the model again with sfpp-export --target portable"
        )
    raise BackendError(
        f"{path.name} was exported for the target {target!r}, which the backend {name} cannot run; "
        f"choose {' or '.join(able)}, or export the model again with sfpp-export --target portable"
    )


def _precision_hint(opened: Backend, options: BackendOptions) -> str:
    """Say how to get float32 where less was taken by default."""
    if options.precision is not None or opened.precision == "fp32":
        return ""
    words = PRECISION_WORDS.get(opened.precision, opened.precision)
    return f"; {words} is native here, --precision fp32 computes in float32"


def _installed_in(package: str) -> Path | None:
    """Return a package's folder without importing it, which would take memory and time for nothing."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # it was put into sys.modules by hand
        return None
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def _has_cuda(folder: Path | None) -> bool:
    # The provider is a library of its own in each of ONNX Runtime's builds for NVIDIA, also those for Jetson.
    return folder is not None and any((folder / "capi").glob("*onnxruntime_providers_cuda.*"))
