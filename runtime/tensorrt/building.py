"""From an ONNX file to the bytes of an engine, written once over either library.

:func:`engine_bytes` runs in a process of its own (see :mod:`sfpp.runtime.tensorrt.worker`): a builder takes gigabytes,
runs for minutes within one call, and may take its process with it.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfpp.runtime.contract import contract_from_metadata
from sfpp.runtime.errors import BackendError, ModelFileError, SfppError, UsageError
from sfpp.runtime.files import whole_file
from sfpp.runtime.onnx_file import metadata_of
from sfpp.runtime.options import option
from sfpp.runtime.tensorrt.library import (
    Library,
    LibraryName,
    has_strong_types,
    joined,
    keeping_logger,
    version_numbers,
)

# Called with a phase: its name, how many of its steps are done, and how many there are.
PhaseProgress = Callable[[str, int, int], object]
_EXPLICIT_BATCH = 0  # the flag's number; TensorRT 10 knows nothing else, and has no name for it any more
_SHOWN_ERRORS = 8
# Of these the types follow from what goes in and out.
_WITHOUT_PRECISION = ("CONSTANT", "SHAPE", "CAST", "IDENTITY", "QUANTIZE", "DEQUANTIZE")
CURRENT = "current"
_CAPABILITY = re.compile(r"sm(\d{2,3})")
_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([a-z]*)", re.IGNORECASE)


def engine_bytes(
    library: Library,
    model: Path,
    settings: EngineSettings,
    *,
    precision: str,
    progress: PhaseProgress,
    parse_only: bool = False,
) -> bytes:
    """Parse an ONNX file and build an engine for it, or only parse it and return nothing.

    Args:
        library: TensorRT or TensorRT-RTX.
        model: the file; its precision is in it, as types and Q/DQ pairs.
        settings: what to build for.
        precision: ``fp32``, ``fp16`` or ``int8``; only TensorRT 8, which has no strongly typed networks, goes by it.
        progress: called with each phase of the builder.

    Raises:
        ModelFileError: the parser does not take the file.
        UsageError: a size of an input is not fixed, or the library lacks what the settings ask for.
        BackendError: the builder gives up, or there is no card where one is needed.
    """
    messages: list[str] = []
    logger = keeping_logger(library.module, messages)
    builder = library.module.Builder(logger)
    if builder is None:
        raise BackendError(f"{library.title} {library.version} does not start: {joined(messages)}")
    network = builder.create_network(_network_flags(library))
    _parse(library, network, logger, model, settings)
    if parse_only:
        return b""
    config = _config(library, builder, settings, progress=progress)
    if not has_strong_types(library):
        _allow_lower(library.module, config, network, precision)
    with _timing_cache(config, settings.timing_cache):
        built = builder.build_serialized_network(network, config)
        if built is None:
            raise BackendError(f"{library.title} {library.version} does not build {model.name}: {joined(messages)}")
    return bytes(built)


def _network_flags(library: Library) -> int:
    """Return the flags with which types are what the file says, whatever the version."""
    flags = library.module.NetworkDefinitionCreationFlag
    if library.is_rtx or version_numbers(library.version) >= (11,):
        return 0  # every network is strongly typed
    return 1 << (int(flags.STRONGLY_TYPED) if has_strong_types(library) else _EXPLICIT_BATCH)


def _parse(library: Library, network: Any, logger: Any, model: Path, settings: EngineSettings) -> None:
    parser = library.module.OnnxParser(network, logger)
    # From TensorRT 10.16 on. Accelerators are in 8.6 to 10.7 and again in 11.4.1, so only that one heeds it.
    adjust = getattr(getattr(library.module, "OnnxParserFlag", None), "ADJUST_FOR_DLA", None)
    if settings.dla is not None and adjust is not None:
        parser.set_flag(adjust)
    if not parser.parse_from_file(str(model)):
        errors = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ModelFileError(
            f"the parser of {library.title} {library.version} does not take {model.name}: "
            f"{'; '.join(errors[:_SHOWN_ERRORS])}; `sfpp-engine --check` says which versions do"
        )
    most = _most_frames(model)
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if most is not None and tensor.shape[0] < 0:
            tensor.shape = (most, *tuple(tensor.shape)[1:])
        if any(size < 0 for size in tensor.shape):
            sizes = ", ".join("?" if size < 0 else str(size) for size in tensor.shape)
            raise UsageError(
                f"the input {tensor.name!r} of {model.name} has no fixed size ({sizes}); export the model for one "
                "size, as sfpp-export does"
            )


def _most_frames(model: Path) -> int | None:
    """Return the largest batch of a file for any number of frames, for which its engine is built; None of others."""
    try:
        spec = contract_from_metadata(metadata_of(model), origin=model.name, instead="").input
    except SfppError:  # another tool's
        return None
    return spec.batch if spec.open_batch else None


def _parser_error(error: Any) -> str:
    node = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    where = f"node {node!r} ({operator}): " if node or operator else ""
    return where + " ".join(str(error.desc()).split())


def _config(library: Library, builder: Any, settings: EngineSettings, *, progress: PhaseProgress) -> Any:
    module, config = library.module, builder.create_builder_config()
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if hasattr(module, "IProgressMonitor"):  # from TensorRT 9 on
        config.progress_monitor = _monitor(module, progress)
    if settings.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if settings.same_capability:
        config.hardware_compatibility_level = _same_capability(library)
    if settings.dla is not None:
        _use_dla(library, builder, config, settings.dla)
    if library.is_rtx and settings.devices is not None:
        _set_devices(module, config, settings.devices)
    return config


def _same_capability(library: Library) -> Any:
    level = getattr(library.module.HardwareCompatibilityLevel, "SAME_COMPUTE_CAPABILITY", None)
    if level is None:
        raise UsageError(
            f"{library.title} {library.version} builds for the card of this machine alone, or for all from sm80 on; "
            "leave --same-capability off, which TensorRT has from 10.9 on"
        )
    return level


def _allow_lower(module: Any, config: Any, network: Any, precision: str) -> None:
    """Let TensorRT 8 compute in float16 or INT8, but not where the file has float32, as in layer norms.

    Its types are a suggestion, and what it must obey is a precision that a layer was given. Layers that take
    dequantized values have none: they are to be computed in INT8.
    """
    flags = {"fp16": ("FP16",), "int8": ("INT8", "FP16")}.get(precision, ())
    if not flags:
        return
    for flag in (*flags, "OBEY_PRECISION_CONSTRAINTS"):
        config.set_flag(getattr(module.BuilderFlag, flag))
    float32, dequantized = module.DataType.FLOAT, set()
    for layer in map(network.get_layer, range(network.num_layers)):
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        if layer.type.name == "DEQUANTIZE":
            dequantized |= {each.name for each in outputs}
        if layer.type.name in _WITHOUT_PRECISION or dequantized & {each.name for each in inputs if each is not None}:
            continue
        if all(each.dtype == float32 for each in outputs):
            layer.precision = float32
            for index in range(layer.num_outputs):
                layer.set_output_type(index, float32)


def _use_dla(library: Library, builder: Any, config: Any, core: int) -> None:
    if not 0 <= core < builder.num_DLA_cores:
        raise UsageError(
            f"there is no deep learning accelerator {core} for {library.title} {library.version} on this machine, "
            f"which has {builder.num_DLA_cores}; leave --dla off"
        )
    config.default_device_type = library.module.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(library.module.BuilderFlag.GPU_FALLBACK)


def _set_devices(module: Any, config: Any, devices: tuple[str, ...]) -> None:
    known = {name.lower(): value for name, value in module.ComputeCapability.__members__.items()}
    for device in devices:
        if device not in known:
            able = ", ".join(name for name in known if name.startswith("sm"))
            raise UsageError(f"TensorRT-RTX {module.__version__} does not build for {device}; it does for {able}")
    config.num_compute_capabilities = len(devices)
    for index, device in enumerate(devices):
        if not config.set_compute_capability(known[device], index):
            hint = "there is no card here; name one, such as sm86" if device == CURRENT else "name another card"
            raise BackendError(f"TensorRT-RTX {module.__version__} refuses the device {device}: {hint}")


def _monitor(module: Any, progress: PhaseProgress) -> Any:
    """Return a progress monitor; its calls come from the builder's threads."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self._steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            progress(phase_name, steps, steps)

    return Monitor()


@contextlib.contextmanager
def _timing_cache(config: Any, path: Path | None) -> Iterator[None]:
    """Use the times of kernels in a file, and store what is measured, once the build has succeeded."""
    if path is None:
        yield
        return
    known = path.read_bytes() if path.is_file() else b""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cache = config.create_timing_cache(known)
        # Times of another card or version are refused; then an empty cache is started.
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
        yield
        measured = bytes(config.get_timing_cache().serialize())
    with whole_file(path) as temporary:
        temporary.write_bytes(measured)


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is to be built for; devices, sizes and paths may be given as text.

    Raises:
        UsageError: a device that is no compute capability, a workspace of nothing, or a negative accelerator.
    """

    devices: tuple[str, ...] | None = option(
        "compute capabilities such as sm86, sm89 or sm120, or current for this machine's card (default: TensorRT "
        "builds for this card, TensorRT-RTX for all cards from sm80 on)",
        default=None,
        flags=("--device",),
        metavar="SM[,SM...]",
    )
    workspace_bytes: int | None = option(
        "memory that layers may use while they run, such as 2GiB (default: all there is)",
        default=None,
        flags=("--workspace",),
        metavar="SIZE",
    )
    timing_cache: Path | None = option(
        "file with the measured times of kernels, read and written; makes a second build much faster (TensorRT)",
        default=None,
        metavar="FILE",
    )
    dla: int | None = option(
        "number of the deep learning accelerator, of some Jetsons, that takes what it can, which is little of these "
        "networks; the GPU does the rest (TensorRT)",
        default=None,
        type=int,
        metavar="N",
    )
    version_compatible: bool = option(
        "let later versions of TensorRT run the engine, which may be slower (TensorRT)", default=False
    )
    hardware_compatible: bool = option(
        "let any card from sm80 on run it, which may be slower (TensorRT)", default=False
    )
    same_capability: bool = option(
        "let any card of the same compute capability run it, which may be a little slower; not known of a Jetson "
        "(TensorRT from 10.9 on)",
        default=False,
    )

    def __post_init__(self) -> None:
        if self.devices is not None:
            given = self.devices.split(",") if isinstance(self.devices, str) else self.devices
            object.__setattr__(self, "devices", tuple(each.strip().lower() for each in given))
        if isinstance(self.workspace_bytes, str):
            object.__setattr__(self, "workspace_bytes", bytes_from(self.workspace_bytes))
        if self.timing_cache is not None:
            object.__setattr__(self, "timing_cache", Path(self.timing_cache))
        for device in self.devices or ():
            if device != CURRENT and not _CAPABILITY.fullmatch(device):
                raise UsageError(
                    f"there is no device {device!r}; expected a compute capability such as sm86 (RTX 30), sm89 "
                    "(RTX 40), sm120 (RTX 50) or sm87 (Jetson Orin), or current for this machine's card"
                )
        if self.devices is not None and (not self.devices or len(set(self.devices)) < len(self.devices)):
            raise UsageError(f"the devices are {', '.join(self.devices) or 'none'}; name each once, and at least one")
        if self.devices and CURRENT in self.devices and len(self.devices) > 1:
            raise UsageError("current stands for this machine's card alone; name the others by compute capability")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise UsageError(f"a workspace of {self.workspace_bytes} bytes holds nothing; give for example 2GiB")
        if self.hardware_compatible and self.same_capability:
            raise UsageError("hardware-compatible is for all cards, and same-capability for one kind; give one of them")
        if self.dla is not None and self.dla < 0:
            raise UsageError(f"there is no accelerator {self.dla}; they are numbered from 0")

    def check_for(self, library: LibraryName) -> None:
        """Refuse what a library cannot do.

        Raises:
            UsageError: another card than this one with TensorRT; or with TensorRT-RTX a timing cache, an accelerator,
                or compatibility, which it has or lacks by nature.
        """
        if library == "tensorrt":
            if self.devices not in (None, (CURRENT,)):
                raise UsageError(
                    f"TensorRT builds for the card of the machine it runs on, not for {', '.join(self.devices or ())}; "
                    "build there, or take --backend tensorrt-rtx for RTX cards"
                )
            return
        refused = {
            "timing cache": self.timing_cache is not None,
            "deep learning accelerator": self.dla is not None,
            "version-compatible engines": self.version_compatible,
            "mode for compatible hardware": self.hardware_compatible or self.same_capability,
        }
        if wanted := [name for name, is_wanted in refused.items() if is_wanted]:
            raise UsageError(
                f"TensorRT-RTX has no {', no '.join(wanted)}: its engines belong to one version, run on all cards "
                "they are built for, and choose kernels there; leave that off"
            )


def bytes_from(text: str) -> int:
    """Read an amount of memory such as ``2GiB``, ``512MiB`` or ``1.5 GB``.

    Raises:
        UsageError: something else.
    """
    match = _AMOUNT.fullmatch(text.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise UsageError(f"{text!r} is no amount of memory; expected for example 2GiB, 512MiB or 1.5GB")
    return int(float(match[1]) * unit)
