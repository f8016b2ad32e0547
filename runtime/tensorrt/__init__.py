"""Engines of TensorRT and TensorRT-RTX: built from ONNX files, kept beside their contract, run by a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfpp.runtime.imports import names_from

if TYPE_CHECKING:
    from sfpp.runtime.tensorrt.building import EngineSettings
    from sfpp.runtime.tensorrt.engines import EngineReport, build_engine

__all__ = ["EngineReport", "EngineSettings", "build_engine"]

__getattr__ = names_from("sfpp.runtime.tensorrt.engines", __all__, extra="tensorrt", purpose="building an engine")
