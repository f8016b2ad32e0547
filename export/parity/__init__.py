"""A model file against the PyTorch network that it was made from: right after an export, and any time later.

    from sfpp.export.parity import parity

    report = parity("model.int8.onnx", weights="weights.pth", images="street.mp4")
    report.agrees, report.place

``exported`` is the quick check that every export ends with; ``parity`` is the command ``sfpp-parity``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import names_from

if TYPE_CHECKING:
    from sfpp.export.parity.comparing import parity
    from sfpp.export.parity.report import AgreementReport

__all__ = ["AgreementReport", "parity"]

__getattr__ = names_from("sfpp.export.parity.comparing", __all__, extra="export", purpose="comparing with PyTorch")
