"""Arrays in an .npz from elsewhere: as many as are asked for, and no more memory than they may take."""

from __future__ import annotations

import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfpp.runtime.errors import SfppError
from sfpp.runtime.limits import advice, limit
from sfpp.runtime.text import first_line


def arrays_from_npz(path: Path, *names: str, where: str, raising: type[SfppError]) -> tuple[NDArray[Any], ...]:
    """Return arrays of an .npz in the order of their names, of whatever types and shapes they are.

    Pickled objects are refused, as numpy does by itself: what comes from elsewhere is data, never code.

    Args:
        path: the file.
        names: of the arrays.
        where: begins the message of every error.
        raising: the errors' type.
    """
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive, warnings.catch_warnings():
            size = sum(member.file_size for member in archive.infolist())
            if size > limit("ARRAY_BYTES"):
                raise raising(f"{where} unpacks to {size} bytes; {advice('ARRAY_BYTES')}")
            stream.seek(0)
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            with np.load(stream) as stored:
                arrays = tuple(stored[name] for name in names)
            # Of what does not begin as an array, its bytes come.
            if not all(isinstance(array, np.ndarray) for array in arrays):
                raise TypeError("not all of these are arrays")
            for array in arrays:
                _check_items(array)
            return arrays
    except SfppError:
        raise
    except Exception as error:  # damaged bytes surface as almost any exception
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {first_line(error)}"
        raise raising(f"{where} cannot be read as an .npz with {', '.join(names)}: {reason}") from error


def _check_items(array: NDArray[Any]) -> None:
    """Raise ValueError where there are more items than bytes, or a text whose numbers are no characters."""
    # Items of no bytes cost the file nothing, and whoever makes others of them all memory.
    if array.size and not array.dtype.itemsize:
        raise ValueError(f"{array.size} items have no bytes")
    if array.size and array.dtype.kind == "U":
        # As numbers: as Python's, each text would take twenty times the memory.
        numbers = array.ravel().view(f"{array.dtype.str[0]}u4")
        if numbers.max() > sys.maxunicode:
            raise ValueError("a number in a text is no character")
