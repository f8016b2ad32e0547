"""The process whose memory is measured: open a model, run it twice, print the peak in bytes.

    python -m sfpp.runtime.bench.memory_child REQUEST    (JSON of a MemoryRequest)

Nothing imports this file: Python warns of a module that is run and had been imported before.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sfpp.runtime.backends import BackendOptions, backend_choices
from sfpp.runtime.bench.measured_model import BenchFrame, open_frame, open_model
from sfpp.runtime.bench.memory import MemoryRequest, process_peak_bytes
from sfpp.runtime.cli.console import exit_code_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the request that the first argument holds."""
    (text,) = sys.argv[1:] if argv is None else argv
    return exit_code_of("memory", lambda: _run(MemoryRequest(**json.loads(text))))


def _run(request: MemoryRequest) -> int:
    # Without a cache the library compiles, which is when it needs most; a device must survive its first start, too.
    options = BackendOptions(threads=request.threads, precision=request.precision, cache=False)  # type: ignore[arg-type]
    model, _ = open_model(
        backend_choices(Path(request.model), backend=request.backend, options=options)[0],
        bench_frame=lambda: _bench_frame(request),
        shapes={name: tuple(shape) for name, shape in request.shapes.items()},
        seed=request.seed,
    )
    for _ in range(2):  # some buffers are made in the first run, and others only before the second
        model.run()
    print(process_peak_bytes())
    return 0


def _bench_frame(request: MemoryRequest) -> BenchFrame:
    # From the parent, as pixels: a video library loaded for one frame would count as the model's memory.
    return open_frame(None) if request.frame is None else BenchFrame(np.load(request.frame), fitted=request.fitted)


if __name__ == "__main__":
    sys.exit(main())
