"""A model file against the PyTorch network that it was made from: right after an export, and any time later.

    from sfpp.export.parity import parity

    report = parity("model.int8.onnx", weights="weights.pth", images="street.mp4")
    report.agrees, report.place

``exported`` is the quick check that every export ends with; ``parity`` is the command ``sfpp-parity``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfpp.runtime.errors import MissingDependencyError

if TYPE_CHECKING:
    from sfpp.export.parity.measuring import parity
    from sfpp.export.parity.report import AgreementReport

__all__ = ["AgreementReport", "parity"]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for, so that ``--help`` stays instant."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from sfpp.export.parity import measuring
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("sfpp"):
            raise
        raise MissingDependencyError(error.name, extra="export", purpose="comparing with PyTorch") from error
    return getattr(measuring, name)
