"""Where ONNX Runtime computes: its execution providers, and how each is asked for.

CUDA and TensorRT: not run on hardware.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sfpp.runtime.backends.protocol import PRECISION_WORDS, Precision
from sfpp.runtime.cache import compiled_models_folder
from sfpp.runtime.errors import BackendError, UsageError

Device = Literal["cpu", "cuda", "tensorrt"]
ProviderOptions = dict[str, str]
Provider = tuple[str, ProviderOptions]

CPU: Provider = ("CPUExecutionProvider", {})


@dataclass(frozen=True)
class DeviceSpec:
    """A device of ONNX Runtime: ``label`` is for people, ``provider`` is ONNX Runtime's word.

    ``options`` gives the provider's options from the wanted precision and the folder for compiled models. What the
    provider cannot compute is left to ``then``, in that order.
    """

    label: str
    provider: str
    precisions: tuple[Precision, ...]
    options: Callable[[Precision | None, Path | None], ProviderOptions]
    then: tuple[Provider, ...] = (CPU,)


def _cpu_options(precision: Precision | None, folder: Path | None) -> ProviderOptions:
    return {}


def _cuda_options(precision: Precision | None, folder: Path | None) -> ProviderOptions:
    # From Ampere on, matrix products of float32 are done in TF32, with 10 bits of mantissa, unless told otherwise.
    return {"use_tf32": "0"} if precision == "fp32" else {}


def _tensorrt_options(precision: Precision | None, folder: Path | None) -> ProviderOptions:
    options = {f"trt_{precision}_enable": "1"} if precision in ("fp16", "bf16") else {}
    if folder is not None:
        # Building an engine takes minutes.
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
    return options


DEVICES: dict[Device, DeviceSpec] = {
    "cpu": DeviceSpec("the CPU", CPU[0], ("fp32",), _cpu_options, then=()),
    "cuda": DeviceSpec("CUDA", "CUDAExecutionProvider", ("fp32",), _cuda_options),
    "tensorrt": DeviceSpec(
        "TensorRT",
        "TensorrtExecutionProvider",
        ("fp32", "fp16", "bf16"),
        _tensorrt_options,
        then=(("CUDAExecutionProvider", {}), CPU),
    ),
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
    folder = None
    if cache and device == "tensorrt":
        folder = compiled_models_folder(path, library="tensorrt", options={"precision": precision})
    wanted = spec.provider, spec.options(precision, folder)
    return [wanted, *(each for each in spec.then if each[0] in available)]


def load_cuda(onnxruntime: Any) -> None:
    """Load the CUDA libraries that pip installs, where the system does not look; ONNX Runtime takes loaded ones."""
    preload = getattr(onnxruntime, "preload_dlls", None)  # from 1.21 on
    if preload is not None:
        # It prints what it misses to stdout, among what a command writes there. If CUDA does not start, that is said.
        with contextlib.redirect_stdout(io.StringIO()):
            preload()


def label_of(provider: str) -> str:
    """Return the name for people of an ONNX Runtime provider."""
    return next((spec.label for spec in DEVICES.values() if spec.provider == provider), provider)


def description_of(version: Any, device: Device, used: str) -> str:
    """Return library, version and device, with the device that was asked for where it is not the one in use."""
    wanted = DEVICES[device]
    missed = "" if used == wanted.provider else f" ({wanted.label} was asked for and did not start)"
    return f"ONNX Runtime {version} on {label_of(used)}{missed}"
