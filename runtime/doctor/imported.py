"""Import one library in a process of its own, where a crash is harmless, and print what it says of itself as JSON.

python -m sfpp.runtime.doctor.imported cv2
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any

_GSTREAMER = re.compile(r"^\s*GStreamer:\s*(\S+)", re.MULTILINE)


def described(name: str) -> dict[str, Any]:
    """Return a library's version, where it lies, and what sfpp needs to know of it besides.

    Raises:
        Exception: whatever the library raises when it is imported.
    """
    module = importlib.import_module(name)
    found: dict[str, Any] = {"version": str(getattr(module, "__version__", ""))}
    if name == "cv2":
        line = _GSTREAMER.search(module.getBuildInformation())
        found["gstreamer"] = line is not None and line[1].upper() == "YES"
    if name == "onnxruntime":
        names = [each.removesuffix("ExecutionProvider") for each in module.get_available_providers()]
        found["providers"] = [each for each in names if each != "Azure"]  # which computes elsewhere
    return found


def main() -> None:
    """Print what the library that is named says; an error becomes its last line."""
    try:
        found = described(sys.argv[1])
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the finding
        found = {
            "error": f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
        }
    print("\n" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
