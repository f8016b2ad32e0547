"""ONNX Runtime as a backend, on the CPU, or on an NVIDIA GPU through CUDA or TensorRT (not run on hardware)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sfpp.runtime.backends.onnxruntime_profile import SessionProfile
from sfpp.runtime.backends.protocol import Arrays, Notify, Precision, TensorInfo, not_profiled, was_closed
from sfpp.runtime.backends.providers import (
    CPU,
    DEVICES,
    Device,
    Provider,
    description_of,
    label_of,
    load_cuda,
    providers_for,
)
from sfpp.runtime.errors import BackendError, MissingDependencyError
from sfpp.runtime.onnx_file import not_an_onnx_model
from sfpp.runtime.resources import thread_limit

_LOGGER = logging.getLogger("sfpp")

# Where ONNX's name of a type, within "tensor(...)", is not numpy's.
_NUMPY_NAMES = {"float": "float32", "double": "float64", "string": "object", "bfloat16": "bfloat16"}


def session_bytes(live_bytes: int, weight_bytes: int) -> int:
    """Return about how much memory a session holds once it has run on the CPU.

    Measured: 1.5 times what is alive at one time at 1920x1080, 1.75 to 1.9 times at 3840x2160, since convolutions read
    and write copies in a layout of their own; and weights as the file has them and as the kernels take them.

    Args:
        live_bytes: the contract's, of the float32 graph.
        weight_bytes: of the file.
    """
    return int(1.9 * live_bytes) + 3 * weight_bytes


class OnnxRuntimeBackend:
    """An ONNX file opened in ONNX Runtime.

    Args:
        path: the ONNX file.
        device: where it computes. A GPU that ONNX Runtime cannot start is said loudly, and the CPU computes instead.
        threads: threads within an operator; None leaves the choice to ONNX Runtime (one a physical core), within what a
            container allows.
        precision: "fp32", which on CUDA keeps float32 products from being shortened to TF32; on TensorRT also "fp16" or
            "bf16"; None computes as the graph says.
        profile: measure each operator.
        cache: keep the engines that TensorRT builds in the user's cache folder. On the CPU there is nothing to keep:
            opening a B0 takes 0.1 s.
        notify: called with a warning, besides the logger ``sfpp``.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        ModelFileError: the file is not an ONNX model that this ONNX Runtime can open.
        BackendError: the installed ONNX Runtime has no such device.
        UsageError: the device does not compute in this precision.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: Device = "cpu",
        threads: int | None = None,
        precision: Precision | None = None,
        profile: bool = False,
        cache: bool = True,
        notify: Notify | None = None,
    ) -> None:
        onnxruntime = _import_onnxruntime(path)
        available = onnxruntime.get_available_providers()
        providers = providers_for(device, path, precision=precision, cache=cache, available=available)
        if device != "cpu":
            load_cuda(onnxruntime)
        options = session_options(onnxruntime, threads=threads)
        self._profile = SessionProfile(options) if profile else None
        try:
            self._session, failure = _session(onnxruntime, path, providers, options)
        except BaseException:
            self._discard_profile()
            raise
        # The session knows what it uses: a provider whose libraries do not load is dropped without an exception.
        used = self._session.get_providers()[0]
        started = used == DEVICES[device].provider
        self._description = description_of(onnxruntime.__version__, device, used)
        self._precision: Precision = precision if precision and started else "fp32"
        if not started:
            _warn(path, device, used, failure, notify)
        self._metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self._inputs = tuple(map(_info, self._session.get_inputs()))
        self._output_names = [output.name for output in self._session.get_outputs()]

    @property
    def description(self) -> str:
        """Library, version and device."""
        return self._description

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's ``metadata_props``."""
        return self._metadata

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What the model takes."""
        return self._inputs

    @property
    def precision(self) -> str:
        """What is computed in; "fp32" unless TensorRT was told otherwise. A graph's own FP16 parts are not seen."""
        return self._precision

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; see :class:`sfpp.runtime.backends.protocol.Backend`."""
        if self._session is None:
            raise was_closed(self.description)
        try:
            outputs = self._session.run(self._output_names, dict(inputs))
        except Exception as error:  # no common base either
            raise BackendError(f"{self.description} failed: {_first_line(error)}") from error
        return dict(zip(self._output_names, outputs, strict=True))

    def operator_times_ms(self) -> dict[str, float]:
        """Mean milliseconds a run by type of operator, the largest first. Ends the measuring.

        Raises:
            UsageError: the model was opened without ``profile=True``.
            BackendError: the model was closed.
        """
        if self._profile is None:
            raise not_profiled(self.description)
        if self._session is None:
            raise was_closed(self.description, advice="ask for operator times before that")
        return self._profile.times_ms(self._session)

    def close(self) -> None:
        """Release the session and its memory; closing twice is harmless."""
        # In this order: a session that is still measuring writes its file when it goes.
        self._session = None
        self._discard_profile()

    def _discard_profile(self) -> None:
        if self._profile is not None:
            self._profile.discard()


def _import_onnxruntime(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", extra="cpu", purpose=f"running {path.name}") from error
    return onnxruntime


def _session(onnxruntime: Any, path: Path, providers: list[Provider], options: Any) -> tuple[Any, str]:
    """Open the session with the providers, or with the CPU alone where the others keep it from opening.

    Returns:
        The session, and what kept the providers from opening it, or nothing.

    Raises:
        ModelFileError: nor does it open on the CPU.
    """
    try:
        # ONNX Runtime's own way of falling back prints to stdout, among what a command writes there.
        return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0), ""
    except Exception as error:  # ONNX Runtime's own exception classes have no common base but Exception
        if providers == [CPU]:
            raise not_an_onnx_model(path, _first_line(error)) from error
        session, _ = _session(onnxruntime, path, [CPU], options)
        return session, _first_line(error)


def session_options(onnxruntime: Any, *, threads: int | None) -> Any:
    """Return the options of every session: what was measured on a B0 at 960x540 and 3840x2160, two cores.

    Left as they are: denormal numbers (setting them to zero changed nothing), the arena (without it a run takes 1.3
    times as long, and 3840x2160 2.7 GB), the arena's growth (as requested: more memory, not less).
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: warnings about unused initializers are noise to a user
    # Memory patterns ask for one block that fits the whole plan, beside the arena's blocks from the first run: 5.4 GB
    # instead of 3.2 GB at 3840x2160, at the same speed.
    options.enable_mem_pattern = False
    # Threads that wait by spinning gain nothing alone (ratio of the medians 0.99 to 1.02), and beside one busy thread,
    # as decoding and drawing are in a pipeline, a run takes 1.2 to 1.4 times as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if (most := threads or thread_limit()) is not None:
        options.intra_op_num_threads = most
    return options


def _warn(path: Path, device: Device, used: str, failure: str, notify: Notify | None) -> None:
    why = f" ({failure})" if failure else ""
    line = (
        f"warning: {path.name} was to run on {DEVICES[device].label}, but ONNX Runtime could not start that{why} and "
        f"computes on {label_of(used)}: check that driver, CUDA, cuDNN and TensorRT have the versions that "
        "onnxruntime-gpu asks for, or choose another backend"
    )
    _LOGGER.warning(line)
    if notify is not None:
        notify(line)


def _info(declared: Any) -> TensorInfo:
    name = declared.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in declared.shape)
    return TensorInfo(declared.name, shape, _NUMPY_NAMES.get(name, name))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
