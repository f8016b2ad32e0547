"""The machine that this runs on: what stands beside every figure, and what a library chooses its kernels by."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import Any

from sfpp.runtime.resources import machine_memory_bytes, usable_cores

_CPUINFO = Path("/proc/cpuinfo")
_NVIDIA = Path("/proc/driver/nvidia")
_BOARD = Path("/proc/device-tree/model")

# Those that decide which matrix kernels a library takes; a processor names a hundred others.
_INSTRUCTION_SETS = (
    *("sse4_1", "avx", "avx2", "fma", "avx_vnni", "avx_vnni_int8", "avx_ne_convert"),
    *("avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),  # ARM
)
# Variables by which oneDNN, and OpenVINO with it, is kept from some of them or told to compute in less.
_OVERRIDES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "ONEDNN_DEFAULT_FPMATH_MODE")
_PACKAGES = (
    *("sfpp", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx"),
    *("opencv-python", "opencv-python-headless", "opencv-contrib-python", "av", "torch", "onnx"),
)


def machine() -> dict[str, Any]:
    """Describe this machine as far as it matters to the figures.

    Returns:
        ``processor``, ``cores`` (of the machine), ``usable_cores`` (of this process), ``memory_bytes``,
        ``instruction_sets``, ``system``, ``board`` and ``gpu`` where there is one, ``python``, and the
        :func:`versions` of what is installed. None where the system does not tell.
    """
    facts = _cpuinfo()
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine() or "unknown",
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": machine_memory_bytes(),
        "instruction_sets": _instruction_sets(facts),
        "system": platform.platform(terse=True),
        **{name: text for name, text in (("board", board()), ("gpu", gpu_kind())) if text},
        **versions(),
    }


def board() -> str:
    """Return what the firmware calls a board such as a Jetson; empty where it does not tell, as on PCs."""
    try:
        return _BOARD.read_bytes().rstrip(b"\0").decode(errors="replace").strip()
    except OSError:
        return ""


def cpu_kind() -> str:
    """Return what libraries choose their kernels by: architecture, instruction sets, and variables that forbid some.

    The same text on every CPU of the kind, such as ``x86_64 sse4_1 avx avx2 fma`` or, with a variable of oneDNN set,
    ``x86_64 sse4_1 avx avx2 fma ONEDNN_MAX_CPU_ISA=SSE41``.
    """
    # Where the system does not tell its instruction sets, the processor's name says more than nothing.
    sets = _instruction_sets(_cpuinfo()) or [platform.processor()]
    overrides = [f"{name}={os.environ[name]}" for name in _OVERRIDES if os.environ.get(name)]
    return " ".join([platform.machine(), *sets, *overrides])


def gpu_kind() -> str:
    """Return NVIDIA's driver and cards as its kernel module names them; empty where there is none."""
    try:
        driver = (_NVIDIA / "version").read_text(encoding="utf-8", errors="replace")
        cards = [each.read_text(encoding="utf-8", errors="replace") for each in _NVIDIA.glob("gpus/*/information")]
    except OSError:
        return ""
    models = [line for card in cards for line in card.splitlines() if line.startswith("Model:")]
    return " ".join(" ".join([driver, *sorted(models)]).split())


def _instruction_sets(facts: dict[str, str]) -> list[str]:
    flags = facts.get("flags", facts.get("Features", "")).split()
    return [name for name in _INSTRUCTION_SETS if name in flags]


def _cpuinfo() -> dict[str, str]:
    """Return what the kernel says of the first core."""
    if not _CPUINFO.is_file():
        return {}
    facts: dict[str, str] = {}
    with _CPUINFO.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            key, colon, value = line.partition(":")
            if colon:
                facts.setdefault(key.strip(), value.strip())
            elif facts.keys() & {"flags", "Features"}:
                break  # the other cores' take the kernel milliseconds, each
    return facts


def versions() -> dict[str, str]:
    """Return the versions of ``python`` and of the libraries that are installed and matter, by their names."""
    from importlib import metadata  # takes longer to import than all else here

    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
