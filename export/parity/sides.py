"""Opening both sides: the file in a backend, PyTorch in its place, and the file once more with its insides visible."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from sfpp.export.costs import ADVICE, live_bytes
from sfpp.export.parity.points import Point, all_points, coarse_points, survives_equalizing
from sfpp.export.parity.probed_model import ProbedModel, read_graph
from sfpp.export.parity.reference import Reference, pytorch_side, reference_for
from sfpp.export.parity.settings import ParitySettings
from sfpp.export.pytorch_costs import parity_bytes
from sfpp.runtime.backends import Backend, BackendOptions, open_backend
from sfpp.runtime.backends.openvino import OpenVinoBackend
from sfpp.runtime.contract import ModelContract, contract_from_metadata, read_contract_file
from sfpp.runtime.resources import memory_for
from sfpp.tooling.graph import for_one_frame
from sfpp.tooling.tasks import Predictor, predictor_of

Notify = Callable[[str], object]
OpenProbes = Callable[..., ProbedModel]  # of a sequence of points, and whether to keep it open
# Every layer of a B0 is 0.9 GB at 1920x1080 and 3.5 GB at 3840x2160, in runs of at most 1 GB; beyond that one looks
# into a part only where it differs.
DETAILS_BYTES_LIMIT = 4 << 30


@dataclass(frozen=True, eq=False)
class Sides:
    """Everything that is compared.

    Attributes:
        file: the model file in the backend that was asked for.
        pytorch: the learned network in its place.
        reference: that network.
        backend: what runs the file.
        open_probes: opens the file with other points among its outputs; None where nothing can be seen of its insides.
        probed: the file with its parts' values among its outputs; None likewise.
        detailed: the same with every layer's; None where that is too much.
    """

    file: Predictor
    pytorch: Predictor
    reference: Reference
    backend: Backend
    open_probes: OpenProbes | None
    probed: ProbedModel | None
    detailed: ProbedModel | None


@contextlib.contextmanager
def opened_sides(settings: ParitySettings, notify: Notify) -> Iterator[Sides]:
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
        contract = for_one_frame(
            given or contract_from_metadata(backend.metadata, origin=model.name, instead="with --contract FILE.json")
        )
        reference = reference_for(contract, settings.weights, settings)
        for note in reference.checkpoint.notes:
            notify(f"note: {note}")
        open_probes, probed, detailed, live = None, None, None, 0
        if model.suffix == ".onnx":
            graph = read_graph(model)
            open_probes = partial(_open_probes, graph, contract, backend=settings.backend_name, options=options)
            probed, detailed = _probed(reference, open_probes)
            # Files exported by earlier versions do not say it.
            live = contract.live_bytes or live_bytes(graph, fused=isinstance(backend, OpenVinoBackend))
        values = max((each.run_bytes for each in (probed, detailed) if each is not None), default=0)
        needed_bytes = parity_bytes(reference.network, reference.recipe, contract, live=live, values=values)
        stack.enter_context(memory_for(f"comparing {model.name} with PyTorch", needed_bytes, advice=ADVICE))
        if probed is not None:
            stack.callback(probed.close)
        file = predictor_of(backend, contract)
        yield Sides(file, pytorch_side(reference), reference, backend, open_probes, probed, detailed)


def _open_probes(
    graph: onnx.ModelProto, contract: ModelContract, points: Sequence[Point], **opening: Any
) -> ProbedModel:
    """Return the graph with more outputs."""
    if contract.calibration is not None and contract.calibration.equalized:
        points = [each for each in points if survives_equalizing(each.name)]
    return ProbedModel(graph, contract, points, **opening)


def _probed(reference: Reference, open_probes: OpenProbes) -> tuple[ProbedModel, ProbedModel | None]:
    """Return the file with the parts' values among its outputs, and with the layers' if they are not too many."""
    about = reference.network, reference.recipe, reference.spec.size_hw
    # Neither is opened before it runs, so that only one of them takes memory at a time.
    detailed = open_probes(all_points(*about))
    fits = detailed.value_bytes <= DETAILS_BYTES_LIMIT
    return open_probes(coarse_points(*about), keep=True), detailed if fits else None
