"""TensorRT and TensorRT-RTX: two modules of one shape, so that what is written over one holds for the other."""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from sfpp.runtime.errors import BackendError, MissingDependencyError, check_known

LibraryName = Literal["tensorrt", "tensorrt-rtx"]
LIBRARIES: tuple[LibraryName, ...] = get_args(LibraryName)
_MODULES: dict[LibraryName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_LEAN = "tensorrt_lean"  # NVIDIA's small build of TensorRT: it runs version-compatible engines, and builds none
_TITLES: dict[LibraryName, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_ADVICE: dict[LibraryName, str] = {
    "tensorrt": "on a Jetson it comes with JetPack (make the virtual environment with --system-site-packages), "
    "elsewhere pip install tensorrt-cu12 or tensorrt-cu13, as the driver's CUDA is",
    "tensorrt-rtx": "pip install 'sfpp[rtx]'",
}
_SHOWN = 8
_KEPT = 32
_STRONGLY_TYPED_SINCE = (10,)


@dataclass(frozen=True, eq=False)
class Library:
    """An imported library.

    Attributes:
        name: as commands take it.
        module: what was imported.
    """

    name: LibraryName
    module: Any

    @property
    def title(self) -> str:
        """The name as people write it."""
        return "TensorRT's lean runtime" if self.is_lean else _TITLES[self.name]

    @property
    def version(self) -> str:
        """Such as ``10.3.0``, or with a fourth number ``10.16.1.11``."""
        return str(self.module.__version__)

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX, which compiles kernels on the card that runs the engine."""
        return self.name == "tensorrt-rtx"

    @property
    def is_lean(self) -> bool:
        """Whether it is TensorRT's lean runtime, which runs version-compatible engines alone."""
        return str(self.module.__name__) == _LEAN


def is_installed(name: LibraryName) -> bool:
    """Return whether the library can be found, without importing it."""
    return _is_there(_MODULES[name])


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it was put into sys.modules by hand
        return True


def library_of(name: str | None, *, purpose: str, or_lean: bool = False) -> Library:
    """Import a library; None takes TensorRT if it is installed, else TensorRT-RTX.

    Args:
        name: ``tensorrt``, ``tensorrt-rtx`` or None.
        purpose: begins the message where it is missing.
        or_lean: where TensorRT is missing, take its lean runtime if that is installed.

    Raises:
        UsageError: another name.
        MissingDependencyError: it is not installed.
        BackendError: it is installed, but does not load.
    """
    chosen = _chosen(name)
    module = _MODULES[chosen]
    if or_lean and chosen == "tensorrt" and not is_installed(chosen) and _is_there(_LEAN):
        module = _LEAN
    elif not is_installed(chosen):
        either = f"{_ADVICE['tensorrt']}; for engines of RTX cards {_ADVICE['tensorrt-rtx']}"
        advice = _ADVICE[chosen] if name else either
        raise MissingDependencyError(_TITLES[chosen], extra="rtx", purpose=purpose, advice=advice)
    try:
        return Library(chosen, importlib.import_module(module))
    except (ImportError, OSError) as error:
        raise BackendError(
            f"{_TITLES[chosen]} is installed, but does not load: {error}; its libraries must fit this Python and "
            f"this CUDA: {_ADVICE[chosen]}"
        ) from error


def _chosen(name: str | None) -> LibraryName:
    if name is None:
        return "tensorrt-rtx" if is_installed("tensorrt-rtx") and not is_installed("tensorrt") else "tensorrt"
    check_known("the library", name, LIBRARIES)
    return cast(LibraryName, name)


def version_numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers; what is no number ends them."""
    numbers = []
    for part in version.split("."):
        if not re.fullmatch(r"[0-9]{1,9}", part):
            break
        numbers.append(int(part))
    return tuple(numbers)


def has_strong_types(library: Library) -> bool:
    """Whether the types in a file are what is computed in; before TensorRT 10 they are a suggestion."""
    return library.is_rtx or version_numbers(library.version) >= _STRONGLY_TYPED_SINCE


def keeping_logger(module: Any, messages: list[str]) -> Any:
    """Return a logger that keeps the first errors in a list; it must live as long as what was made with it.

    Whoever runs for days clears the list before each run.
    """

    class Logger(module.ILogger):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR) and len(messages) < _KEPT:
                messages.append(" ".join(message.split()))

    return Logger()


def joined(messages: list[str]) -> str:
    """Return the messages about a failure, the first ones first: later ones mostly follow from them."""
    shown = list(dict.fromkeys(messages))[:_SHOWN]
    return "; ".join(shown) or "it does not say why"
