"""What stands beside every figure: the machine that it was measured on."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from sfpp.runtime.files import whole_file

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, str | int | None]:
    """Describe this machine and the versions, as far as they matter to the figures."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": metadata.version("onnxruntime"),
        "sfpp": metadata.version("sfpp"),
    }


def store(path: Path, **content: Any) -> None:
    """Write a result with the machine's description, as JSON."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
