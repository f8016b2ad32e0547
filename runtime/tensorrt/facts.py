"""What is known of NVIDIA's versions, boards and cards, and where from; ``facts.json`` is the one place that says it.

The pages' tables, the check of a file, its bounds and the doctor are made from it. Each row names under ``known_from``
the source of each of its fields, and each source has a mark: ``read`` in source, header or package, NVIDIA's
``documentation``, a ``user report`` or other third party, or ``memory``, which nobody looked up.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sfpp.runtime.tensorrt.library import version_numbers
from sfpp.runtime.typed_json import dataclass_from_json

Mark = Literal["read", "documentation", "user report", "memory"]


@dataclass(frozen=True)
class Source:
    """Where something is known from; ``link`` and ``commit`` are empty where there is none."""

    mark: Mark
    what: str
    link: str = ""
    commit: str = ""


@dataclass(frozen=True)
class Known:
    """A row of facts; ``known_from`` has the names of its fields, with spaces between, by source."""

    known_from: dict[str, str] = field(default_factory=dict, kw_only=True)

    def sources_of(self, name: str) -> list[str]:
        """Return the keys of a field's sources."""
        return [key for key, names in self.known_from.items() if name in names.split()]


@dataclass(frozen=True)
class JetPack(Known):
    """A version of JetPack.

    Attributes:
        name: such as ``6.2``.
        linux: its versions of Jetson Linux, with spaces between; empty where that is not known.
        ubuntu, python, cuda, tensorrt: versions.
        cuda_python: the first numbers of the cuda-python that fits; empty where sfpp has no use for one.
        boards: that it is for.
        support: ``yes``, ``best effort`` or ``no``.
    """

    name: str
    linux: str
    ubuntu: str
    python: str
    cuda: str
    cuda_python: str
    tensorrt: str
    boards: str
    support: str


@dataclass(frozen=True)
class Board(Known):
    """A family of boards.

    Attributes:
        name: as people call it.
        match: found in what ``/proc/device-tree/model`` says of one.
        capability: compute capability.
        modes: power modes by number.
        default: name of the mode it comes with; empty where that is not known.
        note: what else there is to know of its modes.
    """

    name: str
    match: str
    capability: str
    modes: dict[str, str]
    default: str
    note: str


@dataclass(frozen=True)
class Gpu(Known):
    """The published peaks of a GPU, without a Jetson's DLA.

    Attributes:
        name: as people call it.
        match: found in the name that a driver or a board gives.
        capability: compute capability.
        int8_tops: dense INT8 tensor operations, 10^12 a second; a multiply-add is two.
        fp16_tflops: the same in float16, added up in float16, which is the faster way.
        bandwidth_gb_s: of its memory, 10^9 bytes a second.
    """

    name: str
    match: str
    capability: str
    int8_tops: float
    fp16_tflops: float
    bandwidth_gb_s: float


@functools.cache
def facts() -> Mapping[str, Any]:
    """Return everything as parsed JSON."""
    parsed: dict[str, Any] = json.loads(Path(__file__).with_name("facts.json").read_text(encoding="utf-8"))
    return parsed


def sources() -> dict[str, Source]:
    """Return every source by its key."""
    return {key: dataclass_from_json(Source, each, where=key) for key, each in facts()["sources"].items()}


@functools.cache
def jetpacks() -> tuple[JetPack, ...]:
    """Return the versions of JetPack, the oldest first."""
    return tuple(dataclass_from_json(JetPack, each, where="a JetPack") for each in facts()["jetpacks"])


@functools.cache
def boards() -> tuple[Board, ...]:
    """Return the families of boards."""
    return tuple(dataclass_from_json(Board, each, where="a board") for each in facts()["boards"])


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs whose peaks are known, the smallest first."""
    return tuple(dataclass_from_json(Gpu, each, where="a GPU") for each in facts()["gpus"])


def trtexec_path(version: str) -> str:
    """Return how ``trtexec`` of a version of TensorRT is called: before 10.15 it is in no PATH."""
    moved = facts()["trtexec"]
    before = version_numbers(version) < version_numbers(moved["moved_in"])
    return f"{moved['folder_before']}/trtexec" if before else "trtexec"
