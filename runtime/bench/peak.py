"""What the machine can do at best: matrix products through the same library, and copies through memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from sfpp.runtime.backends import Arrays, Backend, BackendOptions, open_backend
from sfpp.runtime.errors import BackendError
from sfpp.runtime.resources import usable_cores

_COPIED_BYTES = 256 * 2**20  # beyond the caches of most processors
_TOLERANCE = 0.05  # bfloat16 has 8 bits, and a chain rounds after each product


@dataclass(frozen=True)
class MatmulChain:
    """A model of ``layers`` matrix products in a row, each (rows, width) by (width, width), in float32.

    All weights are 1 / width, so every value that comes out is the mean of its row of the input: a backend that left
    something out would be caught. They come from one ConstantOfShape, which keeps the file at a few hundred bytes.
    Equal weights are no advantage: random ones ran as fast.
    """

    rows: int
    width: int
    layers: int

    @property
    def name(self) -> str:
        """Sizes as text, such as ``2048x1024``: rows, then width."""
        return f"{self.rows}x{self.width}"

    @property
    def path(self) -> Path:
        """The shipped ONNX file; input ``x`` and output ``y``, (rows, width) float32."""
        # sfpp is always installed as plain files (never run from a zip), so the resource has a path of its own.
        return Path(str(resources.files(__package__).joinpath(f"matmul_{self.name}.onnx")))

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one run."""
        return self.rows * self.width * self.width * self.layers


# Which one is fastest depends on caches, precision and the number of cores. On two cores with AVX-512 and AMX float32
# reaches 195 G multiply-adds per second with all of them, and bfloat16 990 to 1230.
CHAINS = (MatmulChain(1024, 512, 16), MatmulChain(4096, 512, 16), MatmulChain(2048, 2048, 4))


@dataclass(frozen=True)
class MatmulPeak:
    """The best rate that was reached, with which chain, and in which library."""

    multiply_adds_per_s: float
    chain: str
    description: str


def matmul_peak(
    *,
    backend: str | None,
    options: BackendOptions,
    seconds: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
) -> MatmulPeak:
    """Measure how fast a library multiplies matrices on this machine, under the options that a model runs with.

    On a graphics card the copies to it and back count, as they do for a model.

    Args:
        backend: as for :func:`sfpp.runtime.backends.open_backend`.
        options: threads and precision.
        seconds: how long the chains are tried; the fastest run counts, as noise only ever slows.
        clock: seconds from any origin.

    Raises:
        SfppError: the library cannot be opened.
        BackendError: it does not compute the products.
    """
    with contextlib.ExitStack() as stack:
        works, descriptions = [], []
        for chain in CHAINS:
            opened, _ = open_backend(chain.path, backend=backend, options=options)
            stack.callback(opened.close)
            works.append(_work(chain, opened))
            descriptions.append(opened.description)
        # In turn, and a few seconds long, so that a busy second of the machine does not spoil one of them.
        fastest_s = _fastest_s(works, seconds=seconds, clock=clock)
    rates = [chain.multiply_adds / fastest for chain, fastest in zip(CHAINS, fastest_s, strict=True)]
    best = int(np.argmax(rates))
    return MatmulPeak(rates[best], CHAINS[best].name, descriptions[best])


def _work(chain: MatmulChain, backend: Backend) -> Callable[[], object]:
    """Return a function that runs the chain once, after a look at what it computes."""
    inputs = {"x": np.random.default_rng(0).uniform(0.5, 1.5, (chain.rows, chain.width)).astype(np.float32)}
    _check(backend, inputs)
    return lambda: backend.run(inputs)


def _check(backend: Backend, inputs: Arrays) -> None:
    values = backend.run(inputs)["y"]
    means = inputs["x"].mean(axis=1, keepdims=True)
    if values.shape != inputs["x"].shape or not np.allclose(values, means, rtol=_TOLERANCE):
        raise BackendError(f"{backend.description} gets matrix products wrong: measure without the peak (--no-peak)")


def copy_bytes_per_s(
    *, threads: int | None = None, seconds: float = 0.5, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Measure a large copy by all threads: bytes read plus bytes written, per second.

    Args:
        threads: None takes one per core.
        seconds: how long it is tried; the fastest copy counts.
        clock: seconds from any origin.
    """
    count = threads or usable_cores()
    source, copy = np.zeros((2, count, _COPIED_BYTES // count), np.uint8)
    source[:] = 1  # pages that were never written to are all the same one, which stays in the cache
    with ThreadPoolExecutor(count) as pool:
        # numpy lets go of the interpreter's lock while it copies.
        (fastest_s,) = _fastest_s([lambda: list(pool.map(np.copyto, copy, source))], seconds=seconds, clock=clock)
    return 2 * source.nbytes / fastest_s


def _fastest_s(works: Sequence[Callable[[], object]], *, seconds: float, clock: Callable[[], float]) -> list[float]:
    """Run works in turn; return the duration of each one's fastest of at least five runs, after one to warm up."""
    for work in works:
        work()
    fastest, rounds, begin = [float("inf")] * len(works), 0, clock()
    while rounds < 5 or clock() - begin < seconds:
        for index, work in enumerate(works):
            start = clock()
            work()
            fastest[index] = min(fastest[index], clock() - start)
        rounds += 1
    return fastest
