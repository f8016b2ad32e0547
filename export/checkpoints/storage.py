"""From a path to what a checkpoint holds: single files, folders saved by Transformers and SMP, shards."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfpp.export.checkpoints.pickled import ZIP_MAGIC, read_pickled
from sfpp.runtime.errors import CheckpointError
from sfpp.runtime.files import sha256_of
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
_SUFFIXES = {".pth", ".pt", ".bin", ".safetensors", ".ckpt"}


@dataclass(frozen=True)
class StoredWeights:
    """What a checkpoint holds, before anything is known about the network.

    ``content`` is a dictionary of tensors, or one of training in which such dictionaries, or whole modules, are found.
    ``metadata`` is what was written beside the tensors: safetensors' own texts, or ``meta`` of mmcv and mmengine.
    ``sha256`` is the weight file's; of shards, that of their contents one after another in the order of their names.
    ``passed_over`` are names of objects that a pickle has beside its tensors and that nobody looked at.
    """

    path: Path
    folder: Path
    content: object = field(repr=False)
    metadata: Mapping[str, Any]
    sha256: str
    passed_over: tuple[str, ...] = ()


def read_weights(path: str | os.PathLike[str]) -> StoredWeights:
    """Read a checkpoint; the tensors may still be mapped from the file.

    Raises:
        CheckpointError: no such path, no weights in the folder, or a file that is not a readable checkpoint.
    """
    location = Path(path)
    with _os_errors_named(location):
        weights = _weights_in(location) if location.is_dir() else location
        if not weights.name.endswith(_INDEX_SUFFIX):
            return StoredWeights(location, weights.parent, *_read_file(weights))
        files = _shards(weights)
        tensors: dict[str, Any] = {}
        metadata: dict[str, Any] = {}
        passed_over: set[str] = set()
        for file in files:
            content, extra, _, names = _read_file(file)
            tensors.update(content if isinstance(content, Mapping) else {})
            metadata.update(extra)
            passed_over.update(names)
        return StoredWeights(location, weights.parent, tensors, metadata, sha256_of(files), tuple(sorted(passed_over)))


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
        raise CheckpointError(f"{error.filename or path} does not exist; {_instead(path)}") from error
    except OSError as error:
        raise CheckpointError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


def _instead(path: Path) -> str:
    """Say what to give in place of a path that does not exist, which may be a name on the Hugging Face hub."""
    if path.is_absolute() or path.parent.is_dir() or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path.as_posix()):
        return f"give {_EXPECTED}"
    if path.suffix.lower() in _SUFFIXES:
        return f"nor does the folder {path.parent}; give {_EXPECTED}"
    name = path.as_posix()
    return (
        f"if it is a model on the Hugging Face hub, download it first, since nothing is downloaded here: "
        f"hf download {name} --local-dir {path.name}; then give the folder {path.name}"
    )


def _weights_in(folder: Path) -> Path:
    for name in _FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(_adapter(folder))
    none = f"the folder {folder} has neither model.safetensors nor pytorch_model.bin"
    if steps := _trainer_steps(folder):
        raise CheckpointError(
            f"{none}, but checkpoints of Transformers' Trainer: give one of those folders; the newest of {len(steps)} "
            f"is {shlex.quote(str(steps[-1]))}"
        )
    others = sorted(file.name for file in folder.iterdir() if file.suffix in _SUFFIXES)
    hint = f"; it has {', '.join(others[:5])}: give the file itself" if others else f"; give {_EXPECTED}"
    raise CheckpointError(f"{none}{hint}")


def _trainer_steps(folder: Path) -> list[Path]:
    """Return the folders ``checkpoint-N`` of a training, the newest last."""
    found = (re.fullmatch(r"checkpoint-(\d{1,12})", each.name) for each in folder.iterdir() if each.is_dir())
    steps = sorted(int(each[1]) for each in found if each is not None)
    return [folder / f"checkpoint-{step}" for step in steps]


def _adapter(folder: Path) -> str:
    """Say how an adapter, which is no network by itself, becomes one."""
    base = read_json_object(folder / "adapter_config.json").get("base_model_name_or_path")
    network = repr(base) if isinstance(base, str) and base.isprintable() else "BASE"
    return (
        f"{folder} is an adapter of PEFT (LoRA) without the network that it changes. Merge the two in Python: from "
        "peft import PeftModel; from transformers import SegformerForSemanticSegmentation; "
        f"PeftModel.from_pretrained(SegformerForSemanticSegmentation.from_pretrained({network}), {str(folder)!r})"
        ".merge_and_unload().save_pretrained('merged'); then give the folder merged"
    )


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


def _read_file(path: Path) -> tuple[object, Mapping[str, Any], str, tuple[str, ...]]:
    """Return a file's content, metadata, SHA-256 and the names of the objects that were passed over."""
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
        return *_read_safetensors(path), sha256_of([path]), ()
    pickled = read_pickled(path, zipped=head.startswith(ZIP_MAGIC))
    meta = pickled.content.get("meta") if isinstance(pickled.content, Mapping) else None
    return pickled.content, meta if isinstance(meta, Mapping) else {}, sha256_of([path]), pickled.passed_over


def _read_safetensors(path: Path) -> tuple[object, Mapping[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
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
