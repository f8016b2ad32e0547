"""Histograms of magnitudes: what is observed of a tensor, kept from one run to the next."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.cache import cache_folder, is_own
from sfpp.runtime.errors import BackendError, ModelFileError, SfppError
from sfpp.runtime.files import whole_file
from sfpp.tooling.npz import arrays_from_npz

BINS = 2048
# To be raised when histograms are taken in another way: what an older version kept is then not found any more.
_VERSION = 2
_KEPT = 32  # files, of 16 KB a tensor


@dataclass(eq=False)
class Histogram:
    """Counts of magnitudes, filled frame by frame; the order of the frames does not matter.

    The bins reach from 0 to a power of two above the largest magnitude. When a larger one comes, neighboring bins are
    put together, so that nothing need be kept but the counts.

    Attributes:
        counts: values by magnitude, (BINS,), without the zeros.
        zeros: values that are exactly zero. INT8 holds them exactly, and after a ReLU they are most of all.
        lowest: the lowest value, or 0 if none is negative.
        highest: the highest value, or 0 if none is positive.
        limit: where the last bin ends; 0 before any value that is not zero.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    zeros: int = 0
    lowest: float = 0.0
    highest: float = 0.0
    limit: float = 0.0

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(-self.lowest, self.highest)

    @property
    def values(self) -> int:
        """How many values were counted, zeros included."""
        return self.zeros + int(self.counts.sum())

    @property
    def edges(self) -> NDArray[np.float64]:
        """Where the bins begin and end, (BINS + 1,)."""
        return np.linspace(0.0, self.limit, BINS + 1)

    def add(self, values: NDArray[Any], *, extremes: tuple[float, float] = (0.0, 0.0)) -> None:
        """Count values of any shape.

        Args:
            values: what to count.
            extremes: the lowest and the highest value, where ``values`` are only a sample.

        Raises:
            BackendError: a value is not a finite number.
        """
        every = np.concatenate([np.asarray(values, np.float64).ravel(), extremes])
        lowest, highest = float(every.min()), float(every.max())  # unlike min() and max(), these keep a NaN
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            raise BackendError("values that are not finite (NaN or infinity) have no range; check model and frames")
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
        self._reach(max(-lowest, highest))
        magnitudes = np.abs(every[:-2])
        counted = magnitudes[magnitudes > 0]
        self.zeros += magnitudes.size - counted.size
        if counted.size:
            # A power of two scales exactly, so a value falls into the same bin whatever the limit was when it came.
            index = (counted * (BINS / self.limit)).astype(np.int64)
            self.counts += np.bincount(index, minlength=BINS)

    def _reach(self, magnitude: float) -> None:
        """Raise the limit above a magnitude."""
        limit = math.ldexp(1.0, math.frexp(magnitude)[1]) if magnitude else 0.0
        if limit <= self.limit:
            return
        if self.limit:
            together = int(min(limit / self.limit, BINS))
            merged = self.counts.reshape(-1, together).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS - len(merged), np.int64)])
        self.limit = limit


Histograms = Mapping[str, Histogram]


def inputs_sha256(inputs: Iterable[Mapping[str, NDArray[Any]]]) -> str:
    """Return the hash of all that a model is fed, in hexadecimal."""
    digest = hashlib.sha256()
    for arrays in inputs:
        for name, array in sorted(arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def remembered(
    key: Mapping[str, Any], observe: Callable[[], Histograms], *, use: bool = True
) -> tuple[Histograms, bool]:
    """Return what was observed under this key before, else observe and remember it.

    Args:
        key: everything that decides on the result: hashes of the graph and of what it is fed, and settings.
        observe: called when nothing is known.
        use: false neither looks nor remembers.

    Returns:
        Histograms by tensor, and whether they were remembered.
    """
    if not use:
        return observe(), False
    path = _path_for(key)
    known = None if path is None else _read(path)
    if known is not None:
        return known, True
    observed = observe()
    if path is not None:
        _write(path, observed)
    return observed, False


def _path_for(key: Mapping[str, Any]) -> Path | None:
    text = json.dumps({**key, "version": _VERSION}, sort_keys=True)
    folder = cache_folder("ranges")
    return folder and folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"


def _read(path: Path) -> dict[str, Histogram] | None:
    """Return what the file holds; None if there is none, or if it is damaged."""
    try:
        if not is_own(path):
            return None
        names, counts, facts = arrays_from_npz(
            path, "names", "counts", "facts", where=str(path), raising=ModelFileError
        )
        os.utime(path)  # marks it as used last
    except (OSError, SfppError):
        return None
    are_typed = names.dtype.kind == "U" and counts.dtype == np.int64 and facts.dtype == np.float64
    shapes = names.shape, counts.shape, facts.shape
    if not are_typed or shapes != ((names.size,), (names.size, BINS), (names.size, 4)):
        return None
    if (counts < 0).any() or (facts[:, 0] < 0).any() or not np.isfinite(facts).all():
        return None
    rows = zip(names, counts, facts, strict=True)
    return {str(name): Histogram(count, int(zeros), *map(float, rest)) for name, count, (zeros, *rest) in rows}


def _write(path: Path, observed: Histograms) -> None:
    facts = [(each.zeros, each.lowest, each.highest, each.limit) for each in observed.values()]
    counts = [each.counts for each in observed.values()]
    try:
        with whole_file(path) as temporary:
            np.savez_compressed(
                temporary,
                names=np.array(list(observed)),
                counts=np.array(counts, np.int64),
                facts=np.array(facts, np.float64),
            )
        by_age = sorted(path.parent.glob("*.npz"), key=lambda each: each.stat().st_mtime)
        for old in by_age[:-_KEPT]:
            old.unlink(missing_ok=True)
    except (OSError, SfppError):
        return  # a full disk costs the next run its time, and this one nothing
