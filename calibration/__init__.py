"""ONNX to ONNX: FP16 and INT8, each with its accuracy and its speed measured.

    from sfpp.calibration import calibrate
    report = calibrate("model.onnx", "images/", labels="labels/", max_drop=0.5)
    print(report.recommendation.text)

Neither torch nor the export is needed: what comes in and what goes out are files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfpp.runtime.errors import MissingDependencyError

if TYPE_CHECKING:
    from sfpp.calibration.calibrating import calibrate
    from sfpp.calibration.results import CalibrationReport

__all__ = ["CalibrationReport", "calibrate"]


def __getattr__(name: str) -> Any:
    """Import what needs onnx only when it is asked for, so that ``--help`` stays instant."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from sfpp.calibration import calibrating
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("sfpp"):
            raise
        raise MissingDependencyError(error.name, extra="calibrate", purpose="calibrating a model") from error
    return getattr(calibrating, name)
