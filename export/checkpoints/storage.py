"""From a path to named tensors: single files, folders saved by Transformers, shards."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sfpp.export.checkpoints.pickled import ZIP_MAGIC, read_pickled
from sfpp.runtime.errors import CheckpointError
from sfpp.runtime.files import sha256_of

_EXPECTED = "a .pth, .pt, .bin or .safetensors file, or a folder with config.json and model.safetensors"
_INDEX_SUFFIX = ".index.json"
# In the order of Transformers' own preference.
_FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
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
        raise CheckpointError(f"{index} has no weight_map, so its weight files cannot be told; save the model again")
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
