"""The contract of a model that is about to be exported, and the file's name that follows from it."""

from __future__ import annotations

import dataclasses
from importlib import metadata
from pathlib import Path
from typing import Any

from sfpp.export.catalog import Variant, words_from_recipe
from sfpp.export.checkpoints import Checkpoint
from sfpp.export.classes import class_set
from sfpp.export.models.recipe import MergingRecipe, matches_locally
from sfpp.export.models.segformer import SegFormerConfig
from sfpp.export.resolution import Resolution
from sfpp.runtime.contract import (
    MOST_CLASSES,
    InputDtype,
    InputSpec,
    KeypointSpec,
    ModelContract,
    OutputKind,
    OutputSpec,
    ResizeRule,
    Target,
)
from sfpp.runtime.errors import CheckpointError, UsageError
from sfpp.runtime.keypoints import KEYPOINT_SETS, keypoint_set


def input_spec(size: Resolution, *, input: InputDtype, batch: int, resize: ResizeRule) -> InputSpec:
    """Return the input's contract: raw uint8 RGB frames, or normalized float32 images."""
    spec = InputSpec(name="frame", height=size.height, width=size.width, batch=batch, resize=resize)
    if input == "uint8":
        return spec
    return dataclasses.replace(spec, name="image", layout="NCHW", dtype="float32", normalized_in_graph=False)


def contract_for(
    checkpoint: Checkpoint,
    variant: Variant,
    spec: InputSpec,
    *,
    output: OutputKind,
    opset: int,
    target: Target = "portable",
    classes: str | Path | None = None,
    keypoints: str | Path | None = None,
) -> ModelContract:
    """Return the contract of a checkpoint's export.

    Raises:
        UsageError: class names for a pose network or the reverse, or another number of names than outputs.
        CheckpointError: more classes than labels can tell.
    """
    return ModelContract(
        task=checkpoint.task,
        family=checkpoint.family,
        size=checkpoint.size,
        variant=variant.name,
        recipe=words_from_recipe(variant.recipe),
        matching="local" if matches_locally(variant.recipe) else "exact",
        share_matching=variant.recipe.share_matching if isinstance(variant.recipe, MergingRecipe) else 1,
        target=target,
        input=spec,
        outputs=(OutputSpec(output, output, _stride(checkpoint, variant, output)),),
        opset=opset,
        checkpoint_sha256=checkpoint.sha256,
        licence=checkpoint.licence,
        sfpp_version=metadata.version("sfpp"),
        **_names(checkpoint, classes, keypoints),
    )


def default_name(contract: ModelContract) -> str:
    """Return the file name that says what is in the file."""
    spec = contract.input
    parts = [contract.family, contract.size, contract.variant]
    if contract.matching != "exact":
        parts.append(contract.matching)
    if contract.share_matching != 1:
        parts.append(f"share{contract.share_matching or 'all'}")
    parts.append(f"{spec.width}x{spec.height}")
    if contract.task == "pose":
        parts.insert(2, "pose")
    if contract.outputs[0].kind == "labels":
        parts.append("labels")
    if contract.target != "portable":
        parts.append(contract.target)
    if spec.dtype == "float32":
        parts.append("float32")
    if spec.batch > 1:
        parts.append(f"batch{spec.batch}")
    return "-".join(parts) + ".onnx"


def _stride(checkpoint: Checkpoint, variant: Variant, output: OutputKind) -> int:
    """Return how many pixels lie between two outputs: SegFormer answers on stage 1's grid, EDAFormer on stage 2's."""
    if output == "labels":
        return 1
    strides = checkpoint.config.encoder.patch_strides
    if isinstance(checkpoint.config, SegFormerConfig):
        assert isinstance(variant.recipe, MergingRecipe)
        return strides[0] * variant.recipe.input_step
    return strides[0] * strides[1]


def _names(checkpoint: Checkpoint, classes: str | Path | None, keypoints: str | Path | None) -> dict[str, Any]:
    if checkpoint.task == "pose":
        if classes is not None:
            raise UsageError(f"--classes names classes, but {checkpoint.name} is a pose network: use --keypoints")
        return {"keypoints": _keypoint_spec(checkpoint, keypoints)}
    if keypoints is not None:
        raise UsageError(f"--keypoints is for pose networks, but {checkpoint.name} segments: use --classes")
    if checkpoint.outputs > MOST_CLASSES:
        raise CheckpointError(
            f"{checkpoint.name} has {checkpoint.outputs} classes, expected 1 to {MOST_CLASSES}, since labels are "
            "uint8; give a network that was trained with fewer"
        )
    named = checkpoint.class_set() if classes is None else class_set(classes, checkpoint.outputs)
    return {"classes": named.names, "palette": named.palette}


def _keypoint_spec(checkpoint: Checkpoint, keypoints: str | Path | None) -> KeypointSpec:
    name = keypoints if keypoints is not None else checkpoint.keypoints
    if name is not None:
        return keypoint_set(name, checkpoint.outputs)
    for known in KEYPOINT_SETS.values():
        if len(known.names) == checkpoint.outputs:
            return known
    return KeypointSpec(names=tuple(f"keypoint {index}" for index in range(checkpoint.outputs)))
