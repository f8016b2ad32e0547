"""Checkpoint to ONNX: the models, token merging, lowering to a target, and the check against PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import lazy_names

if TYPE_CHECKING:
    from sfpp.export.to_onnx import ExportReport as ExportReport, export_onnx as export_onnx

__getattr__, __all__ = lazy_names(
    __name__, {"sfpp.export.to_onnx": "ExportReport export_onnx"}, extra="export", purpose="exporting a checkpoint"
)
