"""A model file against the PyTorch network that it was made from: right after an export, and any time later.

    from sfpp.export.parity import parity

    report = parity("model.int8.onnx", weights="weights.pth", images="street.mp4")
    report.agrees, report.place

``exported`` is the quick check that every export ends with; ``parity`` is the command ``sfpp-parity``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import lazy_names

if TYPE_CHECKING:
    from sfpp.export.parity.comparing import parity as parity
    from sfpp.export.parity.report import AgreementReport as AgreementReport

__getattr__, __all__ = lazy_names(
    __name__,
    {"sfpp.export.parity.comparing": "parity", "sfpp.export.parity.report": "AgreementReport"},
    extra="export",
    purpose="comparing with PyTorch",
)
