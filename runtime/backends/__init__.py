"""Inference libraries behind one small protocol, and the choice among them."""

from __future__ import annotations

from pathlib import Path

from sfpp.runtime.backends.onnxruntime import OnnxRuntimeBackend
from sfpp.runtime.backends.protocol import Arrays, Backend, FunctionBackend
from sfpp.runtime.errors import ModelFileError

__all__ = ["Arrays", "Backend", "FunctionBackend", "OnnxRuntimeBackend", "open_backend"]


def open_backend(path: Path, *, threads: int | None = None) -> tuple[Backend, str]:
    """Open ``path`` in the library that suits it.

    Returns:
        The opened model, and one line that says which library was chosen and why.

    Raises:
        ModelFileError: no such file, or a kind of file that no backend opens.
    """
    if not path.is_file():
        raise ModelFileError(f"{path} is not a file; give the .onnx file that sfpp-export wrote")
    if path.suffix != ".onnx":
        raise ModelFileError(f"{path.name}: no backend opens {path.suffix or 'a file without suffix'}; expected .onnx")
    backend = OnnxRuntimeBackend(path, threads=threads)
    return backend, f"{backend.description}: the backend for ONNX files on this machine"
