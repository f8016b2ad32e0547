"""Inference libraries behind one small protocol, and the choice among them."""

from __future__ import annotations

from sfpp.runtime.backends.choice import (
    AUTO as AUTO,
    Choice as Choice,
    backend_choices as backend_choices,
    backend_names as backend_names,
    open_backend as open_backend,
)
from sfpp.runtime.backends.onnxruntime import OnnxRuntimeBackend as OnnxRuntimeBackend
from sfpp.runtime.backends.openvino import OpenVinoBackend as OpenVinoBackend
from sfpp.runtime.backends.protocol import (
    PRECISIONS as PRECISIONS,
    Arrays as Arrays,
    Backend as Backend,
    BackendOptions as BackendOptions,
    FunctionBackend as FunctionBackend,
    Notify as Notify,
    Precision as Precision,
    TensorInfo as TensorInfo,
)
