"""Whether an ONNX file builds and runs well in the TensorRT versions in the field, found out from the file alone.

    from sfpp.export.check import check_model, report_text

    print(report_text(check_model("model.onnx")))

``checking`` holds the table of all rules; each rule says where it is known from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import lazy_names

if TYPE_CHECKING:
    from sfpp.export.check.checking import check_model as check_model
    from sfpp.export.check.findings import CheckReport as CheckReport
    from sfpp.export.check.words import report_text as report_text

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "sfpp.export.check.checking": "check_model",
        "sfpp.export.check.findings": "CheckReport",
        "sfpp.export.check.words": "report_text",
    },
    extra="export",
    purpose="checking a model for TensorRT",
)
