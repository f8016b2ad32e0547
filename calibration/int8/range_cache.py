"""What was observed of a model on its frames, kept from one run to the next."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.calibration.int8.ranges import Histogram
from sfpp.runtime.cache import user_cache
from sfpp.runtime.errors import SfppError
from sfpp.runtime.files import whole_file

# To be raised when histograms are taken in another way: what an older version kept is then not found any more.
_VERSION = 2
_KEPT = 32  # files, of 16 KB a tensor

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
    try:
        folder = user_cache() / "ranges"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"


def _read(path: Path) -> dict[str, Histogram] | None:
    """Return what the file holds; None if there is none, or if it is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream) as stored:
            names, counts, facts = stored["names"], stored["counts"], stored["facts"]
        os.utime(path)  # marks it as used last
        rows = zip(names, counts, facts, strict=True)
        return {str(name): _restored(count, *map(float, fact)) for name, count, fact in rows}
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
        return None


def _restored(counts: NDArray[np.int64], zeros: float, lowest: float, highest: float, limit: float) -> Histogram:
    histogram = Histogram()
    histogram.counts = counts
    histogram.zeros, histogram.lowest, histogram.highest, histogram.limit = int(zeros), lowest, highest, limit
    return histogram


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
