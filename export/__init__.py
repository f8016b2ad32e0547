"""Checkpoint to ONNX: the models, token merging, lowering to a target, and the check against PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfpp.runtime.errors import MissingDependencyError

if TYPE_CHECKING:
    from sfpp.export.to_onnx import ExportReport, export_onnx

__all__ = ["ExportReport", "export_onnx"]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for, so that ``--help`` stays instant."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from sfpp.export import to_onnx
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("sfpp"):
            raise
        raise MissingDependencyError(error.name, extra="export", purpose="exporting a checkpoint") from error
    return getattr(to_onnx, name)
