"""Libraries and names that are imported when they are first needed, so that nothing pays for what it does not use."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sfpp.runtime.errors import MissingDependencyError
from sfpp.runtime.resources import thread_limit

CV2_PIXELS = "OPENCV_IO_MAX_IMAGE_PIXELS"
_JETSON_MARKER = Path("/etc/nv_tegra_release")
_JETSON_ADVICE = (
    "on a Jetson take the system's own OpenCV, which has GStreamer (apt install python3-opencv), and a virtual "
    "environment made with --system-site-packages"
)


def import_cv2(*, purpose: str) -> Any:
    """Return the module ``cv2``; ``purpose`` begins the message when it cannot be had.

    Raises:
        MissingDependencyError: OpenCV is not installed, or is installed and does not load.
    """
    if "cv2" not in sys.modules:
        from sfpp.runtime.limits import limit  # no --help needs it

        # It asks when it is loaded. Its own limit is four times as high: 6 GB for a picture of a few kilobytes.
        os.environ.setdefault(CV2_PIXELS, str(limit("PIXELS")))
    try:
        import cv2
    except ImportError as error:
        raise _cv2_missing(error, purpose=purpose) from error
    _keep_to_allowed_cores(cv2)
    return cv2


def cv2_text(text: str) -> str:
    """Return a text as OpenCV can be given it.

    Halves of surrogate pairs, which names of files that are not UTF-8 hold in Python, end the process within OpenCV;
    they become question marks.
    """
    return text.encode("utf-8", "replace").decode()


@functools.lru_cache(maxsize=1)  # once: frames need it, and whoever sets another number means it
def _keep_to_allowed_cores(cv2: Any) -> None:
    if (most := thread_limit()) is not None:
        cv2.setNumThreads(most)


def _cv2_missing(cause: ImportError, *, purpose: str) -> MissingDependencyError:
    error = MissingDependencyError("OpenCV", extra="cpu", purpose=purpose)
    if _JETSON_MARKER.exists():
        # The wheels of PyPI know neither GStreamer nor CUDA and would shadow the system's build.
        error.msg = f"{purpose} needs OpenCV, which is not installed: {_JETSON_ADVICE}"
    elif not isinstance(cause, ModuleNotFoundError):
        # The usual reason is a desktop build on a machine without libGL.
        error.msg = (
            f"{purpose} needs OpenCV, which is installed but does not load ({cause}): "
            "replace it by the build without windows, pip install opencv-python-headless"
        )
    return error


def lazy_names(
    package: str, modules: Mapping[str, str], *, extra: str = "", purpose: str = ""
) -> tuple[Callable[[str], Any], list[str]]:
    """Return a package's ``__getattr__``, which imports the module of a name when it is asked for, and its ``__all__``.

    So ``--help`` stays instant, and one name of a package does not load all the others that its face offers.

    Args:
        package: the name of the package.
        modules: the names that it offers, with spaces between them, by the module that has them.
        extra: the extra of sfpp that brings the heavy libraries that the modules need; a missing one is then reported.
        purpose: what they are needed for, as in "exporting a checkpoint".
    """
    places = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(places[name]), name)
        except ModuleNotFoundError as error:
            if not extra or error.name is None or error.name.startswith("sfpp"):
                raise
            raise MissingDependencyError(error.name, extra=extra, purpose=purpose) from error

    return get, sorted(places)
