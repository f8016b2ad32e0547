"""From a path to named tensors: single files, folders saved by Transformers, shards.

Files written by ``torch.save`` are read as data: nothing that a file names is ever imported or called.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfpp.runtime.errors import CheckpointError
from sfpp.runtime.files import sha256_of
from sfpp.runtime.text import first_line
from sfpp.runtime.typed_json import json_from_file

_EXPECTED = "a .pth, .pt, .bin or .safetensors file, or a folder with config.json and model.safetensors"
_INDEX_SUFFIX = ".index.json"
# In the order of Transformers' own preference.
_FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
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
_RESAVE = (
    "In the program that made it, save the state dictionary alone: torch.save(model.state_dict(), 'weights.pth'), "
    "or safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)


@dataclass(frozen=True)
class StoredWeights:
    """What a checkpoint holds, before anything is known about the network.

    ``metadata`` is what was written beside the tensors: safetensors' own texts, or ``meta`` of mmcv and mmengine.
    ``sha256`` is the weight file's; of shards, that of their contents one after another in the order of their names.
    """

    path: Path
    folder: Path
    tensors: dict[str, Tensor]
    metadata: Mapping[str, Any]
    sha256: str


def read_weights(path: str | os.PathLike[str]) -> StoredWeights:
    """Read every tensor of a checkpoint; the tensors may still be mapped from the file.

    Raises:
        CheckpointError: no such path, no weights in the folder, or a file that is not a readable checkpoint.
    """
    location = Path(path)
    with _os_errors_named(location):
        weights = _weights_in(location) if location.is_dir() else location
        files = _shards(weights) if weights.name.endswith(_INDEX_SUFFIX) else [weights]
        tensors: dict[str, Tensor] = {}
        metadata: dict[str, Any] = {}
        for file in files:
            stored, extra = _read_file(file)
            tensors.update(stored)
            metadata.update(extra)
        return StoredWeights(location, weights.parent, tensors, metadata, sha256_of(files))


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file whose content is an object.

    Raises:
        CheckpointError: not JSON, or not an object.
    """
    content = json_from_file(path, where=str(path), raising=CheckpointError)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content


@contextlib.contextmanager
def _os_errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename or path} does not exist; give {_EXPECTED}") from error
    except OSError as error:
        raise CheckpointError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


def _weights_in(folder: Path) -> Path:
    for name in _FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(file.name for file in folder.iterdir() if file.suffix in {".pth", ".pt", ".bin", ".safetensors"})
    hint = f"; it has {', '.join(others[:5])}: give the file itself" if others else f"; give {_EXPECTED}"
    raise CheckpointError(f"the folder {folder} has neither model.safetensors nor pytorch_model.bin{hint}")


def _shards(index: Path) -> list[Path]:
    """Return the files that a Transformers index lists."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map, so its weight files are unknown; save the model again")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        # An index is data from elsewhere: it must not lead out of its folder.
        if Path(name).name != name:
            raise CheckpointError(f"{index} refers to {name!r}, expected the name of a file beside it")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index} refers to {name}, which is missing; copy all {len(names)} weight files")
    return [index.parent / name for name in names]


def _read_file(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes); copy or download it again")
    if path.suffix.lower() == ".onnx":
        raise CheckpointError(f"{path} is an ONNX file, which is already exported; give the checkpoint: {_EXPECTED}")
    if _is_text(head):
        raise CheckpointError(f"{path} is a text file{_kind_of_text(head)}, not a checkpoint; give {_EXPECTED}")
    # A safetensors file begins with the length of its JSON header, then the header.
    if path.suffix.lower() == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors(path)
    return read_pickled(path, zipped=head.startswith(ZIP_MAGIC))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            names: Sequence[str] = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file: it is truncated or damaged ({error}); copy or download it again"
        ) from error


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\r\f\ufeff" for character in text)


def _kind_of_text(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return " (a Git LFS pointer: run `git lfs pull` where it came from)"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return " (a web page, saved in place of the download)"
    return ""


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
            # torch warns of unusual pickle protocols; whether they load, the error says.
            warnings.simplefilter("ignore")
            # Mapping leaves an optimizer's state, twice the size of the weights, on the disk.
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except OSError:
        raise
    except Exception as error:  # damaged bytes surface as almost any exception
        reason = first_line(error).split(". ")[0]
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


def _state_dict(payload: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    wrapped = [payload[key] for key in _WRAPPERS if isinstance(payload.get(key), Mapping)]
    inner: Mapping[Any, Any] = wrapped[0] if wrapped else payload
    tensors = {key: value.detach() for key, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        found = ", ".join(str(key) for key in list(inner)[:10]) or "nothing"
        raise CheckpointError(f"{path} has no tensors where a state dictionary should be (found: {found}). {_RESAVE}")
    return {str(key): value for key, value in tensors.items()}


_INERT_CLASSES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    _inert_class(name) for name in _INERT_NAMES
]
