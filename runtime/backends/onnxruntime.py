"""ONNX Runtime as a backend, on the CPU, or on an NVIDIA GPU through CUDA or TensorRT (not run on hardware)."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from numpy.typing import NDArray

from sfpp.runtime.backends.protocol import (
    DEFAULT_OPTIONS,
    PRECISION_WORDS,
    WARNING,
    Arrays,
    BackendOptions,
    Notify,
    Precision,
    TensorInfo,
    not_profiled,
    say,
    was_closed,
)
from sfpp.runtime.cache import compiled_models_folder
from sfpp.runtime.errors import BackendError, MissingDependencyError, UsageError
from sfpp.runtime.files import check_utf8
from sfpp.runtime.onnx_file import not_an_onnx_model
from sfpp.runtime.resources import thread_limit
from sfpp.runtime.scratch import discard, make_folder
from sfpp.runtime.text import first_line

# Where ONNX's name of a type, within "tensor(...)", is not numpy's.
_NUMPY_NAMES = {"float": "float32", "double": "float64", "string": "object", "bfloat16": "bfloat16"}
Device = Literal["cpu", "cuda", "tensorrt"]
Provider = tuple[str, dict[str, str]]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxRuntimeBackend:
    """An ONNX file opened in ONNX Runtime.

    Args:
        path: the ONNX file.
        options: threads, precision, profile, cache. The precision "fp32" keeps CUDA from shortening float32 products to
            TF32; TensorRT also has "fp16" and "bf16"; None computes as the graph says. The cache is for the engines
            that TensorRT builds: on the CPU there is nothing to keep, as opening a B0 takes 0.1 s.
        device: where it computes. Where ONNX Runtime cannot start a GPU, it warns, and computes on the CPU.
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
        options: BackendOptions = DEFAULT_OPTIONS,
        *,
        device: Device = "cpu",
        notify: Notify | None = None,
    ) -> None:
        from sfpp.runtime.backends.lending import KeptArrays  # not needed by who lists the backends

        onnxruntime = import_onnxruntime(extra="cpu", purpose=f"running {path.name}")
        available = onnxruntime.get_available_providers()
        providers = providers_for(device, path, precision=options.precision, cache=options.cache, available=available)
        if device != "cpu":
            _load_cuda(onnxruntime)
        session = session_options(onnxruntime, threads=options.threads, arena=options.arena)
        self._profile = _Profile(session) if options.profile else None
        try:
            self._session, failure = _session(onnxruntime, path, providers, session)
        except BaseException:
            self._discard_profile()
            raise
        # The session knows what it uses: a provider whose libraries do not load is dropped without an exception.
        used, wanted = self._session.get_providers()[0], DEVICES[device]
        started = used == wanted.provider
        missed = "" if started else f" ({wanted.label} was asked for and did not start)"
        self.description: Final = f"ONNX Runtime {onnxruntime.__version__} on {_label_of(used)}{missed}"
        # A graph's own FP16 parts are not seen: the session does not tell.
        self.precision: Final[Precision] = options.precision if options.precision and started else "fp32"
        if not started:
            _warn_of_fallback(path, device, used, failure, notify)
        self._arrays = KeptArrays()
        try:
            self.metadata: Final[Mapping[str, str]] = dict(self._session.get_modelmeta().custom_metadata_map)
            self.inputs: Final = tuple(map(_info, self._session.get_inputs()))
            self._output_names = [output.name for output in self._session.get_outputs()]
        except UnicodeDecodeError as error:
            self.close()
            raise not_an_onnx_model(path, "a name or a text in it is not UTF-8") from error

    def lend(self, tensor: TensorInfo) -> NDArray[Any] | None:
        """Lend an array for an input; see :class:`.Lends`."""
        return self._arrays.lend(tensor)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; see :class:`.Backend`."""
        if self._session is None:
            raise was_closed(self.description)
        try:
            outputs = self._session.run(self._output_names, dict(inputs))
        except Exception as error:  # no common base either
            raise BackendError(f"{self.description} failed: {first_line(error)}") from error
        return dict(zip(self._output_names, outputs, strict=True))

    def operator_times_ms(self) -> dict[str, float]:
        """Return the mean milliseconds by type of operator; see :class:`.Backend`. Ends the measuring."""
        if self._profile is None:
            raise not_profiled(self.description)
        if self._session is None:
            raise was_closed(self.description, advice="ask for operator times before that")
        return self._profile.times_ms(self._session)

    def close(self) -> None:
        """Release the session and its memory."""
        # In this order: a session that is still measuring writes its file when it goes.
        self._session = None
        self._discard_profile()
        self._arrays.close()

    def _discard_profile(self) -> None:
        if self._profile is not None:
            self._profile.discard()


def session_options(onnxruntime: Any, *, threads: int | None, arena: bool = True) -> Any:
    """Return the options of every session: what was measured on a B0 at 960x540 and 3840x2160, two cores.

    Left as they are: denormal numbers (setting them to zero changed nothing), the arena's growth (as requested: more
    memory, not less).
    """
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = arena  # without it a run takes 1.3 times as long, and 3840x2160 2.7 GB
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


def session_bytes(live_bytes: int, weight_bytes: int) -> int:
    """Return about how much memory a session holds once it has run on the CPU.

    Measured: 1.5 times what is alive at one time at 1920x1080, 1.75 to 1.9 times at 3840x2160, since convolutions read
    and write copies in a layout of their own; and weights as the file has them and as the kernels take them.

    Args:
        live_bytes: the contract's, of the float32 graph.
        weight_bytes: of the file.
    """
    return int(1.9 * live_bytes) + 3 * weight_bytes


def import_onnxruntime(*, extra: str, purpose: str) -> Any:
    """Return the module ``onnxruntime``, with its telemetry off.

    From 1.29 on it would write a device's number into the user's cache and look up its maker's server. It asks the
    environment when it is loaded, and so do the processes that this one starts; who sets ORT_DISABLE_TELEMETRY decides.

    Raises:
        MissingDependencyError: it is not installed; ``purpose`` begins the message, ``extra`` is what to install.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", extra=extra, purpose=purpose) from error
    return onnxruntime


def _session(onnxruntime: Any, path: Path, providers: list[Provider], options: Any) -> tuple[Any, str]:
    """Open the session with the providers, or with the CPU alone where the others keep it from opening.

    Returns:
        The session, and what kept the providers from opening it, or nothing.

    Raises:
        ModelFileError: nor does it open on the CPU.
        UsageError: its name is no UTF-8.
    """
    check_utf8(path, reader="ONNX Runtime")
    try:
        # ONNX Runtime's own way of falling back prints to stdout, among what a command writes there.
        return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0), ""
    except Exception as error:  # ONNX Runtime's own exception classes have no common base but Exception
        if providers == [(CPU, {})]:
            raise not_an_onnx_model(path, first_line(error)) from error
        session, _ = _session(onnxruntime, path, [(CPU, {})], options)
        return session, first_line(error)


def _info(declared: Any) -> TensorInfo:
    name = declared.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in declared.shape)
    return TensorInfo(declared.name, shape, _NUMPY_NAMES.get(name, name))


def _warn_of_fallback(path: Path, device: Device, used: str, failure: str, notify: Notify | None) -> None:
    why = f" ({failure})" if failure else ""
    say(
        f"{WARNING}{path.name} was to run on {DEVICES[device].label}, but ONNX Runtime could not start that{why} and "
        f"computes on {_label_of(used)}: check that driver, CUDA, cuDNN and TensorRT have the versions that "
        "onnxruntime-gpu asks for, or choose another backend",
        notify,
    )


def _label_of(provider: str) -> str:
    """Return the name for people of an ONNX Runtime provider."""
    return next((spec.label for spec in DEVICES.values() if spec.provider == provider), provider)


def _load_cuda(onnxruntime: Any) -> None:
    """Load the CUDA libraries that pip installs, where the system does not look; ONNX Runtime takes loaded ones."""
    preload = getattr(onnxruntime, "preload_dlls", None)  # from 1.21 on
    if preload is not None:
        # It prints what it misses to stdout, among what a command writes there. A CUDA that does not start is reported.
        with contextlib.redirect_stdout(io.StringIO()):
            preload()


@dataclass(frozen=True)
class DeviceSpec:
    """A device of ONNX Runtime: ``label`` is for people, ``provider`` is ONNX Runtime's word.

    What the provider cannot compute is left to the providers in ``then``, in that order.
    """

    label: str
    provider: str
    precisions: tuple[Precision, ...]
    then: tuple[str, ...] = (CPU,)


DEVICES: dict[Device, DeviceSpec] = {
    "cpu": DeviceSpec("the CPU", CPU, ("fp32",), then=()),
    "cuda": DeviceSpec("CUDA", CUDA, ("fp32",)),
    "tensorrt": DeviceSpec("TensorRT", "TensorrtExecutionProvider", ("fp32", "fp16", "bf16"), then=(CUDA, CPU)),
}


def providers_for(
    device: Device, path: Path, *, precision: Precision | None, cache: bool, available: list[str]
) -> list[Provider]:
    """Return the providers to ask ONNX Runtime for, the wanted one first.

    Raises:
        BackendError: this ONNX Runtime was built without the wanted one.
        UsageError: the device does not compute in the wanted precision.
    """
    spec = DEVICES[device]
    if spec.provider not in available:
        raise BackendError(
            f"{spec.label} was asked for, but the installed ONNX Runtime has only {', '.join(available)}: "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu (on a Jetson, NVIDIA's own build of it)"
        )
    if precision is not None and precision not in spec.precisions:
        raise UsageError(
            f"precision {precision} was asked for, but ONNX Runtime on {spec.label} computes in "
            f"{' or '.join(spec.precisions)} what the graph does not fix; leave it out, or choose a backend that has "
            f"{PRECISION_WORDS[precision]}: openvino on a CPU with it, or onnxruntime-tensorrt"
        )
    options: dict[str, str] = {}
    if device == "cuda" and precision == "fp32":
        # From Ampere on, matrix products of float32 are done in TF32, with 10 bits of mantissa, unless it is asked not
        # to.
        options = {"use_tf32": "0"}
    elif device == "tensorrt":
        options = {f"trt_{precision}_enable": "1"} if precision in ("fp16", "bf16") else {}
        folder = compiled_models_folder(path, library="tensorrt", options={"precision": precision}) if cache else None
        if folder is not None:
            # Building an engine takes minutes.
            options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
    return [(spec.provider, options), *((each, {}) for each in spec.then if each in available)]


class _Profile:
    """The profile of the session that is made with these options, until it is read once."""

    def __init__(self, session_options: Any) -> None:
        self._folder = make_folder()
        self._times_ms: dict[str, float] | None = None
        session_options.enable_profiling = True
        session_options.profile_file_prefix = str(self._folder / "trace")

    def times_ms(self, session: Any) -> dict[str, float]:
        """Return the mean milliseconds per run by type of operator, the largest first.

        ONNX Runtime writes its file only when it ends measuring, and cannot begin again: a second call returns what the
        first one did.
        """
        if self._times_ms is None:
            try:
                events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            finally:
                self.discard()
            self._times_ms = times_from_events(events)
        return dict(self._times_ms)

    def discard(self) -> None:
        """Remove the files."""
        discard(self._folder)


def times_from_events(events: list[dict[str, Any]]) -> dict[str, float]:
    """Return mean milliseconds per run by type of operator from the events of a trace, the largest first.

    An event has ``cat`` "Session" or "Node", ``name`` and ``dur`` in microseconds; loading the model is an event too,
    and only those named ..._kernel_time are an operator's work.
    """
    runs = sum(event.get("cat") == "Session" and event["name"] == "model_run" for event in events)
    times_us: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times_us[event["args"]["op_name"]] += event["dur"]
    return {name: time_us / 1000 / max(runs, 1) for name, time_us in times_us.most_common()}
