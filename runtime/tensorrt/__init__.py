"""Engines of TensorRT and TensorRT-RTX: built from ONNX files, kept beside their contract, run by a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import lazy_names

if TYPE_CHECKING:
    from sfpp.runtime.tensorrt.building import EngineSettings as EngineSettings
    from sfpp.runtime.tensorrt.engines import EngineReport as EngineReport, build_engine as build_engine

__getattr__, __all__ = lazy_names(
    __name__,
    {"sfpp.runtime.tensorrt.building": "EngineSettings", "sfpp.runtime.tensorrt.engines": "EngineReport build_engine"},
    extra="tensorrt",
    purpose="building an engine",
)
