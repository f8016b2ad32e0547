"""What travels to a machine without a network: archives in pieces, and the list that says whether all are there."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfpp.runtime.errors import ModelFileError, SfppError
from sfpp.runtime.files import python_module, whole_file, write_text

ROOT = Path(__file__).parents[2]
PIECE_BYTES = 40 << 20  # beside 20 MB of repository a piece keeps a transfer below 64 MiB
GRAPHS, LIBRARIES = "graphs", "libraries"
PYTHON = "3.12"  # of the machine with the card
# What it lacks: the rest of what is measured and tested comes with its PyTorch.
_PACKAGES = {"onnxruntime-gpu": "onnxruntime", "onnx-graphsurgeon": "onnx-graphsurgeon"}
_UNUSED = "onnxruntime/capi/libonnxruntime_providers_tensorrt.so"
# Equal weights in many graphs, and equal code for several cards, lie further apart than the usual 8 MiB.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 64 << 20}]
_LIST = "list.json"
_MARK = ".packed"


class Parts:
    """The folder with the pieces, and beside them what is in them: ``graphs/`` and ``libraries/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pieces = folder / "pieces"

    def content(self, archive: str) -> Path:
        """Return the folder that an archive holds, packed or unpacked."""
        return self.folder / archive

    @property
    def known(self) -> dict[str, Any]:
        """What :meth:`pack` noted until now."""
        path = self._pieces / _LIST
        content: dict[str, Any] = {"archives": {}}
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else content

    def read_list(self) -> dict[str, Any]:
        """Return what :meth:`pack` noted.

        Raises:
            ModelFileError: nothing was prepared, or the list did not travel.
        """
        path = self._pieces / _LIST
        if not path.is_file():
            raise ModelFileError(f"{path} is not there: run `python -m benchmarks.gpu prepare`, and copy the folder")
        return self.known

    @property
    def pieces(self) -> list[Path]:
        """All that has to travel."""
        return sorted(path for path in self._pieces.iterdir() if path.is_file())

    def is_packed(self, archive: str, **facts: Any) -> bool:
        """Return whether all pieces of an archive are there, and the list holds these facts."""
        known = self.known
        pieces = known["archives"].get(archive, {})
        whole = all(_sha256(self._pieces / name) == digest for name, digest in pieces.items())
        return bool(pieces) and whole and all(known.get(name) == value for name, value in facts.items())

    def pack(self, archive: str, **facts: Any) -> None:
        """Pack an archive's folder anew, and note its pieces and the facts in the list."""
        self._pieces.mkdir(parents=True, exist_ok=True)
        for old in self._pieces.glob(f"{archive}-*"):
            old.unlink()
        (self.content(archive) / _MARK).unlink(missing_ok=True)
        with tempfile.TemporaryFile(dir=self._pieces) as stream:
            with lzma.open(stream, "wb", filters=_FILTERS) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
                for path in sorted(self.content(archive).rglob("*")):
                    tar.add(path, path.relative_to(self.content(archive)), recursive=False)
            stream.seek(0)
            pieces: dict[str, str] = {}
            while data := stream.read(PIECE_BYTES):
                name = f"{archive}-{len(pieces):02d}"
                with whole_file(self._pieces / name) as temporary:
                    temporary.write_bytes(data)
                pieces[name] = hashlib.sha256(data).hexdigest()
        known = self.known
        known = {**known, **facts, "archives": {**known["archives"], archive: pieces}}
        write_text(self._pieces / _LIST, json.dumps(known, indent=1))
        self._mark(archive, pieces)

    def missing(self, archive: str) -> list[str]:
        """Return the pieces of an archive that are not there, or damaged."""
        wanted: Mapping[str, str] = self.read_list()["archives"].get(archive, {})
        if self._is_unpacked(archive, wanted):
            return []
        return [name for name, digest in wanted.items() if _sha256(self._pieces / name) != digest]

    def unpack(self, archive: str) -> bool:
        """Unpack an archive unless that is done; return whether there is one.

        Raises:
            ModelFileError: pieces are missing.
        """
        wanted = self.read_list()["archives"].get(archive)
        if wanted is None or self._is_unpacked(archive, wanted):
            return wanted is not None
        if missing := self.missing(archive):
            raise ModelFileError(f"copy these to {self._pieces} as well, then try again: {', '.join(missing)}")
        shutil.rmtree(self.content(archive), ignore_errors=True)
        with tempfile.TemporaryFile(dir=self.folder) as stream:
            for name in wanted:
                stream.write((self._pieces / name).read_bytes())
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:xz") as tar:
                tar.extractall(self.content(archive), filter="data")
        self._mark(archive, wanted)
        return True

    def _is_unpacked(self, archive: str, wanted: Mapping[str, str]) -> bool:
        mark = self.content(archive) / _MARK
        return mark.is_file() and mark.read_text(encoding="utf-8").split() == list(wanted.values())

    def _mark(self, archive: str, pieces: Mapping[str, str]) -> None:
        (self.content(archive) / _MARK).write_text("\n".join(pieces.values()), encoding="utf-8")


def fetch_libraries(folder: Path) -> None:
    """Fill a folder with what the machine with the card lacks, for its Python, from the package index.

    Raises:
        SfppError: pip is missing, or does not get them.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as wheels:
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
        platform = "--platform=manylinux_2_28_x86_64"
        options += [platform, "-d", wheels, *requirements()]
        if subprocess.run(**python_module("pip", "download", *options), check=False).returncode != 0:
            raise SfppError(
                f"pip could not download {' and '.join(requirements())}; see above. Without them the graphs can "
                "travel alone: prepare --no-libraries"
            )
        shutil.rmtree(folder, ignore_errors=True)
        for wheel in Path(wheels).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
    (folder / _UNUSED).unlink(missing_ok=True)


def requirements() -> list[str]:
    """Return the packages, in the versions that continuous integration uses."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
    return [f"{package}=={pinned[versioned_as]}" for package, versioned_as in _PACKAGES.items()]


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
