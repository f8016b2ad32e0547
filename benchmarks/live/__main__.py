"""What a live pipeline promises, measured on this machine.

    python -m benchmarks.live                      # everything, about 25 minutes
    python -m benchmarks.live reconnecting crash   # some of it

``reconnecting`` kills the server of a stream again and again; ``memory`` lets many synthetic frames pass; ``crash``
kills `sfpp-run` while it records; ``freshness`` puts a camera of 60 frames a second before a slow model; ``viewers``
lets pages connect and vanish, beside a network that waits, as a GPU's would, and beside one on the same cores; ``day``
lets sources stall and come back while restless pages come and vanish, and looks at what the viewer holds. Writes JSON
into benchmarks/results, keeping what was measured before of the parts that are not asked for, and prints a line each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.live.crash import crash
from benchmarks.live.day import day
from benchmarks.live.freshness import freshness
from benchmarks.live.memory import memory
from benchmarks.live.parts import Part
from benchmarks.live.reconnecting import reconnecting
from benchmarks.live.viewers import viewers
from benchmarks.machine import RESULTS, store
from sfpp.runtime.files import python_code

_PARTS: dict[str, Callable[[Path], Part]] = {
    each.__name__: each for each in (reconnecting, memory, crash, freshness, viewers, day)
}
_RES = "320x192"
_EXPORT = "from sfpp.export import export_onnx; export_onnx(path=sys.argv[1], variant='fast', res=sys.argv[2])"


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)} (default: all)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "live.json")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(_PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; expected some of {', '.join(_PARTS)}")
    results = json.loads(arguments.output.read_text("utf-8"))["results"] if arguments.output.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "fast.onnx"
        # In a process of its own, so that PyTorch is not in the memory that is measured here.
        subprocess.run(**python_code(_EXPORT, str(model), _RES), check=True)
        for name in arguments.parts or _PARTS:
            part = _PARTS[name](model)
            print(f"{name}: {part.sentence()}", flush=True)
            results[name] = asdict(part)
            store(arguments.output, model=f"demonstration model, fast, {_RES}", results=results)


if __name__ == "__main__":
    main()
