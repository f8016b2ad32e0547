"""ONNX to ONNX: FP16 and INT8, each with its accuracy and its speed measured.

    from sfpp.calibration import calibrate
    report = calibrate("model.onnx", "images/", labels="labels/", max_drop=0.5)
    print(report.recommendation.text)

Neither torch nor the export is needed: what comes in and what goes out are files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import names_from

if TYPE_CHECKING:
    from sfpp.calibration.calibrating import calibrate
    from sfpp.calibration.results import CalibrationReport

__all__ = ["CalibrationReport", "calibrate"]

__getattr__ = names_from("sfpp.calibration.calibrating", __all__, extra="calibrate", purpose="calibrating a model")
