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
_TITLES: dict[LibraryName, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_ADVICE: dict[LibraryName, str] = {
    "tensorrt": "on a Jetson it comes with JetPack (make the virtual environment with --system-site-packages), "
    "elsewhere pip install tensorrt-cu12 or tensorrt-cu13, as the driver's CUDA is",
    "tensorrt-rtx": "pip install 'sfpp[rtx]'",
}
_SHOWN = 8


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
        return _TITLES[self.name]

    @property
    def version(self) -> str:
        """Such as ``10.3.0.30``."""
        return str(self.module.__version__)

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX, which compiles kernels on the card that runs the engine."""
        return self.name == "tensorrt-rtx"


def is_installed(name: LibraryName) -> bool:
    """Return whether the library can be found, without importing it."""
    try:
        return importlib.util.find_spec(_MODULES[name]) is not None
    except ValueError:  # it was put into sys.modules by hand
        return True


def library_of(name: str | None, *, purpose: str) -> Library:
    """Import a library; None takes TensorRT if it is installed, else TensorRT-RTX.

    Args:
        name: ``tensorrt``, ``tensorrt-rtx`` or None.
        purpose: begins the message where it is missing.

    Raises:
        UsageError: another name.
        MissingDependencyError: it is not installed.
        BackendError: it is installed, but does not load.
    """
    chosen = _chosen(name)
    if not is_installed(chosen):
        either = f"{_ADVICE['tensorrt']}; for engines of RTX cards {_ADVICE['tensorrt-rtx']}"
        advice = _ADVICE[chosen] if name else either
        raise MissingDependencyError(_TITLES[chosen], extra="rtx", purpose=purpose, advice=advice)
    try:
        return Library(chosen, importlib.import_module(_MODULES[chosen]))
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


def keeping_logger(module: Any, messages: list[str]) -> Any:
    """Return a logger that keeps errors in a list; it must live as long as what was made with it."""

    class Logger(module.ILogger):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR):
                messages.append(" ".join(message.split()))

    return Logger()


def joined(messages: list[str]) -> str:
    """Return the messages about a failure, the first ones first: later ones mostly follow from them."""
    shown = list(dict.fromkeys(messages))[:_SHOWN]
    return "; ".join(shown) or "it does not say why"
