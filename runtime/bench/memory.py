"""The most memory that a model needs, measured in a process of its own, which runs this file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from sfpp.runtime.backends import BackendOptions, backend_choices
from sfpp.runtime.bench.measured_model import BenchFrame, open_model
from sfpp.runtime.cli.console import exit_code_of
from sfpp.runtime.errors import BackendError
from sfpp.runtime.files import python_module

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class MemoryRequest:
    """What the child process opens: a model as :func:`open_model` takes it.

    ``frame`` is a ``.npy`` file, for a model with a contract: a video library that is loaded for one frame would count
    as the model's memory.
    """

    model: str
    backend: str | None
    precision: str | None
    threads: int | None
    frame: str | None
    fitted: bool
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0


def model_peak_bytes(request: MemoryRequest) -> int:
    """Return the peak of a whole fresh process that opens the model and runs it twice, in bytes.

    This process cannot tell: it holds all models at once, and a peak once reached never falls again.

    Raises:
        BackendError: the process failed, was killed, or this system does not tell a process's peak.
    """
    return module_peak_bytes("sfpp.runtime.bench.memory", json.dumps(asdict(request)))


def module_peak_bytes(module: str, *arguments: str) -> int:
    """Return the number that ``python -m module`` prints last: the peak of its process, in bytes.

    Raises:
        BackendError: the process failed or was killed.
    """
    # A fresh interpreter, not a fork: a fork would begin with this process's pages.
    done = subprocess.run(**python_module(module, *arguments), capture_output=True, text=True, check=False)
    if done.returncode < 0:
        raise BackendError(
            f"the process that measures memory was killed by signal {-done.returncode}, as when memory runs out; "
            "try a machine with more, or a smaller input"
        )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BackendError(f"the process that measures memory failed: {lines[-1]}")
    # The last line: inference libraries may print some of their own before it.
    return int(done.stdout.strip().splitlines()[-1])


def process_peak_bytes() -> int:
    """Return the peak of this process's memory so far: code, libraries, weights and buffers.

    Raises:
        BackendError: this system does not tell it.
    """
    # Linux hands ru_maxrss on through fork and exec: a child would report its big parent's peak as its own.
    if _STATUS.is_file():
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError as error:  # Windows
        raise BackendError(
            "this system does not tell a process's peak memory; leave it out with --no-memory"
        ) from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the others KiB


def _run(request: MemoryRequest) -> int:
    # Without a cache the library compiles, which is when it needs most; a device must survive its first start, too.
    options = BackendOptions(threads=request.threads, precision=request.precision, cache=False)  # type: ignore[arg-type]
    model, _ = open_model(
        backend_choices(Path(request.model), backend=request.backend, options=options)[0],
        bench_frame=lambda: BenchFrame(np.load(str(request.frame)), fitted=request.fitted),
        shapes={name: tuple(shape) for name, shape in request.shapes.items()},
        seed=request.seed,
    )
    for _ in range(2):  # some buffers are made in the first run, and others only before the second
        model.run()
    print(process_peak_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of("memory", lambda: _run(MemoryRequest(**json.loads(sys.argv[1])))))
