"""PyTorch's side, rebuilt from the checkpoint and from what the file's contract says about merging.

What the contract says about colors and normalization is not taken over: PyTorch prepares frames as the checkpoint was
trained, so that a wrong contract shows.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from sfpp.export.catalog import VARIANTS, isr_from_text, recipe_from_words, words_from_recipe
from sfpp.export.checkpoints import Checkpoint, read_checkpoint
from sfpp.export.checkpoints.sizes import IMAGENET
from sfpp.export.contracts import plan_for
from sfpp.export.demo import demo_checkpoint, demo_pose_checkpoint
from sfpp.export.deployable import Network, answer_of
from sfpp.export.models.recipe import MergingRecipe, Recipe, with_matching
from sfpp.export.to_onnx import learned_model
from sfpp.runtime.backends.protocol import Arrays, FunctionBackend
from sfpp.runtime.contract import InputSpec, ModelContract
from sfpp.runtime.errors import ContractError, UsageError
from sfpp.runtime.files import sha256_of
from sfpp.tooling.tasks import Predictor, predictor_of


@dataclass(frozen=True, eq=False)
class Reference:
    """The learned network, and how it is fed.

    ``recipe`` is what the contract says, and ``spec`` how the checkpoint was trained to see frames: normalized float32
    images in RGB of the graph's size.
    """

    checkpoint: Checkpoint
    network: Network
    recipe: Recipe
    spec: InputSpec
    contract: ModelContract

    @property
    def matches(self) -> bool:
        """Whether the recipe matches tokens, so that near ties may be settled differently on both sides."""
        return isinstance(self.recipe, MergingRecipe) and self.recipe.merges_bipartite

    @property
    def weights_note(self) -> str | None:
        """In words that the weights are not, byte for byte, those that the file was made from; None where they are."""
        made_from, given = self.contract.checkpoint_sha256, self.checkpoint
        key = self.contract.weights_key
        if made_from == given.sha256 and key != given.weights_key:
            return f"the file was made from the weights under {key!r}, and these are those under {given.weights_key!r}"
        if not made_from or made_from == given.sha256:
            return None
        return (
            f"the file was made from a checkpoint with the SHA-256 {made_from[:12]}..., and {given.name} has "
            f"{given.sha256[:12]}..."
        )

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run PyTorch as if it were a backend: images by the spec's name in, what the graph gives by its name out."""
        # A copy, since a comparison in step writes into it.
        image = torch.from_numpy(inputs[self.spec.name].copy())
        output = self.contract.outputs[0]
        with torch.no_grad():
            return {output.name: answer_of(self.network(image, self.recipe), output.kind, self.spec.size_hw).numpy()}


def reference_for(
    contract: ModelContract, weights: str | os.PathLike[str] | None, weights_key: str | None = None
) -> Reference:
    """Rebuild PyTorch's side.

    Args:
        contract: the model file's.
        weights: the checkpoint; None takes a demonstration model if the file was made from one.
        weights_key: which network of a checkpoint that holds several; None takes the one that the contract names.

    Raises:
        UsageError: no weights, or those of another kind of network than the file's.
        CheckpointError: the weights cannot be read.
        ContractError: the contract's recipe is none, or does not fit the contract's own input.
    """
    checkpoint = read_checkpoint(
        weights if weights is not None else _demo_of(contract), weights_key=weights_key, usual_key=contract.weights_key
    )
    _check_kind(checkpoint, contract)
    given = contract.input
    spec = dataclasses.replace(
        IMAGENET,
        height=given.height,
        width=given.width,
        batch=given.batch,
        layout="NCHW",
        dtype="float32",
        mean=checkpoint.mean,
        std=checkpoint.std,
        normalized_in_graph=False,
        resize=given.resize,
    )
    return Reference(checkpoint, learned_model(checkpoint), _fitting_recipe(contract, checkpoint), spec, contract)


def recipe_of(contract: ModelContract) -> Recipe:
    """Return the merging, or EDAFormer's reduction, that the contract writes down.

    Raises:
        RecipeError, UsageError: what it writes down is no recipe.
    """
    words = contract.recipe
    if contract.family == "edaformer":
        return isr_from_text(str(words[0].get("isr") if words else None))
    # The step of the input is not among the words of a stage: it goes with the variant's name.
    named = VARIANTS.get(contract.variant)
    known = named if named is not None and words_from_recipe(named) == words else None
    recipe: MergingRecipe = known or recipe_from_words(list(words), origin="the contract's recipe")
    return with_matching(recipe, local=contract.matching == "local", share_matching=contract.share_matching)


def _fitting_recipe(contract: ModelContract, checkpoint: Checkpoint) -> Recipe:
    try:
        recipe = recipe_of(contract)
        plan_for(recipe, checkpoint.config, contract.input)
    except UsageError as error:
        raise ContractError(f"the recipe in the contract cannot be right: {error}") from error
    return recipe


def pytorch_side(reference: Reference) -> Predictor:
    """Return PyTorch in the place of a backend, fed as the checkpoint was trained."""
    backend = FunctionBackend(reference.run, {}, description="PyTorch")
    return predictor_of(backend, dataclasses.replace(reference.contract, input=reference.spec))


def _demo_of(contract: ModelContract) -> Path:
    for path in (demo_checkpoint(), demo_pose_checkpoint()):
        if sha256_of([path]) == contract.checkpoint_sha256:
            return path
    raise UsageError(
        "the file was not made from a demonstration model: give the checkpoint that it was exported from with --weights"
    )


def _check_kind(checkpoint: Checkpoint, contract: ModelContract) -> None:
    outputs = len(contract.keypoints.names) if contract.keypoints is not None else len(contract.classes)
    what = "keypoints" if contract.task == "pose" else "classes"
    file = (contract.task, contract.family, contract.size, outputs)
    given = (checkpoint.task, checkpoint.family, checkpoint.size, checkpoint.outputs)
    if file != given:
        raise UsageError(
            f"the file holds a {contract.family} {contract.size} for {contract.task} with {outputs} {what}, but "
            f"{checkpoint.name} is a {checkpoint.family} {checkpoint.size} for {checkpoint.task} with "
            f"{checkpoint.outputs} outputs: give the checkpoint that the file was exported from"
        )
