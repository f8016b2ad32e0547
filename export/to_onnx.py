"""Checkpoint to ONNX file: read, trace, lower, write, check against PyTorch."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from sfpp.export.catalog import StageTokens, Variant, plan_tokens, variant_by_name, words_from_recipe
from sfpp.export.checkpoints import Checkpoint, read_checkpoint
from sfpp.export.classes import class_set
from sfpp.export.demo import demo_checkpoint, demo_frame
from sfpp.export.deployable import DeployableSegFormer
from sfpp.export.lowering.passes import lowered
from sfpp.export.lowering.symbolic import trace_to_onnx
from sfpp.export.models.recipe import MergingRecipe
from sfpp.export.models.segformer import EncoderConfig, SegFormer, reduced_grid
from sfpp.export.parity import ParityReport, compare_with_pytorch, require_parity, require_tokens
from sfpp.export.probes import require_onnxruntime
from sfpp.export.resolution import Resolution, resolution_from
from sfpp.runtime.contract import METADATA_KEY, InputDtype, InputSpec, ModelContract, OutputKind, OutputSpec, ResizeRule
from sfpp.runtime.errors import UsageError
from sfpp.runtime.files import whole_file
from sfpp.runtime.images import input_from_frame, read_image

OPSETS = (17, 18, 19, 20)  # below 17 layer normalization is not one node; above 20 the tracing exporter does not write
Notify = Callable[[str], None]


@dataclass(frozen=True)
class ExportReport:
    """What an export made and how well it agrees with PyTorch.

    ``planned_tokens`` has one entry a stage; ``seconds`` is the time of each step by name.
    """

    path: Path
    contract: ModelContract
    size_bytes: int
    parity: ParityReport
    planned_tokens: tuple[StageTokens, ...]
    seconds: dict[str, float]


def export_onnx(
    weights: str | os.PathLike[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    variant: str | Path = "original",
    res: str | tuple[int, int] = "1920x1080",
    output: OutputKind = "logits",
    input: InputDtype = "uint8",
    batch: int = 1,
    opset: int = 17,
    resize: ResizeRule = "letterbox",
    classes: str | Path | None = None,
    image: str | os.PathLike[str] | None = None,
    notify: Notify = lambda message: None,
) -> ExportReport:
    """Export a checkpoint to an ONNX file with its contract inside, checked against PyTorch.

    Args:
        weights: a checkpoint file or a Transformers folder; None takes the demonstration model.
        path: the file to write; None names it after model, variant and size, in the current folder.
        variant: ``original``, ``hq``, ``fast``, ``2x2``, ``downsample``, or a recipe file (JSON).
        res: width x height of the model's input, as text or as (width, height).
        output: ``logits`` (batch, classes, h, w) float32 at the model's stride, or ``labels`` (batch, height, width)
            uint8.
        input: ``uint8`` for ``frame`` (batch, height, width, 3) RGB with normalization in the graph, or ``float32``
            for ``image`` (batch, 3, height, width), already normalized.
        batch: frames in one run, fixed.
        opset: version of the ONNX operators, 17 to 20.
        resize: how the runtime fits frames of another shape: ``letterbox`` keeps the aspect ratio, ``stretch`` does
            not.
        classes: a data set's name or a file, for class names and colors; None takes what the checkpoint says.
        image: a picture for the check; None takes the demonstration frame.
        notify: is told what is being done.

    Raises:
        UsageError: an argument that cannot be meant.
        MissingDependencyError: ONNX Runtime is not installed.
        CheckpointError: the weights cannot be read.
        VerificationError: the written file does not agree with PyTorch; it was removed.
    """
    size = resolution_from(res)
    _check_options(path=path, output=output, input=input, batch=batch, opset=opset, resize=resize)
    chosen = variant_by_name(variant)
    require_onnxruntime()
    clock = _Clock(notify)
    with clock.step("reading the weights"):
        checkpoint = read_checkpoint(weights if weights is not None else demo_checkpoint())
        spec = input_spec(size, input=input, batch=batch, resize=resize)
        plan = plan_for(chosen.recipe, checkpoint.config.encoder, spec)
        contract = _contract(checkpoint, chosen, spec, output=output, opset=opset, classes=classes)
        frames = _example(spec, read_image(image if image is not None else demo_frame()))
    target = Path(path) if path is not None else Path(default_name(contract))
    model = learned_model(checkpoint)
    with whole_file(target) as temporary:
        with clock.step(f"tracing at {size}"):
            graph = graph_from_model(model, chosen.recipe, contract, frames)
        with clock.step("writing"):
            onnx.save(with_contract(graph, contract), str(temporary))
            del graph
        with clock.step("checking against PyTorch in ONNX Runtime"):
            parity = compare_with_pytorch(temporary, model, chosen.recipe, contract, frames)
            require_parity(parity, target)
            require_tokens(parity, _tokens_by_block(plan, checkpoint.config.encoder))
    return ExportReport(target, contract, target.stat().st_size, parity, plan, clock.seconds)


def learned_model(checkpoint: Checkpoint) -> SegFormer:
    """Return the checkpoint's network in evaluation mode, float32."""
    model = SegFormer(checkpoint.config)
    # The counters of batch norm are not part of a checkpoint's canonical state.
    model.load_state_dict(checkpoint.state, strict=False)
    return model.eval().requires_grad_(False)


def graph_from_model(
    model: SegFormer, recipe: MergingRecipe, contract: ModelContract, example: NDArray[Any]
) -> onnx.ModelProto:
    """Return the portable graph of a learned model for an input of the example's shape and type."""
    output = contract.outputs[0]
    deployable = DeployableSegFormer(model, recipe, spec=contract.input, output=output.kind).eval()
    names = (contract.input.name, output.name)
    traced = trace_to_onnx(deployable, torch.from_numpy(example), names=names, opset=contract.opset)
    return lowered(traced, contract.target)


def with_contract(graph: onnx.ModelProto, contract: ModelContract) -> onnx.ModelProto:
    """Return the graph with the contract in its metadata."""
    graph.producer_name, graph.producer_version = "sfpp", contract.sfpp_version
    onnx.helper.set_model_props(graph, {METADATA_KEY: contract.to_json()})
    return graph


def plan_for(recipe: MergingRecipe, encoder: EncoderConfig, spec: InputSpec) -> tuple[StageTokens, ...]:
    """Return the tokens of every stage for an input of the spec's size.

    Raises:
        UsageError: the input is too small for the network.
        RecipeError: a stage's cell or window is larger than its grid.
    """
    height, width = (size // recipe.input_step for size in spec.size_hw)
    grids = encoder.stage_grids((height, width))
    pairs = [(grid, reduced_grid(grid, ratio)) for grid, ratio in zip(grids, encoder.reductions, strict=True)]
    for number, (grid, reduced) in enumerate(pairs, 1):
        if min(*grid, *reduced) < 1:
            raise UsageError(
                f"--res {spec.width}x{spec.height} (width x height) is too small: stage {number} has no key/value "
                f"tokens left after its spatial reduction; use at least {32 * recipe.input_step} pixels on each side"
            )
    return plan_tokens(recipe, pairs)


def input_spec(size: Resolution, *, input: InputDtype, batch: int, resize: ResizeRule) -> InputSpec:
    """Return the input's contract: raw uint8 RGB frames, or normalized float32 images."""
    spec = InputSpec(name="frame", height=size.height, width=size.width, batch=batch, resize=resize)
    if input == "uint8":
        return spec
    return dataclasses.replace(spec, name="image", layout="NCHW", dtype="float32", normalized_in_graph=False)


def default_name(contract: ModelContract) -> str:
    """Return the file name that says what is in the file."""
    spec = contract.input
    parts = [contract.family, contract.size, contract.variant, f"{spec.width}x{spec.height}"]
    if contract.outputs[0].kind == "labels":
        parts.append("labels")
    if spec.batch > 1:
        parts.append(f"batch{spec.batch}")
    return "-".join(parts) + ".onnx"


def _check_options(
    *, path: str | os.PathLike[str] | None, output: str, input: str, batch: int, opset: int, resize: str
) -> None:
    # By other suffixes onnx would write text or JSON, and the runtime tells a model file by its suffix.
    if path is not None and Path(path).suffix != ".onnx":
        raise UsageError(f"the file to write is {os.fspath(path)!r}, expected a name that ends in .onnx")
    choices = (("output", output, OutputKind), ("input", input, InputDtype), ("resize", resize, ResizeRule))
    for name, value, literal in choices:
        if value not in get_args(literal):
            raise UsageError(f"{name} is {value!r}, expected one of {', '.join(get_args(literal))}")
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= 64:
        raise UsageError(f"batch is {batch!r}, expected a whole number from 1 to 64")
    if opset not in OPSETS:
        raise UsageError(
            f"opset is {opset!r}, expected {OPSETS[0]} to {OPSETS[-1]}; 17 suits every TensorRT from 8.6 on"
        )


def _contract(
    checkpoint: Checkpoint,
    variant: Variant,
    spec: InputSpec,
    *,
    output: OutputKind,
    opset: int,
    classes: str | Path | None,
) -> ModelContract:
    names = checkpoint.class_set() if classes is None else class_set(classes, checkpoint.config.head.classes)
    stride = 1 if output == "labels" else checkpoint.config.encoder.patch_strides[0] * variant.recipe.input_step
    return ModelContract(
        task="segmentation",
        family="segformer",
        size=checkpoint.size,
        variant=variant.name,
        recipe=words_from_recipe(variant.recipe),
        input=spec,
        outputs=(OutputSpec(output, output, stride),),
        classes=names.names,
        palette=names.palette,
        opset=opset,
        checkpoint_sha256=checkpoint.sha256,
        licence=checkpoint.licence,
        sfpp_version=metadata.version("sfpp"),
    )


def _example(spec: InputSpec, image_bgr: NDArray[Any]) -> NDArray[Any]:
    """Return an input batch made of the picture; further frames are mirrored and shifted, so that a mix-up shows."""
    # Stretched whatever the rule: in the empty border of a letterbox all tokens are equally alike, and which of them
    # are merged is then a matter of rounding.
    first, _ = input_from_frame(image_bgr, dataclasses.replace(spec, resize="stretch"))
    axis = 2 if spec.layout == "NHWC" else 3
    others = [np.roll(np.flip(first, axis), 7 * index, axis) for index in range(1, spec.batch)]
    return np.ascontiguousarray(np.concatenate([first, *others]))


def _tokens_by_block(plan: tuple[StageTokens, ...], encoder: EncoderConfig) -> list[tuple[int, int]]:
    return [
        (stage.query, stage.key_value) for stage, depth in zip(plan, encoder.depths, strict=True) for _ in range(depth)
    ]


class _Clock:
    """Says which step begins, and keeps how long each took."""

    def __init__(self, notify: Notify) -> None:
        self.seconds: dict[str, float] = {}
        self._notify = notify

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._notify(f"{name} ...")
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
