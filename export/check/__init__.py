"""Whether an ONNX file builds and runs well in the TensorRT versions in the field, found out from the file alone.

    from sfpp.export.check import check_model, report_text

    print(report_text(check_model("model.onnx")))

``checking`` holds the table of all rules; each rule says where it is known from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfpp.runtime.imports import names_from

if TYPE_CHECKING:
    from sfpp.export.check.checking import check_model
    from sfpp.export.check.findings import ALL, CheckReport, Finding, Verdict, Version
    from sfpp.export.check.words import report_text

__all__ = ["ALL", "CheckReport", "Finding", "Verdict", "Version", "check_model", "report_text"]

_HOMES = {
    "findings": ("ALL", "CheckReport", "Finding", "Verdict", "Version"),
    "checking": ("check_model",),
    "words": ("report_text",),
}
_GETTERS = {
    name: names_from(f"{__name__}.{home}", names, extra="export", purpose="checking a model for TensorRT")
    for home, names in _HOMES.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    if name not in _GETTERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _GETTERS[name](name)
