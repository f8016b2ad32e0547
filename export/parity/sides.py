"""Opening both sides: the file in a backend, PyTorch in its place, and the file once more with its insides visible."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from sfpp.export.costs import ADVICE, live_bytes, parity_bytes
from sfpp.export.parity.comparison import Sides
from sfpp.export.parity.points import Point, all_points, coarse_points, survives_equalizing
from sfpp.export.parity.probed_model import ProbedModel, read_graph
from sfpp.export.parity.reference import Reference, pytorch_side, reference_for
from sfpp.export.parity.settings import ParitySettings
from sfpp.runtime.backends import Backend, BackendOptions, open_backend
from sfpp.runtime.backends.openvino import OpenVinoBackend
from sfpp.runtime.contract import ModelContract, contract_from_metadata, read_contract_file
from sfpp.runtime.resources import memory_for
from sfpp.tooling.tasks import predictor_of

Notify = Callable[[str], object]
OpenProbes = Callable[..., ProbedModel]  # of a sequence of points, and whether to keep it open
# Every layer of a B0 is 0.9 GB at 1920x1080 and 3.5 GB at 3840x2160, in runs of at most 1 GB; beyond that one looks
# into a part only where it differs.
DETAILS_BYTES_LIMIT = 4 << 30


@dataclass(frozen=True, eq=False)
class OpenedSides:
    """Both sides, what runs the file, and how to open it with other points; None where its insides cannot be seen."""

    sides: Sides
    backend: Backend
    open_probes: OpenProbes | None


@contextlib.contextmanager
def opened_sides(settings: ParitySettings, notify: Notify) -> Iterator[OpenedSides]:
    """Open both sides for the length of a block.

    Raises:
        ModelFileError, ContractError: the file cannot be opened, or nothing says what it takes and gives.
        BackendError, MissingDependencyError, UsageError: the backend is not there or does not fit.
        CheckpointError: the weights cannot be read.
        MemoryShortageError: there is less memory than comparing takes, or it runs out within the block.
    """
    given, model = settings.contract, settings.model
    if isinstance(given, Path):
        given = read_contract_file(given)
    options = BackendOptions(threads=settings.threads, precision=settings.precision)
    target = None if given is None else given.target
    with contextlib.ExitStack() as stack:
        backend, reason = open_backend(
            model, backend=settings.backend_name, options=options, target=target, notify=notify
        )
        stack.callback(backend.close)
        notify(f"{model.name} runs in {reason}")
        contract = given or contract_from_metadata(
            backend.metadata, origin=model.name, instead="with --contract FILE.json"
        )
        reference = reference_for(contract, settings.weights)
        graph = read_graph(model) if model.suffix == ".onnx" else None
        open_probes = None if graph is None else _prober(graph, settings.backend_name, options, contract)
        probed, detailed = _probed(reference, open_probes)
        live = 0 if graph is None else _live_bytes(graph, contract, backend)
        values = max((each.run_bytes for each in (probed, detailed) if each is not None), default=0)
        needed_bytes = parity_bytes(reference.network, reference.recipe, contract, live=live, values=values)
        stack.enter_context(memory_for(f"comparing {model.name} with PyTorch", needed_bytes, advice=ADVICE))
        if probed is not None:
            stack.callback(probed.close)
        sides = Sides(predictor_of(backend, contract), pytorch_side(reference), reference, probed, detailed)
        yield OpenedSides(sides, backend, open_probes)


def _live_bytes(graph: onnx.ModelProto, contract: ModelContract, backend: Backend) -> int:
    """Return what is alive at one time; files exported by earlier versions do not say it."""
    return contract.live_bytes or live_bytes(graph, fused=isinstance(backend, OpenVinoBackend))


def _prober(
    graph: onnx.ModelProto, backend: str | None, options: BackendOptions, contract: ModelContract
) -> OpenProbes:
    """Return what opens the graph with more outputs."""
    equalized = contract.calibration is not None and contract.calibration.equalized

    def open_probes(points: Sequence[Point], *, keep: bool = False) -> ProbedModel:
        shown = [each for each in points if survives_equalizing(each.name)] if equalized else points
        return ProbedModel(graph, contract, shown, backend=backend, options=options, keep=keep)

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
