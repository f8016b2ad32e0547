"""Engines of TensorRT and TensorRT-RTX: built from ONNX files, kept beside their contract, run by a backend."""

from __future__ import annotations

from sfpp.runtime.tensorrt.building import EngineSettings
from sfpp.runtime.tensorrt.engines import EngineReport, build_engine

__all__ = ["EngineReport", "EngineSettings", "build_engine"]
