"""Files written by ``torch.save``, read as data: nothing that a file names is ever imported or called."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfpp.runtime.errors import CheckpointError

ZIP_MAGIC = b"PK\x03\x04"

_WRAPPERS = ("state_dict", "model_state_dict", "model")

# What training tools write beside the weights: mmengine's log, whose values are numpy arrays and scalars under the old
# or the new name of numpy's core. None of it is needed, so each name is answered by a class that does nothing.
_INERT_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
)


class _Inert:
    """Takes the place of an object that is not needed: forgets its arguments and its state."""

    def __init__(self, *_arguments: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


def _inert_class(full_name: str) -> type[_Inert]:
    # torch's allow list goes by module and name, which a class may claim freely.
    module, _, name = full_name.rpartition(".")
    return type(name, (_Inert,), {"__module__": module})


_INERT_CLASSES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    _inert_class(name) for name in _INERT_NAMES
]


def read_pickled(path: Path, *, zipped: bool) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the tensors of a state dictionary by key, and the training tool's ``meta``, empty where there is none.

    Raises:
        CheckpointError: damaged, not a state dictionary, or a pickle that refers to anything but tensors.
    """
    payload = _load(path, zipped=zipped)
    if not isinstance(payload, Mapping):
        raise CheckpointError(f"{path} holds a {type(payload).__name__}, expected a state dictionary. {_RESAVE}")
    meta = payload.get("meta")
    return _state_dict(payload, path), meta if isinstance(meta, Mapping) else {}


def _load(path: Path, *, zipped: bool) -> object:
    try:
        with torch.serialization.safe_globals(_INERT_CLASSES), warnings.catch_warnings():
            # torch asks to be told of unusual pickle protocols; what becomes of them, the error says.
            warnings.simplefilter("ignore")
            # Mapping leaves an optimizer's state, twice the size of the weights, on the disk.
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except OSError:
        raise
    except Exception as error:  # damaged bytes surface as almost any exception
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint, or it is truncated or damaged ({reason}); "
            "copy or download it again, and compare its size with the original"
        ) from error


def _refusal(path: Path, reason: str) -> CheckpointError:
    """Return the error for a pickle that torch's restricted loader refused; ``reason`` is torch's message."""
    if found := re.search(r"GLOBAL (\S+)", reason):
        return CheckpointError(
            f"{path} holds a pickle that refers to {found[1]} and would run code when loaded; nothing was executed. "
            f"A checkpoint must hold tensors only. {_RESAVE}"
        )
    detail = reason.split("WeightsUnpickler error:")[-1].split("Check the documentation")[0].strip().splitlines()
    return CheckpointError(
        f"{path} is a pickle that cannot be read as plain tensors ({detail[-1] if detail else 'no reason given'}); "
        f"nothing was executed. {_RESAVE}"
    )


_RESAVE = (
    "In the program that made it, save the state dictionary alone: torch.save(model.state_dict(), 'weights.pth'), "
    "or safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)


def _state_dict(payload: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    wrapped = [payload[key] for key in _WRAPPERS if isinstance(payload.get(key), Mapping)]
    inner: Mapping[Any, Any] = wrapped[0] if wrapped else payload
    tensors = {key: value.detach() for key, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        found = ", ".join(str(key) for key in list(inner)[:10]) or "nothing"
        raise CheckpointError(f"{path} has no tensors where a state dictionary should be (found: {found}). {_RESAVE}")
    return {str(key): value for key, value in tensors.items()}
