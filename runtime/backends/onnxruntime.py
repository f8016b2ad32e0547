"""ONNX Runtime as a backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sfpp.runtime.backends.protocol import Arrays
from sfpp.runtime.errors import BackendError, MissingDependencyError, ModelFileError

SUFFIXES = (".onnx",)


class OnnxRuntimeBackend:
    """An ONNX file opened in ONNX Runtime on the CPU.

    Args:
        path: the ONNX file.
        threads: threads within an operator; None leaves the choice to ONNX Runtime (one a physical core).

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        ModelFileError: the file is not an ONNX model that this ONNX Runtime can open.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError("onnxruntime", extra="cpu", purpose=f"running {path.name}") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings about unused initializers are noise to a user
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exception classes have no common base but Exception
            raise ModelFileError(
                f"{path} cannot be opened as an ONNX model: {_first_line(error)}. "
                "If it was copied from elsewhere, it may be truncated; otherwise export it again"
            ) from error
        self._version = str(onnxruntime.__version__)
        self._metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self._output_names = [output.name for output in self._session.get_outputs()]

    @property
    def description(self) -> str:
        """Library, version and device."""
        return f"ONNX Runtime {self._version} on the CPU"

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's ``metadata_props``."""
        return self._metadata

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; see :class:`sfpp.runtime.backends.protocol.Backend`."""
        if self._session is None:
            raise BackendError(f"{self.description}: the model was closed; load it again to run it")
        try:
            outputs = self._session.run(self._output_names, dict(inputs))
        except Exception as error:  # as above
            raise BackendError(f"{self.description} failed: {_first_line(error)}") from error
        return dict(zip(self._output_names, outputs, strict=True))

    def close(self) -> None:
        """Release the session and its memory; closing twice is harmless."""
        self._session = None


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
