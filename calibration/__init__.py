"""ONNX to ONNX: FP16 and INT8, each with its accuracy and its speed measured.

    from sfpp.calibration import calibrate
    report = calibrate("model.onnx", "images/", labels="labels/", max_drop=0.5)
    print(report.recommendation.text)

Neither torch nor the export is needed: what comes in and what goes out are files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import lazy_names

if TYPE_CHECKING:
    from sfpp.calibration.calibrating import calibrate as calibrate
    from sfpp.calibration.results import CalibrationReport as CalibrationReport

__getattr__, __all__ = lazy_names(
    __name__,
    {"sfpp.calibration.calibrating": "calibrate", "sfpp.calibration.results": "CalibrationReport"},
    extra="calibrate",
    purpose="calibrating a model",
)
