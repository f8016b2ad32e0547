"""Who takes part at one network and size: opened, run on one picture, measured in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.machine import machine
from benchmarks.speed.models import export_ours, export_transformers, score_bytes, target_of
from benchmarks.speed.pytorch import EagerRequest, eager_peak_bytes, open_eager
from benchmarks.speed.results import PYTORCH, TRANSFORMERS
from sfpp.export.settings import Resolution
from sfpp.runtime.backends import backend_choices
from sfpp.runtime.bench.measured_model import BenchFrame, MeasuredModel, open_model
from sfpp.runtime.bench.memory import MemoryRequest, model_peak_bytes
from sfpp.runtime.bench.settings import BackendSpec
from sfpp.runtime.contract import METADATA_KEY, ModelContract, contract_from_json
from sfpp.runtime.errors import SfppError
from sfpp.runtime.onnx_file import metadata_of

# Without one of these a processor converts every value back and forth: PyTorch in bfloat16 is then no contestant.
_NATIVE_BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}


class Contestant(Protocol):
    """A model that can be opened again and again."""

    def open(self) -> MeasuredModel:
        """Open it, bound to the picture; an SfppError says why it cannot be."""

    def peak_bytes(self, frame: Path) -> int:
        """Return the peak memory of a process of its own that runs it on the frame in a ``.npy`` file."""


@dataclass(frozen=True)
class Entry:
    """A line of the result: ``pytorch``, ``transformers`` or one of our variants on a backend.

    ``contestant`` is None where it does not take part, and ``missing`` says why.
    """

    name: str
    backend: str
    multiply_adds: int | None = None
    contestant: Contestant | None = None
    missing: str | None = None

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.name} on {self.backend}"


@dataclass(frozen=True, eq=False)
class GraphContestant:
    """An ONNX file with a contract, in a library."""

    path: Path
    spec: BackendSpec
    picture: BenchFrame

    def open(self) -> MeasuredModel:
        """Open it, from the cache of compiled models where it is in there."""
        choice = backend_choices(self.path, backend=self.spec.name, options=self.spec.options())[0]
        return open_model(choice, bench_frame=lambda: self.picture, shapes={})[0]

    def peak_bytes(self, frame: Path) -> int:
        """As ``sfpp-bench`` measures it."""
        request = MemoryRequest(
            model=str(self.path),
            backend=self.spec.name,
            precision=self.spec.precision,
            threads=None,
            frame=str(frame),
            fitted=True,
        )
        return model_peak_bytes(request)


@dataclass(frozen=True, eq=False)
class EagerContestant:
    """PyTorch with the attention written out."""

    request: EagerRequest
    picture: BenchFrame

    def open(self) -> MeasuredModel:
        """Load the checkpoint."""
        return open_eager(self.request, self.picture)

    def peak_bytes(self, frame: Path) -> int:
        """Of a process that imports PyTorch and Transformers, and nothing of ours but the runtime."""
        return eager_peak_bytes(self.request, frame)


@dataclass(frozen=True, eq=False)
class Field:
    """What all contestants of one network and size have in common; ``memory_bytes`` is what they may fill."""

    network: str
    size: Resolution
    checkpoint: Path
    folder: Path
    picture: BenchFrame
    memory_bytes: float
    notify: Callable[[str], object]

    def entries(self, variants: Sequence[str], specs: Sequence[BackendSpec]) -> list[Entry]:
        """Export what is needed and return all who take part, or could not: theirs first, then ours."""
        ours = [self._ours(variant, spec) for variant in variants for spec in specs]
        return [*self._theirs(specs), *ours]

    def write_frame(self) -> Path:
        """Write the picture for the processes that measure memory, (H, W, 3) uint8 BGR; return the ``.npy`` file."""
        path = self.folder / "frame.npy"
        np.save(path, self.picture.frame_bgr)
        return path

    def _theirs(self, specs: Sequence[BackendSpec]) -> Iterator[Entry]:
        eager = [f"{PYTORCH}:fp32"]
        if _NATIVE_BFLOAT16 & set(machine()["instruction_sets"]):
            eager.append(f"{PYTORCH}:bf16")
        scores = score_bytes(self.size)
        # Two at a time, scores and softmax. Counted before: a process that runs out of memory may take others with it.
        if 2 * scores > self.memory_bytes:
            missing = f"{scores / 2**30:.0f} GiB of scores"
            yield from (Entry(PYTORCH, backend, missing=missing) for backend in eager)
            yield from (Entry(TRANSFORMERS, str(spec), missing=missing) for spec in specs)
            return
        path = self.folder / f"{TRANSFORMERS}.onnx"
        self.notify("exporting with torch.onnx")
        contract = export_transformers(self.checkpoint, path, network=self.network, size=self.size)
        for backend in eager:
            request = EagerRequest(str(self.checkpoint), contract.to_json(), autocast=backend.endswith("bf16"))
            yield _entry(PYTORCH, backend, contract, EagerContestant(request, self.picture))
        for spec in specs:
            yield _entry(TRANSFORMERS, str(spec), contract, GraphContestant(path, spec, self.picture))

    def _ours(self, variant: str, spec: BackendSpec) -> Entry:
        target = target_of(spec.name or "")
        path = self.folder / f"{variant.replace(':', '-')}-{target}.onnx"
        try:
            contract = self._contract(variant, spec, path)
        except SfppError as error:
            self.notify(f"failed: {variant} on {spec}: {error}")
            return Entry(variant, str(spec), missing=str(error))
        return _entry(variant, str(spec), contract, GraphContestant(path, spec, self.picture))

    def _contract(self, variant: str, spec: BackendSpec, path: Path) -> ModelContract:
        """Export a variant, or read what the file says that is there: two precisions share one."""
        if path.is_file():
            return contract_from_json(metadata_of(path)[METADATA_KEY], origin=path.name)
        self.notify(f"exporting {variant} for {target_of(spec.name or '')}")
        return export_ours(self.checkpoint, path, variant=variant, backend=spec.name or "", size=self.size)


def _entry(name: str, backend: str, contract: ModelContract, contestant: Contestant) -> Entry:
    return Entry(name, backend, multiply_adds=contract.multiply_adds, contestant=contestant)
