"""Arrays in an .npz from elsewhere: as many as are asked for, and no more memory than they may take."""

from __future__ import annotations

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
                if array.dtype.kind == "U":
                    array.tolist()  # raises where a number is no character
            return arrays
    except SfppError:
        raise
    except Exception as error:  # damaged bytes surface as almost any exception
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {first_line(error)}"
        raise raising(f"{where} cannot be read as an .npz with {', '.join(names)}: {reason}") from error
