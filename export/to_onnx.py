"""Checkpoint to ONNX file: read, trace, lower, write, check against PyTorch."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from sfpp.export.arithmetic import activation_bytes, live_bytes, multiply_adds
from sfpp.export.catalog import ISR_VARIANTS, isr_from_text, matched, variant_by_name, variant_for
from sfpp.export.checkpoints import Checkpoint, read_checkpoint
from sfpp.export.contracts import contract_for, default_name, input_spec
from sfpp.export.demo import demo_checkpoint, demo_frame, demo_person, demo_pose_checkpoint
from sfpp.export.deployable import Deployable, Network
from sfpp.export.lowering.passes import lowered
from sfpp.export.lowering.symbolic import trace_to_onnx
from sfpp.export.memory import ADVICE, check_bytes
from sfpp.export.models.edaformer import EdaFormer, EdaFormerConfig
from sfpp.export.models.recipe import Recipe
from sfpp.export.models.segformer import SegFormer
from sfpp.export.parity.exported import ParityReport, compare_with_pytorch, require_parity, require_tokens
from sfpp.export.parity.probed_model import require_onnxruntime
from sfpp.export.planning import StageTokens, plan_for, tokens_by_block
from sfpp.export.resolution import Resolution, resolution_from
from sfpp.export.self_test import stored_self_test
from sfpp.runtime.contract import (
    METADATA_KEY,
    InputDtype,
    InputSpec,
    MatchingRule,
    ModelContract,
    OutputKind,
    ResizeRule,
    Target,
    Task,
)
from sfpp.runtime.errors import SfppError, UsageError
from sfpp.runtime.files import check_destinations, whole_file
from sfpp.runtime.images import input_from_frame, read_image
from sfpp.runtime.resources import memory_for, thread_limit
from sfpp.runtime.timing import StepClock

OPSETS = (17, 18, 19, 20)  # below 17 layer normalization is not one node; above 20 the tracing exporter does not write
DEFAULT_SIZES: dict[Task, Resolution] = {"segmentation": Resolution(1920, 1080), "pose": Resolution(192, 256)}
Notify = Callable[[str], None]


@dataclass(frozen=True)
class ExportReport:
    """What an export made and how well it agrees with PyTorch.

    ``planned_tokens`` has one entry a stage; ``multiply_adds`` are those of one run; ``seconds`` is the time of each
    step by name.
    """

    path: Path
    contract: ModelContract
    size_bytes: int
    parity: ParityReport
    planned_tokens: tuple[StageTokens, ...]
    multiply_adds: int
    seconds: dict[str, float]


def export_onnx(
    weights: str | os.PathLike[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    variant: str | Path = "original",
    isr: str | None = None,
    matching: MatchingRule = "exact",
    share_matching: int = 1,
    target: Target = "portable",
    res: str | tuple[int, int] | None = None,
    task: Task | None = None,
    output: OutputKind | None = None,
    input: InputDtype = "uint8",
    batch: int = 1,
    opset: int = 17,
    resize: ResizeRule = "letterbox",
    classes: str | Path | None = None,
    keypoints: str | Path | None = None,
    image: str | os.PathLike[str] | None = None,
    notify: Notify = lambda message: None,
) -> ExportReport:
    """Export a checkpoint to an ONNX file with its contract and a self-test inside, checked against PyTorch.

    Args:
        weights: a checkpoint file or a Transformers folder; None takes the demonstration model of ``task``.
        path: the file to write; None names it after model, variant and size, in the current folder.
        variant: ``original``, ``hq``, ``fast``, ``2x2``, ``downsample``, ``kv2x2``, or a recipe file (JSON); for an
            EDAFormer ``original`` or ``isr``.
        isr: an EDAFormer's own reduction factors, such as ``2211-222``.
        matching: ``exact`` looks for a token's most similar partner everywhere, as published; ``local`` in its own cell
            and the eight around it, at linear cost.
        share_matching: the blocks of a stage reuse the matching of the first of every so many blocks; 1 matches in each
            block, as published, 0 once a stage.
        target: what the graph is written for: ``portable`` runs everywhere, ``onnxruntime``, ``openvino`` and
            ``tensorrt`` are the same function in the operators that are fastest there.
        res: width x height of the model's input, as text or as (width, height); None is 1920x1080, or 192x256 for pose.
        task: ``segmentation`` or ``pose``: which demonstration model is meant; weights tell theirs by themselves.
        output: ``logits`` (batch, classes, h, w) float32 at the model's stride, ``labels`` (batch, height, width)
            uint8, or for pose ``heatmaps`` (batch, keypoints, h, w) float32; None is ``logits`` or ``heatmaps``.
        input: ``uint8`` for ``frame`` (batch, height, width, 3) RGB with normalization in the graph, or ``float32``
            for ``image`` (batch, 3, height, width), already normalized.
        batch: frames in one run, fixed.
        opset: version of the ONNX operators, 17 to 20.
        resize: how the runtime fits frames of another shape: ``letterbox`` keeps the aspect ratio, ``stretch`` does
            not.
        classes: a data set's name or a file, for class names and colors; None takes what the checkpoint says.
        keypoints: ``coco17``, ``lsp14``, ``jump20`` or a file; None takes what the checkpoint says, or the set that has
            as many keypoints.
        image: a picture for the check and the self-test; None takes a shipped one.
        notify: is told what is being done.

    Raises:
        UsageError: an argument that cannot be meant, or a file to write that is one of those that are read.
        MissingDependencyError: ONNX Runtime is not installed.
        CheckpointError: the weights cannot be read.
        MemoryShortageError: checking the file takes more memory than there is.
        VerificationError: the file does not agree with PyTorch, and was not kept.
    """
    size = None if res is None else resolution_from(res)
    _check_options(
        path=path,
        batch=batch,
        opset=opset,
        share_matching=share_matching,
        choices={
            "output": (output, OutputKind),
            "input": (input, InputDtype),
            "resize": (resize, ResizeRule),
            "task": (task, Task),
            "matching": (matching, MatchingRule),
            "target": (target, Target),
        },
    )
    _check_variant(variant, isr)
    require_onnxruntime()
    clock = StepClock(notify)
    with clock.step("reading the weights"):
        checkpoint = _read(weights, task)
        chosen = matched(variant_for(checkpoint.family, variant, isr), matching, share_matching)
        size = size or DEFAULT_SIZES[checkpoint.task]
        spec = input_spec(size, input=input, batch=batch, resize=resize)
        spec = dataclasses.replace(spec, mean=checkpoint.mean, std=checkpoint.std)
        plan = plan_for(chosen.recipe, checkpoint.config, spec)
        kind = _output_kind(checkpoint, output)
        contract = contract_for(
            checkpoint, chosen, spec, output=kind, opset=opset, target=target, classes=classes, keypoints=keypoints
        )
        picture = read_image(image if image is not None else _demo_picture(checkpoint.task))
        frames = _example(spec, picture)
    destination = Path(path) if path is not None else Path(default_name(contract))
    check_destinations(destination, also_read=[weights, variant, classes, keypoints, image])
    _check_writable(destination)
    model = learned_model(checkpoint)
    with clock.step(f"tracing at {size}"):
        graph = graph_from_model(model, chosen.recipe, contract, frames)
        arithmetic = multiply_adds(graph).total()
        contract = dataclasses.replace(
            contract,
            multiply_adds=arithmetic,
            activation_bytes=activation_bytes(graph),
            live_bytes=live_bytes(graph),
        )
    needed_bytes = check_bytes(model, chosen.recipe, contract)
    # Away from the file's place until it is known to agree: of a process that is killed nothing is left there.
    with (
        memory_for(f"checking {destination.name}", needed_bytes, advice=ADVICE),
        tempfile.TemporaryDirectory(prefix="sfpp-export-") as folder,
    ):
        checked = Path(folder) / destination.name
        with whole_file(checked) as whole:
            onnx.save(with_contract(graph, contract), str(whole))
        del graph
        with clock.step("checking against PyTorch in ONNX Runtime"):
            parity = compare_with_pytorch(checked, model, chosen.recipe, contract, frames)
            require_parity(parity, destination)
            require_tokens(parity, tokens_by_block(plan))
        with clock.step("adding a self-test"):
            # Only now: what is expected of the file from here on is the answer of a file that agrees with PyTorch.
            test = stored_self_test(
                checked,
                contract,
                picture,
                parity,
                compare=lambda frames: compare_with_pytorch(checked, model, chosen.recipe, contract, frames),
            )
        contract = dataclasses.replace(contract, self_test=test)
        with clock.step("writing"), whole_file(destination) as whole:
            onnx.save(with_contract(onnx.load(str(checked)), contract), str(whole))
    return ExportReport(destination, contract, destination.stat().st_size, parity, plan, arithmetic, clock.seconds)


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
    deployable = Deployable(model, recipe, spec=contract.input, output=output.kind).eval()
    names = (contract.input.name, output.name)
    traced = trace_to_onnx(deployable, torch.from_numpy(example), names=names, opset=contract.opset)
    return lowered(traced, cast(Target, contract.target))


def with_contract(graph: onnx.ModelProto, contract: ModelContract) -> onnx.ModelProto:
    """Return the graph with the contract in its metadata."""
    graph.producer_name, graph.producer_version = "sfpp", contract.sfpp_version
    onnx.helper.set_model_props(graph, {METADATA_KEY: contract.to_json()})
    return graph


def _read(weights: str | os.PathLike[str] | None, task: Task | None) -> Checkpoint:
    """Read the weights, or those of the task's demonstration model."""
    if weights is None:
        return read_checkpoint(demo_pose_checkpoint() if task == "pose" else demo_checkpoint())
    checkpoint = read_checkpoint(weights)
    if task is not None and checkpoint.task != task:
        raise UsageError(f"--task is {task}, but {checkpoint.name} was trained for {checkpoint.task}")
    return checkpoint


def _demo_picture(task: Task) -> Path:
    """Return a picture that gives the task something to answer."""
    return demo_person() if task == "pose" else demo_frame()


def _output_kind(checkpoint: Checkpoint, output: OutputKind | None) -> OutputKind:
    kinds: dict[Task, tuple[OutputKind, ...]] = {"segmentation": ("logits", "labels"), "pose": ("heatmaps",)}
    allowed = kinds[checkpoint.task]
    if output is not None and output not in allowed:
        raise UsageError(f"--output is {output}, but a {checkpoint.task} network gives {' or '.join(allowed)}")
    return output or allowed[0]


def _check_variant(variant: str | Path, isr: str | None) -> None:
    """Refuse a name or factors that no family knows before any weights are read."""
    if isr is not None:
        isr_from_text(isr)
    if variant not in ISR_VARIANTS:
        variant_by_name(variant)


def _check_options(
    *,
    path: str | os.PathLike[str] | None,
    batch: int,
    opset: int,
    share_matching: int,
    choices: Mapping[str, tuple[str | None, Any]],
) -> None:
    # By other suffixes onnx would write text or JSON, and the runtime tells a model file by its suffix.
    if path is not None and Path(path).suffix != ".onnx":
        raise UsageError(f"the file to write is {os.fspath(path)!r}, expected a name that ends in .onnx")
    for name, (value, literal) in choices.items():
        # None leaves the choice to the weights, where there is one.
        if (value is not None or name not in ("output", "task")) and value not in get_args(literal):
            raise UsageError(f"{name} is {value!r}, expected one of {', '.join(get_args(literal))}")
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= 64:
        raise UsageError(f"batch is {batch!r}, expected a whole number from 1 to 64")
    if isinstance(share_matching, bool) or not isinstance(share_matching, int) or share_matching < 0:
        raise UsageError(f"share_matching is {share_matching!r}, expected a number of blocks, or 0 for all of a stage")
    if not isinstance(opset, int) or opset not in OPSETS:
        raise UsageError(
            f"opset is {opset!r}, expected {OPSETS[0]} to {OPSETS[-1]}; 17 suits every TensorRT from 8.6 on"
        )


def _check_writable(path: Path) -> None:
    """Refuse a folder that takes no files, before minutes are spent on what is to be written there.

    Raises:
        SfppError: it does not.
    """
    if path.exists() and not path.is_file():  # a pipe, which is written on where it is
        return
    try:
        tempfile.TemporaryFile(dir=Path(os.path.realpath(path)).parent).close()
    except OSError as error:
        raise SfppError(f"cannot write {path}: {error.strerror}; give another place with --path") from error


def _example(spec: InputSpec, image_bgr: NDArray[Any]) -> NDArray[Any]:
    """Return an input batch made of the picture; further frames are mirrored and shifted, so that a mix-up shows."""
    # Stretched whatever the rule: in the empty border of a letterbox all tokens are equally alike, and which of them
    # are merged is then a matter of rounding.
    first, _ = input_from_frame(image_bgr, dataclasses.replace(spec, resize="stretch"))
    axis = 2 if spec.layout == "NHWC" else 3
    others = [np.roll(np.flip(first, axis), 7 * index, axis) for index in range(1, spec.batch)]
    return np.ascontiguousarray(np.concatenate([first, *others]))
