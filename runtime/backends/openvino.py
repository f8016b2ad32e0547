"""OpenVINO as a backend, on the CPU."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.backends.protocol import (
    DEFAULT_OPTIONS,
    PRECISION_WORDS,
    Arrays,
    BackendOptions,
    Precision,
    TensorInfo,
    check_inputs,
    not_profiled,
    was_closed,
)
from sfpp.runtime.cache import compiled_models_folder
from sfpp.runtime.contract import METADATA_KEY
from sfpp.runtime.errors import BackendError, MissingDependencyError, UsageError
from sfpp.runtime.machine import cpu_kind
from sfpp.runtime.onnx_file import metadata_of, not_an_onnx_model
from sfpp.runtime.resources import thread_limit

# OpenVINO's names: for what it is to compute in, and for what it says a CPU can do.
_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: dict[Precision, str] = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}
_TELEMETRY = "openvino_telemetry"
# Lines of an error that name OpenVINO's source files, not what is wrong.
_PREAMBLES = ("Exception from ", "Check '", "FrontEnd API failed")


class OpenVinoBackend:
    """An ONNX file compiled by OpenVINO for the CPU.

    Args:
        path: the ONNX file.
        options: threads, precision, profile, cache; without a precision it computes in bfloat16 where the CPU has it in
            hardware, else in float32.

    Raises:
        MissingDependencyError: openvino is not installed.
        ModelFileError: the file is not an ONNX model that this OpenVINO can compile.
        UsageError: a precision that this CPU does not have.
    """

    def __init__(
        self,
        path: Path,
        options: BackendOptions = DEFAULT_OPTIONS,
    ) -> None:
        from sfpp.runtime.backends.lending import KeptArrays  # not needed by who lists the backends

        self.metadata: Final[Mapping[str, str]] = metadata_of(path)
        openvino = _import_openvino(path)
        core = _core_of_process()
        self.precision: Final = _precision_on(core, options.precision)
        version = str(openvino.__version__).split("-")[0]
        self.description: Final = f"OpenVINO {version} on the CPU in {PRECISION_WORDS[self.precision]}"
        settings = _core_settings(options, self.precision)
        # A foreign file may have its weights in another one, which a cached model would not be known by.
        cached = options.cache and METADATA_KEY in self.metadata
        try:
            self._request: Any = _compiled(core, path, settings, cached=cached).create_infer_request()
        except Exception as error:  # OpenVINO raises RuntimeError and what pybind11 makes of others
            raise not_an_onnx_model(path, _useful_line(error)) from error
        self.inputs: Final = tuple(map(_info, self._request.model_inputs))
        self._output_names = list(map(_name_of, self._request.model_outputs))
        self._arrays = KeptArrays()
        self._profile, self._runs = options.profile, 0
        # A request holds one run's tensors: unlike a session of ONNX Runtime it cannot be run by two threads at once.
        self._lock = threading.Lock()

    def lend(self, tensor: TensorInfo) -> NDArray[Any] | None:
        """Lend an array for an input; see :class:`.Lends`."""
        return self._arrays.lend(tensor)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; see :class:`.Backend`."""
        with self._lock:
            if self._request is None:
                raise was_closed(self.description)
            # OpenVINO would convert another type, and take the last run's values for a missing input.
            check_inputs(self.description, inputs, self.inputs)
            try:
                # Inputs are read where they lie. Outputs are copied: OpenVINO would overwrite them in the next run.
                outputs = self._request.infer(dict(inputs), share_inputs=True, share_outputs=False)
            except Exception as error:  # as above
                raise BackendError(f"{self.description} failed: {_useful_line(error)}") from error
            self._runs += 1
            return {name: outputs[index] for index, name in enumerate(self._output_names)}

    def operator_times_ms(self) -> dict[str, float]:
        """Return the mean milliseconds by type of operator, named as OpenVINO fuses them; see :class:`.Backend`."""
        if not self._profile:
            raise not_profiled(self.description)
        if self._request is None:
            raise was_closed(self.description, advice="ask for operator times before that")
        return times_from_nodes(self._request.get_profiling_info() if self._runs else ())

    def close(self) -> None:
        """Release the model and its memory."""
        with self._lock:
            self._request = None
        self._arrays.close()


def times_from_nodes(nodes: Iterable[Any]) -> dict[str, float]:
    """Return milliseconds by type of operator from OpenVINO's ``ProfilingInfo`` of each node, the largest first.

    A node's ``real_time`` is its mean over all runs already; what was fused into another node has none.
    """
    times_ms: Counter[str] = Counter()
    for node in nodes:
        times_ms[node.node_type] += node.real_time.total_seconds() * 1000
    return {name: time_ms for name, time_ms in times_ms.most_common() if time_ms > 0}


def _import_openvino(path: Path) -> Any:
    """Import OpenVINO without its telemetry.

    The import itself would start a thread that reports to the vendor's web analytics, and write a client's number into
    the home folder; a device on a closed network waits for that thread at exit. OpenVINO has a stub for systems without
    the telemetry package, and this is how it comes to use it.
    """
    absent = _TELEMETRY not in sys.modules
    if absent:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # documented: makes its import an ImportError
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError(
            "openvino", extra="openvino", purpose=f"running {path.name} in OpenVINO"
        ) from error
    finally:
        if absent:
            del sys.modules[_TELEMETRY]
    return openvino


@functools.lru_cache(maxsize=1)
def _core_of_process() -> Any:
    """Return the one Core, which lives as long as the process.

    On a CPU with AMX, whose signal frames are large, OpenVINO gives the thread that loads it another stack for signals,
    and frees that when the Core goes. Where it goes in another thread, the next Ctrl-C lands in freed memory and ends
    the process with a segmentation fault.
    """
    import openvino

    return openvino.Core()


def _precision_on(core: Any, wanted: Precision | None) -> Precision:
    """Return what to compute in on this CPU.

    Raises:
        UsageError: the CPU does not have the wanted precision.
    """
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    # OpenVINO names BF16 where it is native (AVX512-BF16, AMX). It also computes so on any AVX-512 when asked to,
    # by converting back and forth: slower than float32 and less exact, which is never wanted.
    has = [precision for precision, name in _CAPABILITIES.items() if name in capabilities]
    if wanted is None:
        # FP16 is never taken by default: measured 1.4 times slower than float32 on a CPU that has it (AVX512-FP16).
        return "bf16" if "bf16" in has else "fp32"
    if wanted not in has:
        name = core.get_property("CPU", "FULL_DEVICE_NAME")
        raise UsageError(
            f"precision {wanted} was asked for, but this CPU ({name}) computes in {', '.join(has)} only; "
            "choose one of those, or leave it out"
        )
    return wanted


def _core_settings(options: BackendOptions, precision: Precision) -> dict[str, Any]:
    settings: dict[str, Any] = {
        # One frame at a time with all threads on it: several streams would raise the throughput of a server, and the
        # time that a camera's frame waits.
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERF_COUNT": options.profile,
    }
    if (most := options.threads or thread_limit()) is not None:
        settings["INFERENCE_NUM_THREADS"] = most
    return settings


def _compiled(core: Any, path: Path, settings: dict[str, Any], *, cached: bool) -> Any:
    """Compile, or take what was compiled before: 0.2 s instead of 0.6 s for a B0 at 960x540."""
    # What is compiled holds kernels for this kind of CPU, which OpenVINO's own key does not have.
    made_for = {**settings, "cpu": cpu_kind()}
    folder = compiled_models_folder(path, library="openvino", options=made_for) if cached else None
    if folder is not None:
        # A full disk, say. A model that does not compile at all fails once more below, and that failure is raised.
        with contextlib.suppress(RuntimeError):
            return core.compile_model(str(path), "CPU", {**settings, "CACHE_DIR": str(folder)})
    return core.compile_model(str(path), "CPU", settings)


def _info(port: Any) -> TensorInfo:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorInfo(_name_of(port), shape, np.dtype(port.get_element_type().to_dtype()).name)


def _name_of(port: Any) -> str:
    """Return the name that the file gives to an input or output.

    Where a node does nothing, as a cast from float32 to float32, its tensor has two names, and either may be "any".
    """
    own = str(port.get_node().get_friendly_name()).partition("/sink_port_")[0]
    return own if own in port.get_names() else str(port.get_any_name())


def _useful_line(error: Exception) -> str:
    """Return the line that is about the model: the last one of a summary, else the first that is no preamble."""
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
    summary = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")]
    telling = [line for line in lines if not line.startswith(_PREAMBLES)]
    return (summary[-1:] or telling or lines or [type(error).__name__])[0]
