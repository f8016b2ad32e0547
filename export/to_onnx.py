"""Checkpoint to ONNX file: read, trace, lower, write, check against PyTorch."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from sfpp.export.catalog import ISR_VARIANTS, isr_from_text, variant_by_name
from sfpp.export.checkpoints import Checkpoint, read_checkpoint
from sfpp.export.contracts import (
    StageTokens,
    advice_on_sizes,
    contract_for,
    default_name,
    plan_for,
    tokens_by_block,
    variant_from,
)
from sfpp.export.costs import ADVICE, activation_bytes, live_bytes, multiply_adds
from sfpp.export.demo import demo_checkpoint, demo_image, demo_pose_checkpoint
from sfpp.export.deployable import Deployable, Network
from sfpp.export.lowering.batches import FEW, with_open_batch
from sfpp.export.lowering.passes import lowered
from sfpp.export.lowering.symbolic import trace_to_onnx
from sfpp.export.models.edaformer import EdaFormer, EdaFormerConfig
from sfpp.export.models.recipe import Recipe
from sfpp.export.models.segformer import SegFormer
from sfpp.export.parity.exported import (
    LABEL_AGREEMENT,
    ParityReport,
    compare_with_pytorch,
    require_parity,
    require_tokens,
)
from sfpp.export.parity.probed_model import require_onnxruntime
from sfpp.export.pytorch_costs import check_bytes
from sfpp.export.settings import ExportSettings, Resolution
from sfpp.runtime.backends import Notify
from sfpp.runtime.contract import METADATA_KEY, InputSpec, ModelContract, SelfTest, Target
from sfpp.runtime.errors import SfppError, UsageError
from sfpp.runtime.files import check_destinations, check_utf8, made_folder, whole_file
from sfpp.runtime.images import Image, batch_from_frames, input_from_frame, takes_frames
from sfpp.runtime.model_file import load
from sfpp.runtime.pixels.pictures import read_image
from sfpp.runtime.resources import memory_for, thread_limit
from sfpp.runtime.scratch import scratch_folder
from sfpp.runtime.self_test import self_test_for, threshold_for
from sfpp.runtime.self_test_data import unpacked
from sfpp.runtime.timing import StepClock
from sfpp.tooling.graph import fixed_batch

# Mean error, in parts of the largest logit, from which on float32's own rounding moves a network's answers. Where near
# ties were met, the trained demonstration network has 2.4e-5 at most, and networks of random weights, whose labels are
# noise, 2e-5 to 2.5e-2: of their labels two sound libraries were seen to share as little as 82 %.
_UNSTABLE = 1e-4
# Which ties another library settles otherwise is chance: so many times what PyTorch settles otherwise is allowed.
_TIMES_PYTORCH = 3


@dataclass(frozen=True)
class ExportReport:
    """What an export made and how well it agrees with PyTorch.

    ``planned_tokens`` has one entry per stage; ``seconds`` is the time of each step by name; ``threshold_source`` says
    where the threshold of a network with one output was read, empty where it is the default; ``notes`` say what is odd
    about the checkpoint, and what else might suit it better.
    """

    path: Path
    contract: ModelContract
    size_bytes: int
    parity: ParityReport
    planned_tokens: tuple[StageTokens, ...]
    seconds: dict[str, float]
    threshold_source: str = ""
    notes: tuple[str, ...] = ()


def export_onnx(
    weights: str | os.PathLike[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    notify: Notify = lambda message: None,
    **options: Any,
) -> ExportReport:
    """Export a checkpoint to an ONNX file with its contract and a self-test inside, checked against PyTorch.

    Args:
        weights: a checkpoint file or a Transformers folder; None takes the demonstration model of ``task``.
        path: the file to write; None names it after model, variant and size, in the current folder.
        notify: called with what is being done.
        options: those of :class:`sfpp.export.settings.ExportSettings`, by name.

    Raises:
        UsageError: an argument that cannot be meant, or a file to write that is one of those that are read.
        MissingDependencyError: ONNX Runtime is not installed.
        CheckpointError: the weights cannot be read.
        MemoryShortageError: checking the file takes more memory than there is.
        VerificationError: the file does not agree with PyTorch, and was not kept.
    """
    settings = ExportSettings(**options)
    # By other suffixes onnx would write text or JSON, and the runtime tells a model file by its suffix.
    if path is not None and Path(path).suffix != ".onnx":
        raise UsageError(f"the file to write is {os.fspath(path)!r}, expected a name that ends in .onnx")
    _check_variant(settings.variant, settings.isr)
    require_onnxruntime()
    clock = StepClock(notify)
    with clock.step("reading the weights"):
        checkpoint = _read(weights, settings)
        chosen = variant_from(settings, checkpoint)
        contract = contract_for(checkpoint, chosen, settings)
        plan = plan_for(chosen.recipe, checkpoint.config, contract.input)
        image = read_image(settings.image if settings.image is not None else demo_image(checkpoint.task))
        frames = _example(contract.input, image)
    for note in checkpoint.preparation.notes:
        notify(f"warning: {note}")
    # The demonstration model needs no words, whatever its size.
    if weights is not None or set(checkpoint.preparation.said) - {"size"}:
        size = Resolution(contract.input.width, contract.input.height)
        notify(checkpoint.preparation.words(resize=contract.input.resize, size=size))
    destination = Path(path) if path is not None else Path(default_name(contract))
    check_destinations(
        destination, also_read=[weights, settings.variant, settings.classes, settings.keypoints, settings.image]
    )
    check_utf8(destination, reader="ONNX Runtime")
    _check_writable(destination)
    model = learned_model(checkpoint)
    with clock.step(f"tracing at {contract.input.width}x{contract.input.height}"):
        graph = graph_from_model(model, chosen.recipe, contract, frames)
        counted = fixed_batch(graph, 1) if contract.input.open_batch else graph
        contract = dataclasses.replace(
            contract,
            multiply_adds=multiply_adds(counted).total(),
            activation_bytes=activation_bytes(counted),
            live_bytes=live_bytes(counted),
        )
    needed_bytes = check_bytes(model, chosen.recipe, contract)
    # Away from the file's place until it is known to agree: of a process that is killed nothing is left there.
    with (
        memory_for(f"checking {destination.name}", needed_bytes, advice=ADVICE),
        scratch_folder() as folder,
    ):
        checked = folder / destination.name
        with whole_file(checked) as whole:
            onnx.save(with_contract(graph, contract), str(whole))
        del graph
        with clock.step("checking against PyTorch in ONNX Runtime"):
            parity = compare_with_pytorch(checked, model, chosen.recipe, contract, frames)
            require_parity(parity, destination)
            require_tokens(parity, tokens_by_block(plan))
        if takes_frames(contract.input):  # a self-test is a frame
            with clock.step("adding a self-test"):
                # Only now: what is expected of the file from here on is the answer of a file that agrees with PyTorch.
                test = stored_self_test(
                    checked,
                    contract,
                    image,
                    parity,
                    compare=lambda frames: compare_with_pytorch(checked, model, chosen.recipe, contract, frames),
                )
            contract = dataclasses.replace(contract, self_test=test)
        with clock.step("writing"), whole_file(destination) as whole:
            onnx.save(with_contract(onnx.load(str(checked)), contract), str(whole))
    written, source = destination.stat().st_size, checkpoint.threshold_source
    notes = (*checkpoint.notes, *advice_on_sizes(chosen, settings, checkpoint))
    return ExportReport(destination, contract, written, parity, plan, clock.seconds, source, notes)


def learned_model(checkpoint: Checkpoint) -> Network:
    """Return the checkpoint's network in evaluation mode, float32; PyTorch is kept to the cores that it may use."""
    if (most := thread_limit()) is not None:
        torch.set_num_threads(most)
    config = checkpoint.config
    model: Network = EdaFormer(config) if isinstance(config, EdaFormerConfig) else SegFormer(config)
    # The counters of batch norm are not part of a checkpoint's canonical state.
    model.load_state_dict(checkpoint.state, strict=False)
    return model.eval().requires_grad_(False)


def graph_from_model(model: Network, recipe: Recipe, contract: ModelContract, example: NDArray[Any]) -> onnx.ModelProto:
    """Return the graph, for the contract's target, of a learned model for an input of the example's shape and type."""
    output = contract.outputs[0]
    deployable = Deployable(
        model,
        recipe,
        spec=contract.input,
        output=output.kind,
        align_corners=output.align_corners,
        threshold=contract.threshold,
    ).eval()
    names, target = (contract.input.name, output.name), cast(Target, contract.target)

    def graph_for(frames: int) -> onnx.ModelProto:
        rows = torch.from_numpy(np.resize(example, (frames, *example.shape[1:])))
        traced = trace_to_onnx(deployable, rows, names=names, opset=contract.opset)
        return lowered(traced, target, frames=contract.input.batch)

    if not contract.input.open_batch:
        return graph_for(len(example))
    return with_open_batch(graph_for(FEW), graph_for(max(contract.input.batch, FEW + 1)))


def with_contract(graph: onnx.ModelProto, contract: ModelContract) -> onnx.ModelProto:
    """Return the graph with the contract in its metadata."""
    graph.producer_name, graph.producer_version = "sfpp", contract.sfpp_version
    onnx.helper.set_model_props(graph, {METADATA_KEY: contract.to_json()})
    return graph


def _read(weights: str | os.PathLike[str] | None, settings: ExportSettings) -> Checkpoint:
    """Read the weights, or those of the task's demonstration model, prepared as the settings say."""
    task = settings.task
    if weights is None:
        weights = demo_pose_checkpoint() if task == "pose" else demo_checkpoint()
    checkpoint = read_checkpoint(weights, weights_key=settings.weights_key, threshold=settings.threshold)
    checkpoint = checkpoint.overruled(settings, settings.res)
    if task is not None and checkpoint.task != task:
        raise UsageError(f"--task is {task}, but {checkpoint.name} was trained for {checkpoint.task}")
    return checkpoint


def _check_variant(variant: str | Path, isr: str | None) -> None:
    """Refuse a name or factors that no family knows before any weights are read."""
    if isr is not None:
        isr_from_text(isr)
    if variant not in ISR_VARIANTS:
        variant_by_name(variant)


def _check_writable(path: Path) -> None:
    """Refuse a folder that takes no files, before minutes are spent on what is to be written there.

    Raises:
        SfppError: it does not.
    """
    if path.exists() and not path.is_file():  # a pipe, which is written on where it is
        return
    try:
        folder = Path(os.path.realpath(path)).parent
        with made_folder(folder):
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SfppError(f"cannot write {path}: {error.strerror}; give another place with --path") from error


def _example(spec: InputSpec, image_bgr: NDArray[Any]) -> NDArray[Any]:
    """Return an input batch made of the image; further frames are mirrored and shifted, so that a mix-up shows."""
    # Stretched whatever the rule: in the empty border of a letterbox all tokens are equally alike, and which of them
    # are merged is then a matter of rounding.
    stretched = dataclasses.replace(spec, resize="stretch")
    if takes_frames(spec):
        first, _ = input_from_frame(image_bgr, stretched)
    else:
        first = np.concatenate(list(_planes(stretched, image_bgr)), axis=1)
    axis = -2 if spec.layout == "NHWC" else -1
    # Of NV12, U and V must stay in their places.
    mirrored, step = (first, 14) if spec.layout == "NV12" else (np.flip(first, axis), 7)
    others = [np.roll(mirrored, step * index, axis) for index in range(1, spec.batch)]
    return np.ascontiguousarray(np.concatenate([first, *others]))


def _planes(spec: InputSpec, image_bgr: Image) -> Iterator[NDArray[Any]]:
    """Yield channels, (1, 1, height, width), that differ: the image's own in turn, each time shifted further."""
    for index, (mean, std) in enumerate(zip(spec.mean, spec.std, strict=True)):
        plane = np.roll(image_bgr[..., index % 3], 11 * (index // 3), axis=1)
        yield input_from_frame(plane, dataclasses.replace(spec, channels=1, mean=(mean,), std=(std,)))[0]


def stored_self_test(
    path: Path,
    contract: ModelContract,
    image_bgr: Image,
    parity: ParityReport,
    *,
    compare: Callable[[NDArray[Any]], ParityReport],
) -> SelfTest:
    """Return the self-test of an exported file that agrees with PyTorch.

    Args:
        path: the file.
        contract: what it takes and gives.
        image_bgr: (H, W, 3) uint8, of which a small version is stored.
        parity: how the file agrees with PyTorch on this image.
        compare: compares it with PyTorch on another input, of the contract's shape and type. It is asked only if
            ``parity`` shows that rounding moves the answers: then the threshold allows for as much.
    """
    with load(path, contract=contract, backend="onnxruntime", precision="fp32", self_test=False) as model:
        test = self_test_for(model, image_bgr, threshold_for(contract))
    if not _is_unstable(parity):
        return test
    frame_bgr, _ = unpacked(test, contract)
    frames, _ = batch_from_frames([frame_bgr], contract.input)
    moved = 1 - compare(frames).label_agreement
    return dataclasses.replace(test, threshold=threshold_for(contract, 1 - _TIMES_PYTORCH * moved))


def _is_unstable(parity: ParityReport) -> bool:
    """Tell whether near ties, settled by rounding, change so much that another library may give other results."""
    if parity.pinned is None:
        return False
    moved = (parity.mean_error or 0.0) > _UNSTABLE * (parity.largest_logit or 1.0)
    return moved or parity.label_agreement < LABEL_AGREEMENT
