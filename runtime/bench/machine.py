"""What stands beside every figure: the machine that it was measured on, and the versions of the libraries."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")

# Those that decide which matrix kernels a library takes; a processor names a hundred others.
_INSTRUCTION_SETS = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_bf16", "amx_fp16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),  # ARM
)
_PACKAGES = (
    *("sfpp", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt"),
    *("opencv-python", "opencv-python-headless"),
)


def machine() -> dict[str, Any]:
    """Describe this machine as far as it matters to the figures.

    Returns:
        ``processor``, ``cores`` (of the machine), ``usable_cores`` (of this process), ``memory_bytes``,
        ``instruction_sets``, ``system``, ``python``, and the version of each library that is installed. None where
        the system does not tell.
    """
    facts = _cpuinfo()
    flags = facts.get("flags", facts.get("Features", "")).split()
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine() or "unknown",
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": _memory_bytes(),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if name in flags],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **_versions(),
    }


def usable_cores() -> int:
    """Return the number of cores that this process may run on, which ``taskset`` or a container can restrict."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    """Return what the kernel says of the first core."""
    if not _CPUINFO.is_file():
        return {}
    facts: dict[str, str] = {}
    for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip(), value.strip())
    return facts


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, other systems not these names
        return None


def _versions() -> dict[str, str]:
    return {package: version for package in _PACKAGES if (version := _version(package)) is not None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
