"""The contract of a model that is about to be exported, the file's name, and how many tokens attention will work on.

All of it is known before anything is traced: what does not fit is refused here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sfpp.export.catalog import (
    VARIANTS,
    Variant,
    is_size_weighted,
    matched,
    size_weighted,
    usual_matching,
    variant_for,
    words_from_recipe,
)
from sfpp.export.checkpoints import Checkpoint
from sfpp.export.checkpoints.preparation import SAYS_NOTHING, Preparation
from sfpp.export.checkpoints.sigmoid import DEFAULT_THRESHOLD, two_classes
from sfpp.export.classes import class_set
from sfpp.export.models.edaformer import EdaFormerConfig
from sfpp.export.models.recipe import GridHw, IsrRecipe, MergingRecipe, Recipe, matches_locally, tokens_after
from sfpp.export.models.segformer import SegFormerConfig, reduced_grid
from sfpp.export.settings import ExportSettings, OutputChoice, Resolution, batch_from, input_choice, resolution_from
from sfpp.runtime.contract import (
    MOST_CLASSES,
    InputSpec,
    KeypointSpec,
    ModelContract,
    OutputKind,
    OutputSpec,
    Task,
)
from sfpp.runtime.errors import CheckpointError, RecipeError, UsageError
from sfpp.runtime.keypoints import KEYPOINT_SETS, keypoint_set

DEFAULT_SIZES: dict[Task, Resolution] = {"segmentation": Resolution(1920, 1080), "pose": Resolution(192, 256)}
Config = SegFormerConfig | EdaFormerConfig


def variant_from(settings: ExportSettings, checkpoint: Checkpoint) -> Variant:
    """Return the variant that the settings mean for a checkpoint.

    Raises:
        UsageError: unknown, meant for the other family, matching or sizes asked of a variant that has none, or sizes of
            a network that has learnt to do without.
    """
    variant = variant_for(checkpoint.family, settings.variant, settings.isr)
    variant = matched(variant, settings.matching, settings.share_matching)
    if settings.size_weighted:
        variant = size_weighted(variant)
    _check_sizes(variant, settings, checkpoint)
    return variant


def _check_sizes(variant: Variant, settings: ExportSettings, checkpoint: Checkpoint) -> None:
    """Refuse merged keys that weigh by their sizes in a network that has learnt to do without."""
    said = settings.trained_with_merging
    sized = isinstance(variant.recipe, MergingRecipe) and any(stage.sized for stage in variant.recipe.stages)
    if not sized or not (checkpoint.merging if said is None else said):
        return
    source = "--trained-with-merging" if said else checkpoint.merging
    instead = f"take --variant {variant.name.removesuffix('+')}" if variant.name in VARIANTS else "leave out kv_size"
    raise UsageError(
        f"{checkpoint.name} was trained with tokens merged ({source}), where each merged key weighs as one token, and "
        f"sizes would change what it has learnt: {'leave out --size-weighted' if settings.size_weighted else instead}"
        f"{'' if said else ', or give --no-trained-with-merging if it was trained without'}"
    )


def advice_on_sizes(variant: Variant, settings: ExportSettings, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return a line on the variant's counterpart with sizes; none where there is none, or where it would not do."""
    counterpart = f"{variant.name}+"
    learnt = settings.trained_with_merging or checkpoint.merging
    if counterpart not in VARIANTS or settings.size_weighted or learnt:
        return ()
    return (
        "each merged key weighs as one token, as published; unless the network was trained so, "
        f"--variant {counterpart} is nearer to original at the same cost",
    )


def input_spec(
    settings: ExportSettings, task: Task = "segmentation", preparation: Preparation = SAYS_NOTHING
) -> InputSpec:
    """Return the input's contract: raw uint8 frames, or normalized float32 images.

    Raises:
        UsageError: the size is no multiple of what the network was trained with, or frames are none of its input.
    """
    width, height = _input_size(settings, task, preparation)
    batch, open_batch = batch_from(settings.batch)
    usual = InputSpec(name="frame", height=height, width=width, batch=batch, open_batch=open_batch)
    spec = dataclasses.replace(
        usual,
        channels=len(preparation.mean),
        mean=preparation.mean,
        std=preparation.std,
        color_order=preparation.color_order,
        resize=settings.resize or preparation.resize or usual.resize,
        interpolation=preparation.interpolation or usual.interpolation,
    )
    if settings.input != "float32" and spec.channels != 3:
        fed = "the grey of frames by sfpp-run" if spec.channels == 1 else "by your own program (docs/model-file.md)"
        raise UsageError(
            f"the network takes {spec.channels} channels, and {settings.input} frames have three: give "
            f"--input float32, for an input of {spec.channels}x{height}x{width} that is fed {fed}"
        )
    if settings.input == "uint8":
        return spec
    if settings.input != "float32":
        _check_even(spec, settings.input)
        return dataclasses.replace(spec, layout="NV12", matrix="bt709" if settings.input == "nv12-bt709" else "bt601")
    return dataclasses.replace(spec, name="image", layout="NCHW", dtype="float32", normalized_in_graph=False)


def _check_even(spec: InputSpec, given: str) -> None:
    if spec.height % 2 or spec.width % 2:
        raise UsageError(
            f"--input is {given}, where two by two pixels share a color, and the size is {spec.width}x{spec.height} "
            "(width x height): give --res with even numbers"
        )


def _input_size(settings: ExportSettings, task: Task, preparation: Preparation) -> Resolution:
    divisor = preparation.size_divisor
    if settings.res is None:
        return _rounded(preparation.usual_size(DEFAULT_SIZES[task]), divisor, up=True)
    size = resolution_from(settings.res)
    if _rounded(size, divisor, up=True) == size:
        return size
    below, above = (_rounded(size, divisor, up=up) for up in (False, True))
    near = " or ".join(str(each) for each in dict.fromkeys((below, above)))
    raise UsageError(
        f"--res is {size} (width x height), but the network takes multiples of {divisor} "
        f"({preparation.said.get('size_divisor', 'its preparation')}); the nearest sizes are {near}"
    )


def _rounded(size: Resolution, divisor: int, *, up: bool) -> Resolution:
    """Return the next size of which both sides are multiples of the divisor, at least once it."""
    width, height = (max(1, (side + (divisor - 1) * up) // divisor) * divisor for side in size)
    return Resolution(width, height)


def contract_for(checkpoint: Checkpoint, variant: Variant, settings: ExportSettings) -> ModelContract:
    """Return the contract of a checkpoint's export, whose preparation is what the settings made of it.

    Raises:
        UsageError: an output that the network does not have, class names for a pose network or the reverse, or another
            number of names than outputs, or a size that the network does not take.
        CheckpointError: more classes than labels can tell.
    """
    spec = input_spec(settings, checkpoint.task, checkpoint.preparation)
    output = _output_kind(checkpoint, settings)
    return ModelContract(
        task=checkpoint.task,
        family=checkpoint.family,
        size=checkpoint.size,
        variant=variant.name,
        recipe=words_from_recipe(variant.recipe),
        matching="local" if matches_locally(variant.recipe) else "exact",
        share_matching=variant.recipe.share_matching if isinstance(variant.recipe, MergingRecipe) else 1,
        target=settings.target,
        input=spec,
        outputs=(_output_spec(checkpoint, variant, output),),
        opset=settings.opset,
        checkpoint_sha256=checkpoint.sha256,
        weights_key=checkpoint.weights_key,
        licence=checkpoint.licence,
        sfpp_version=metadata.version("sfpp"),
        **_names(checkpoint, settings),
        **_thresholds(checkpoint, settings),
    )


def default_name(contract: ModelContract) -> str:
    """Return the file name that says what is in the file."""
    spec = contract.input
    parts = [contract.family, contract.size, contract.variant]
    if contract.matching != usual_matching(contract.variant):
        parts.append(contract.matching)
    if contract.share_matching != 1:
        parts.append(f"share{contract.share_matching or 'all'}")
    if is_size_weighted(contract):
        parts.append("sized")
    parts.append(f"{spec.width}x{spec.height}")
    if contract.task == "pose":
        parts.insert(2, "pose")
    if contract.outputs[0].kind in ("labels", "masks"):
        parts.append(contract.outputs[0].kind)
    if contract.target != "portable":
        parts.append(contract.target)
    if (given := input_choice(spec)) != "uint8":
        parts.append(given)
    if spec.batch > 1:
        parts.append(f"batch{'1to' * spec.open_batch}{spec.batch}")
    return "-".join(parts) + ".onnx"


def _output_spec(checkpoint: Checkpoint, variant: Variant, output: OutputKind) -> OutputSpec:
    aligned = checkpoint.preparation.align_corners and checkpoint.task == "segmentation"
    twice = checkpoint.preparation.through_input and output == "logits"
    return OutputSpec(output, output, _stride(checkpoint, variant, output), align_corners=aligned, through_input=twice)


def _stride(checkpoint: Checkpoint, variant: Variant, output: OutputKind) -> int:
    """Return how many pixels lie between two outputs: SegFormer answers on stage 1's grid, EDAFormer on stage 2's."""
    if output in ("labels", "masks"):
        return 1
    strides = checkpoint.config.encoder.patch_strides
    if isinstance(checkpoint.config, SegFormerConfig):
        assert isinstance(variant.recipe, MergingRecipe)
        return strides[0] * variant.recipe.input_step
    return strides[0] * strides[1]


def _output_kind(checkpoint: Checkpoint, settings: ExportSettings) -> OutputKind:
    kinds: dict[Task, tuple[OutputChoice, ...]] = {"segmentation": ("logits", "labels"), "pose": ("heatmaps",)}
    allowed, output = kinds[checkpoint.task], settings.output
    if output is not None and output not in allowed:
        raise UsageError(f"--output is {output}, but a {checkpoint.task} network gives {' or '.join(allowed)}")
    return "masks" if output == "labels" and settings.multi_label else output or allowed[0]


def _thresholds(checkpoint: Checkpoint, settings: ExportSettings) -> dict[str, Any]:
    """Return what the contract says of a sigmoid: nothing of a network whose largest logit wins."""
    if checkpoint.threshold is not None:
        if settings.multi_label:
            raise UsageError(
                f"--multi-label is for networks with several outputs, and {checkpoint.name} has one, which already "
                "tells its class from the background: leave it out"
            )
        return {"threshold": checkpoint.threshold}
    asked = "--multi-label" if settings.multi_label else "--threshold"
    if checkpoint.task == "pose" and (settings.multi_label or settings.threshold is not None):
        raise UsageError(f"{asked} is for segmentation networks, and {checkpoint.name} is a pose network: leave it out")
    if settings.multi_label:
        return {"threshold": settings.threshold or DEFAULT_THRESHOLD, "multi_label": True}
    if settings.threshold is not None:
        raise UsageError(
            f"--threshold is for networks with a sigmoid, and {checkpoint.name} has {checkpoint.outputs} outputs, of "
            "which the largest wins: leave it out, or give --multi-label too if each output has a sigmoid of its own"
        )
    return {}


def _names(checkpoint: Checkpoint, settings: ExportSettings) -> dict[str, Any]:
    classes, keypoints = settings.classes, settings.keypoints
    if checkpoint.task == "pose":
        if classes is not None:
            raise UsageError(f"--classes names classes, but {checkpoint.name} is a pose network: use --keypoints")
        return {"keypoints": _keypoint_spec(checkpoint, keypoints)}
    if keypoints is not None:
        raise UsageError(f"--keypoints is for pose networks, but {checkpoint.name} segments: use --classes")
    most = MOST_CLASSES - settings.multi_label  # one label stands for no class
    if checkpoint.outputs > most:
        raise CheckpointError(
            f"{checkpoint.name} has {checkpoint.outputs} classes, expected 1 to {most}, since labels are "
            "uint8; give a network that was trained with fewer"
        )
    if classes is None:
        named = checkpoint.class_set()
    elif checkpoint.threshold is not None and len((given := class_set(classes)).names) == 1:
        named = two_classes(given.names, given.palette)
    else:
        named = class_set(classes, checkpoint.outputs)
    return {"classes": named.names, "palette": named.palette}


def _keypoint_spec(checkpoint: Checkpoint, keypoints: str | Path | None) -> KeypointSpec:
    name = keypoints if keypoints is not None else checkpoint.keypoints
    if name is not None:
        return keypoint_set(name, checkpoint.outputs)
    for known in KEYPOINT_SETS.values():
        if len(known.names) == checkpoint.outputs:
            return known
    return KeypointSpec(names=tuple(f"keypoint {index}" for index in range(checkpoint.outputs)))


@dataclass(frozen=True)
class StageTokens:
    """How many tokens the attention of one stage works on, before and after merging or reduction."""

    grid_hw: GridHw
    query: int
    key_value: int
    key_value_grid_hw: GridHw
    name: str = ""
    blocks: int = 1


def plan_for(recipe: Recipe, config: Config, spec: InputSpec) -> tuple[StageTokens, ...]:
    """Return the tokens of every stage, in the order of the network, for an input of the spec's size.

    Raises:
        UsageError: the input is too small for the network.
        RecipeError: a cell or window is larger than a stage's grid; the stage is named.
    """
    if isinstance(config, EdaFormerConfig):
        assert isinstance(recipe, IsrRecipe)
        return tuple(_plan_isr(recipe, config, spec))
    assert isinstance(recipe, MergingRecipe)
    encoder = config.encoder
    height, width = (size // recipe.input_step for size in spec.size_hw)
    grids = encoder.stage_grids((height, width))
    pairs = [(grid, reduced_grid(grid, ratio)) for grid, ratio in zip(grids, encoder.reductions, strict=True)]
    for number, (grid, reduced) in enumerate(pairs, 1):
        if min(*grid, *reduced) < 1:
            raise UsageError(
                f"--res {spec.width}x{spec.height} (width x height) is too small: stage {number} has no key/value "
                f"tokens left after its spatial reduction; use at least {32 * recipe.input_step} pixels on each side"
            )
    return plan_tokens(recipe, pairs, blocks=encoder.depths)


def plan_tokens(
    recipe: MergingRecipe, grids: Iterable[tuple[GridHw, GridHw]], *, blocks: tuple[int, ...] = (1, 1, 1, 1)
) -> tuple[StageTokens, ...]:
    """Count the tokens of every stage.

    Args:
        recipe: what to merge.
        grids: for each stage its grid and the reduced grid of its keys and values, (rows, columns).
        blocks: how many blocks each stage has.

    Raises:
        RecipeError: a stage's cell or window is larger than its grid; the stage is named.
    """
    plan = []
    for number, (stage, (grid_hw, reduced_hw), depth) in enumerate(zip(recipe.stages, grids, blocks, strict=True), 1):
        try:
            query, key_value = tokens_after(stage.query, grid_hw), tokens_after(stage.key_value, reduced_hw)
        except RecipeError as error:
            raise RecipeError(f"stage {number}: {error}; use a larger --res or a recipe with smaller cells") from error
        plan.append(StageTokens(grid_hw, query, key_value, reduced_hw, f"stage {number}", depth))
    return tuple(plan)


def _plan_isr(recipe: IsrRecipe, config: EdaFormerConfig, spec: InputSpec) -> Iterator[StageTokens]:
    grids, decoder = config.encoder.stage_grids(spec.size_hw), config.decoder
    for number, grid_hw in enumerate(grids):
        pool, factor = config.encoder.pools[number], recipe.encoder[number]
        yield _pooled(f"encoder stage {number + 1}", grid_hw, pool, factor, config.encoder.depths[number])
    for level, grid_hw in enumerate(grids[1:]):
        pool, factor = decoder.pools[level], recipe.decoder[level]
        yield _pooled(f"decoder stage {level + 2}", grid_hw, pool, factor, decoder.depths[level])


def _pooled(name: str, grid_hw: GridHw, pool: int, factor: int, blocks: int) -> StageTokens:
    reduced = reduced_grid(grid_hw, pool * factor)
    if min(reduced) < 1:
        raise RecipeError(
            f"{name}: a reduction by {pool * factor} ({pool} as trained, times {factor}) does not fit its grid of "
            f"{grid_hw[0]}x{grid_hw[1]} (rows x columns); use a larger --res or a smaller factor in --isr"
        )
    return StageTokens(grid_hw, grid_hw[0] * grid_hw[1], reduced[0] * reduced[1], reduced, name, blocks)


def tokens_by_block(plan: tuple[StageTokens, ...]) -> list[tuple[int, int]]:
    """Return the (query, key/value) tokens of each attention, in the order of the network."""
    return [(stage.query, stage.key_value) for stage in plan for _ in range(stage.blocks)]
