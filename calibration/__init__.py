"""ONNX to ONNX: FP16 and INT8, each with its accuracy and its speed measured.

    from sfpp.calibration import calibrate
    report = calibrate("model.onnx", "images/", labels="labels/", max_drop=0.5)
    print(report.recommendation.text)

Neither torch nor the export is needed: what comes in and what goes out are files.
"""

from __future__ import annotations

from sfpp.calibration.calibrating import calibrate
from sfpp.calibration.results import CalibrationReport

__all__ = ["CalibrationReport", "calibrate"]
