"""Checkpoint to ONNX: the models, token merging, lowering to a target, and the check against PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import names_from

if TYPE_CHECKING:
    from sfpp.export.to_onnx import ExportReport, export_onnx

__all__ = ["ExportReport", "export_onnx"]

__getattr__ = names_from("sfpp.export.to_onnx", __all__, extra="export", purpose="exporting a checkpoint")
