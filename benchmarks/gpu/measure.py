"""The process that measures: group by group, each contestant opened, compared, and then timed in turn with the others.

It may be killed at any moment, by :mod:`benchmarks.gpu.watch` or by a library: what it found is written after each
step, and started again it goes on with what is left. Its lines on stdout say what it is about to do.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.gpu.contestants import (
    Device,
    Opened,
    failures_named,
    labels_of,
    open_graph,
    open_pytorch,
    product_precision,
)
from benchmarks.gpu.graphs import Weights, checkpoint_weights
from benchmarks.gpu.matrix import PRESETS, SDPA, Graph, Group
from benchmarks.gpu.parts import GRAPHS, Parts
from benchmarks.gpu.results import GpuRow, Results, read_gpu_results
from benchmarks.speed.models import transformers_contract
from benchmarks.speed.pytorch import library_model
from benchmarks.speed.results import PYTORCH, TRANSFORMERS
from sfpp.export.catalog import matched, variant_for
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.demo import demo_frame
from sfpp.export.settings import resolution_from
from sfpp.export.to_onnx import learned_model
from sfpp.runtime import read_image
from sfpp.runtime.agreement import label_agreement
from sfpp.runtime.bench.measured_model import BenchFrame, StageTimes
from sfpp.runtime.bench.rounds import Rounds
from sfpp.runtime.bench.row import Speedup, speedup
from sfpp.runtime.contract import METADATA_KEY, ModelContract, contract_from_json
from sfpp.runtime.errors import BackendError, ModelFileError, SfppError
from sfpp.runtime.images import batch_from_frames
from sfpp.runtime.timing import summarize

TIMING = "timing"
_ORIGINAL = "original"


@dataclass(frozen=True)
class Limits:
    """When to stop: ``until`` in seconds of the system's clock, and how long a group's rounds may take."""

    until: float
    runs: int
    seconds: float

    @property
    def left_s(self) -> float:
        """Seconds until the end."""
        return self.until - time.time()


class Bench:
    """One network at a time, with its checkpoint and the answers of PyTorch in float32.

    Args:
        parts: graphs and checkpoints.
        device: where to measure.
        notify: called before each step with its name.
    """

    def __init__(self, parts: Parts, device: Device, *, notify: Callable[[str], object]) -> None:
        self._parts, self._device, self._notify = parts, device, notify
        # One at a time: B5 holds 340 MB of weights on either side.
        self._weights = functools.lru_cache(maxsize=1)(self._checked_weights)
        self._reference = functools.lru_cache(maxsize=8)(self._run_reference)

    def measure(self, group: Group, results: Results, limits: Limits, *, save: Callable[[], object]) -> None:
        """Measure what is left of a group, saving after each step."""
        opened: dict[int, Opened] = {}
        with product_precision(group.precision):
            for index, name in enumerate(group.names):
                if results.row(group, name).missing is not None:
                    continue
                if limits.left_s <= 0:
                    return
                self._notify(f"{group.title}: {name}")
                try:
                    opened[index] = self._open(group, name, results)
                except SfppError as error:
                    results.fail(group, name, str(error))
                    self._notify(f"failed: {error}")
                    save()
                    self._device.check()
                save()
            if opened:
                self._notify(f"{group.title}: {TIMING}")
                self._time(group, opened, results, limits)
                save()

    def _open(self, group: Group, name: str, results: Results) -> Opened:
        """Open a contestant and note what one run of it tells."""
        open_it, multiply_adds = self._opener(group, name)
        free_bytes = self._device.free_bytes(tidy=True)
        start = time.perf_counter()
        opened = open_it()
        open_s = time.perf_counter() - start
        opened.run()
        left_bytes = self._device.free_bytes(tidy=False)
        row = dataclasses.replace(
            results.row(group, name),
            open_s=open_s,
            fallback_nodes=opened.fallback_nodes,
            copy_nodes=opened.copy_nodes,
            multiply_adds=multiply_adds,
            peak_memory_bytes=None if free_bytes is None or left_bytes is None else free_bytes - left_bytes,
            reference=f"{SDPA} in fp32",
            **self._agreement(group, name, opened.answer()),
        )
        results.put(row)
        return opened

    def _opener(self, group: Group, name: str) -> tuple[Callable[[], Opened], int | None]:
        """Return what opens a contestant, with all that it needs at hand, and its multiply-adds if they are known."""
        if name.startswith(PYTORCH):
            self._weights(group.network)  # which makes the checkpoint
            image = input_of(transformers_contract(group.network, resolution_from(group.size)))
            checkpoint = self._checkpoint(group.network)
            return lambda: open_pytorch(name, checkpoint, image, self._device, group.precision), None
        model, contract = self._graph(Graph(group.network, group.size, name, group.precision))
        values = input_of(contract)
        return lambda: open_graph(model, values, self._device, group.precision), contract.multiply_adds

    def _agreement(self, group: Group, name: str, answer: Tensor) -> dict[str, Any]:
        """Compare an answer with PyTorch's, as far as that fits on the device itself."""
        size_hw = _size_hw(group.size)
        found: dict[str, Any] = {}
        try:
            with failures_named():
                labels = labels_of(answer, size_hw)
                reference = self._reference(group.network, group.size, None)
                found["labels_as_reference"] = _alike(labels, labels_of(reference, size_hw))
                if answer.dtype != torch.uint8:
                    found["logits_error"] = float((answer.float() - reference).norm() / reference.norm())
                graph = Graph(group.network, group.size, name, group.precision)
                if not name.startswith(PYTORCH) and graph.variant not in (TRANSFORMERS, _ORIGINAL):
                    merged = self._reference(group.network, group.size, (graph.variant, graph.matching))
                    found["labels_as_same_merging"] = _alike(labels, labels_of(merged, size_hw))
        except BackendError as error:
            self._notify(f"not all compared: {error}")
        return found

    def _time(self, group: Group, opened: dict[int, Opened], results: Results, limits: Limits) -> None:
        """Run all in turn and note what that tells."""
        for index, each in list(opened.items()):
            # Memory that was given back after the first run is fetched again here, beside all the others'.
            if (reason := _failure_of(each)) is not None:
                results.fail(group, group.names[index], reason)
                del opened[index]
        rounds = Rounds(opened, seed=0)
        rounds.run(runs=limits.runs, seconds=min(limits.seconds, max(limits.left_s, 0)), on_round=lambda *_: None)
        times = {group.names[index]: samples for index, samples in rounds.samples.items()}
        reasons = {group.names[index]: reason for index, reason in rounds.failures.items()}
        for name in times:
            results.put(_timed(results.row(group, name), times, reasons.get(name)))

    def _graph(self, graph: Graph) -> tuple[onnx.ModelProto, ModelContract]:
        """Return a graph with its weights, and its contract."""
        path = self._parts.content(GRAPHS) / graph.file_name
        if not path.is_file():
            raise ModelFileError(f"{path.name} was not prepared: run `python -m benchmarks.gpu prepare` again")
        model = onnx.load(str(path))
        self._weights(graph.network).fill(model)
        texts = {each.key: each.value for each in model.metadata_props}
        return model, contract_from_json(texts[METADATA_KEY], origin=path.name)

    def _checkpoint(self, network: str) -> Path:
        return self._parts.folder / "checkpoints" / network

    def _checked_weights(self, network: str) -> Weights:
        weights = checkpoint_weights(network, self._checkpoint(network))
        if weights.sha256 != self._parts.read_list()["weights"].get(network):
            raise ModelFileError(
                f"the weights of {network} that this machine makes are not those that its graphs were prepared with; "
                "prepare them with the same version of benchmarks/speed/models.py"
            )
        return weights

    def _run_reference(self, network: str, size: str, merging: tuple[str, Any] | None) -> Tensor:
        """Return the logits of PyTorch in float32: of Transformers' model, or of ours with a variant's merging."""
        checkpoint = self._checkpoint(network)
        image = torch.from_numpy(input_of(transformers_contract(network, resolution_from(size))))
        image = image.to(self._device.name)
        with failures_named(), torch.inference_mode(), product_precision("fp32"):
            if merging is None:
                model = library_model(checkpoint, attention="sdpa").to(self._device.name)
                logits: Tensor = model(pixel_values=image).logits
            else:
                read = read_checkpoint(checkpoint)
                variant = matched(variant_for(read.family, merging[0], None), merging[1], 1)
                logits = learned_model(read).to(self._device.name)(image, variant.recipe)
        return logits


def measure_groups(
    groups: tuple[Group, ...], bench: Bench, results: Results, limits: Limits, *, save: Callable[[], object]
) -> None:
    """Measure all that is left, until the time is over."""
    for group in groups:
        if results.pending(group) and limits.left_s > 0:
            bench.measure(group, results, limits, save=save)
            gc.collect()  # the sessions of a group hold the card's memory until they are gone


def input_of(contract: ModelContract) -> NDArray[Any]:
    """Return the shipped street scene as a model takes it."""
    frame_bgr = BenchFrame(read_image(demo_frame()), fitted=True).for_model(contract)
    return batch_from_frames([frame_bgr], contract.input)[0]


def _size_hw(size: str) -> tuple[int, int]:
    resolution = resolution_from(size)
    return resolution.height, resolution.width


def _alike(labels: Tensor, reference: Tensor) -> float:
    return label_agreement(labels.cpu().numpy(), reference.cpu().numpy())


def _failure_of(opened: Opened) -> str | None:
    """Run a contestant once; return why it fails."""
    try:
        opened.run()
    except SfppError as error:
        return str(error)
    return None


def _timed(row: GpuRow, times: Mapping[str, Sequence[StageTimes]], reason: str | None) -> GpuRow:
    """Return a contestant's row with what its rounds tell beside those of the others, by name."""
    own = times[row.name]
    if not own:
        return dataclasses.replace(row, missing=reason)

    def compared(other: str) -> Speedup | None:
        if other == row.name or not times.get(other):
            return None
        return speedup([each.infer_ms for each in times[other]], [each.infer_ms for each in own])

    return dataclasses.replace(
        row,
        missing=reason,
        time=summarize([each.infer_ms for each in own]),
        whole_ms=statistics.median(each.whole_ms for each in own),
        to_pytorch=compared(PYTORCH),
        to_sdpa=compared(SDPA),
        to_transformers=compared(TRANSFORMERS),
        to_original=compared(_ORIGINAL),
        samples_ms=tuple(each.infer_ms for each in own),
    )


def main(text: str) -> None:
    """Be that process; the argument is JSON from :mod:`benchmarks.gpu.watch`."""
    import transformers  # what is missing should be said before it becomes every contestant's failure

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    given = json.loads(text)
    results = read_gpu_results(Path(given["results"]))
    device = Device(given["device"])
    if device.name == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no card on this machine; --device cpu tries the benchmark out")
    results.facts["device"] = device.facts()
    bench = Bench(Parts(Path(given["folder"])), device, notify=lambda line: print(line, flush=True))
    limits = Limits(**given["limits"])
    measure_groups(PRESETS[given["preset"]], bench, results, limits, save=lambda: results.write(Path(given["results"])))


if __name__ == "__main__":
    main(*sys.argv[1:])
