"""Inference libraries behind one small protocol, and the choice among them."""

from __future__ import annotations

from sfpp.runtime.backends.choice import Choice, backend_choices, backend_names, open_backend
from sfpp.runtime.backends.onnxruntime import OnnxRuntimeBackend
from sfpp.runtime.backends.openvino import OpenVinoBackend
from sfpp.runtime.backends.protocol import (
    PRECISIONS,
    Arrays,
    Backend,
    BackendOptions,
    FunctionBackend,
    Notify,
    Precision,
    TensorInfo,
)

__all__ = [
    "PRECISIONS",
    "Arrays",
    "Backend",
    "BackendOptions",
    "Choice",
    "FunctionBackend",
    "Notify",
    "OnnxRuntimeBackend",
    "OpenVinoBackend",
    "Precision",
    "TensorInfo",
    "backend_choices",
    "backend_names",
    "open_backend",
]
