"""Opening both sides: the file in a backend, PyTorch in its place, and the file once more with its insides visible."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from sfpp.export.arithmetic import live_bytes
from sfpp.export.memory import ADVICE, parity_bytes
from sfpp.export.parity.comparison import Sides
from sfpp.export.parity.points import Point, all_points, coarse_points, survives_equalizing
from sfpp.export.parity.probed_model import ProbedModel, read_graph
from sfpp.export.parity.reference import Reference, reference_for
from sfpp.export.parity.subjects import file_side, pytorch_side
from sfpp.runtime.backends import Backend, BackendOptions, open_backend
from sfpp.runtime.backends.openvino import OpenVinoBackend
from sfpp.runtime.contract import ModelContract, contract_from_metadata
from sfpp.runtime.resources import memory_for

Notify = Callable[[str], object]
OpenProbes = Callable[..., ProbedModel]  # of a sequence of points, and whether to keep it open
# It runs every graph made here and computes a float32 graph in float32.
STRICTEST = "onnxruntime"
AUTOMATIC = "auto"
# Every layer of a B0 is 0.9 GB at 1920x1080 and 3.5 GB at 3840x2160, in runs of at most 1 GB; beyond that one looks
# into a part only where it differs.
DETAILS_BYTES_LIMIT = 4 << 30


@dataclass(frozen=True)
class Wish:
    """What the user asked for.

    Attributes:
        model: the file.
        weights: the checkpoint, None for a demonstration model's.
        contract: in the place of the file's own.
        backend: by name; ``auto`` chooses as the runtime does.
        options: precision and threads.
    """

    model: Path
    weights: str | None
    contract: ModelContract | None
    backend: str
    options: BackendOptions


@dataclass(frozen=True, eq=False)
class OpenedSides:
    """Both sides, what runs the file, and how to open it with other points; None where its insides cannot be seen."""

    sides: Sides
    backend: Backend
    open_probes: OpenProbes | None


@contextlib.contextmanager
def opened_sides(wish: Wish, notify: Notify) -> Iterator[OpenedSides]:
    """Open both sides for the length of a block.

    Raises:
        ModelFileError, ContractError: the file cannot be opened, or nothing says what it takes and gives.
        BackendError, MissingDependencyError, UsageError: the backend is not there or does not fit.
        CheckpointError: the weights cannot be read.
        MemoryShortageError: there is less memory than comparing takes, or it runs out within the block.
    """
    name = None if wish.backend == AUTOMATIC else wish.backend
    target = None if wish.contract is None else wish.contract.target
    with contextlib.ExitStack() as stack:
        backend, reason = open_backend(wish.model, backend=name, options=wish.options, target=target, notify=notify)
        stack.callback(backend.close)
        notify(f"{wish.model.name} runs in {reason}")
        contract = wish.contract or contract_from_metadata(
            backend.metadata, origin=wish.model.name, instead="with --contract FILE.json"
        )
        reference = reference_for(contract, wish.weights)
        graph = read_graph(wish.model) if wish.model.suffix == ".onnx" else None
        open_probes = None if graph is None else _prober(graph, wish, contract)
        probed, detailed = _probed(reference, open_probes)
        live = 0 if graph is None else _live_bytes(graph, contract, backend)
        values = max((each.run_bytes for each in (probed, detailed) if each is not None), default=0)
        needed_bytes = parity_bytes(reference.network, reference.recipe, contract, live=live, values=values)
        stack.enter_context(memory_for(f"comparing {wish.model.name} with PyTorch", needed_bytes, advice=ADVICE))
        if probed is not None:
            stack.callback(probed.close)
        sides = Sides(file_side(backend, contract), pytorch_side(reference), reference, probed, detailed)
        yield OpenedSides(sides, backend, open_probes)


def _live_bytes(graph: onnx.ModelProto, contract: ModelContract, backend: Backend) -> int:
    """Return what is alive at one time; files exported by earlier versions do not say it."""
    return contract.live_bytes or live_bytes(graph, fused=isinstance(backend, OpenVinoBackend))


def _prober(graph: onnx.ModelProto, wish: Wish, contract: ModelContract) -> OpenProbes:
    """Return what opens the graph with more outputs, as the wish says."""
    name = None if wish.backend == AUTOMATIC else wish.backend
    equalized = contract.calibration is not None and contract.calibration.equalized

    def open_probes(points: Sequence[Point], *, keep: bool = False) -> ProbedModel:
        shown = [each for each in points if survives_equalizing(each.name)] if equalized else points
        return ProbedModel(graph, contract, shown, backend=name, options=wish.options, keep=keep)

    return open_probes


def _probed(reference: Reference, open_probes: OpenProbes | None) -> tuple[ProbedModel | None, ProbedModel | None]:
    """Return the file with the parts' values among its outputs, and with the layers' if they are not too many."""
    if open_probes is None:
        return None, None
    about = reference.network, reference.recipe, reference.spec.size_hw
    # Neither is opened before it runs, so that only one of them takes memory at a time.
    detailed = open_probes(all_points(*about))
    fits = detailed.value_bytes <= DETAILS_BYTES_LIMIT
    return open_probes(coarse_points(*about), keep=True), detailed if fits else None
