"""PyTorch's side, rebuilt from the checkpoint and from what the file's contract says about merging.

What the contract says about the preparation of images is not taken over: PyTorch prepares frames as the checkpoint was
trained, so that a wrong contract shows.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sfpp.export.catalog import VARIANTS, isr_from_text, recipe_from_words, words_from_recipe
from sfpp.export.checkpoints import Checkpoint, read_checkpoint
from sfpp.export.checkpoints.preparation import Preparation
from sfpp.export.checkpoints.sigmoid import without_background
from sfpp.export.contracts import plan_for
from sfpp.export.demo import demo_checkpoint, demo_pose_checkpoint
from sfpp.export.deployable import Network, answer_of
from sfpp.export.models.recipe import MergingRecipe, Recipe, with_matching
from sfpp.export.models.segformer import upsampled
from sfpp.export.parity.settings import ParitySettings
from sfpp.export.settings import PreparationOptions, Resolution, numbers_text
from sfpp.export.to_onnx import learned_model
from sfpp.runtime.backends.protocol import Arrays, Backend, FunctionBackend
from sfpp.runtime.contract import InputSpec, ModelContract
from sfpp.runtime.errors import ContractError, UsageError
from sfpp.runtime.files import sha256_of
from sfpp.runtime.images import Placement
from sfpp.runtime.labels import logit
from sfpp.tooling.tasks import Predictor, Prepared, SegmentationPredictor, predictor_of

# Between logits of thresholds, in parts of the larger where that is more than 1: bfloat16 has three digits.
_THRESHOLD_ERROR = 0.01
# The share of a graph's masks that float32 makes of its logits, at least: the backend may have rounded them.
_SAME_MASKS = 0.995


@dataclass(frozen=True, eq=False)
class Reference:
    """The learned network, and how it is fed.

    ``recipe`` is what the contract says, and ``spec`` how the checkpoint was trained to see frames: normalized float32
    images of the graph's size. Of what nothing says of the training, ``spec`` has what the contract says.
    ``threshold`` is the probability over which a pixel is a class, of a network with a sigmoid; None where the largest
    logit wins.
    """

    checkpoint: Checkpoint
    network: Network
    recipe: Recipe
    spec: InputSpec
    contract: ModelContract
    threshold: float | None = None

    @property
    def matches(self) -> bool:
        """Whether the recipe matches tokens, so that near ties may be settled differently on both sides."""
        return isinstance(self.recipe, MergingRecipe) and self.recipe.matches

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
            logits = self.network(image, self.recipe)
            if self.threshold is None or output.kind == "logits":
                align_corners = self.checkpoint.preparation.align_corners
                answer = answer_of(logits, output.kind, self.spec.size_hw, align_corners=align_corners)
                return {output.name: answer.numpy()}
            masks = self._masks(logits, self.threshold)
            return {output.name: (masks if output.kind == "masks" else masks[:, 1]).to(torch.uint8).numpy()}

    def _masks(self, logits: Tensor, threshold: float) -> Tensor:
        """Return whether each pixel of the input is each class: (batch, classes, height, width)."""
        align_corners = self.checkpoint.preparation.align_corners
        return torch.sigmoid(upsampled(logits, self.spec.size_hw, align_corners=align_corners)) > threshold

    def mismatches(self) -> tuple[str, ...]:
        """Return in words which facts of the training's preparation the contract has otherwise."""
        return tuple(_mismatches(self.contract, self.spec, self.checkpoint.preparation))

    @property
    def threshold_note(self) -> str | None:
        """In words that the file's threshold is another one than PyTorch's; None where it is not."""
        said, expected = self.contract.threshold, self.threshold
        if said is None or expected is None or math.isclose(said, expected, rel_tol=1e-6):
            return None
        origin = self.checkpoint.threshold_source or "as given"
        return (
            f"the threshold differs: the file says {said:g}, expected {expected:g} ({origin}); if {said:g} was chosen "
            f"when it was exported, give --threshold {said:g}"
        )

    def threshold_fault(self, logits: NDArray[Any], output: NDArray[Any]) -> str | None:
        """Return in words that a graph has another threshold than PyTorch; None where it has not.

        Args:
            logits: (batch, classes, h, w), the graph's: of a network with one output the first class is the threshold.
            output: what the graph makes of them.
        """
        if self.threshold is None:
            return None
        if self.contract.multi_label:
            if output.shape == logits.shape:
                return None
            masks = self._masks(torch.from_numpy(logits).float(), self.threshold)
            if np.mean(masks.numpy() == output) >= _SAME_MASKS:
                return None
            return f"the threshold differs: the graph's masks are not where its logits are above {self.threshold:g}"
        found, expected = logits[:, 0].astype(np.float64), logit(self.threshold)
        allowed = _THRESHOLD_ERROR * max(1.0, abs(expected))
        if np.abs(found - expected).max() <= allowed:  # NaN is not
            return None
        if np.ptp(found) > allowed or not np.isfinite(found).all():
            return "the threshold is not in the graph: its first logit is not the same everywhere; export it again"
        own = float(1 / (1 + np.exp(-found.mean())))
        return f"the threshold differs: the graph has {own:.4g}, expected {self.threshold:g}"


class Thresholded(nn.Module):
    """The classifier of a network with one output as its graph has it: the threshold's logit, and what it computes.

    Args:
        classifier: gives (batch, 1, h, w).
        threshold: a probability, above 0 and below 1.
    """

    def __init__(self, classifier: nn.Conv2d, threshold: float) -> None:
        super().__init__()
        self.classifier, self.in_channels = classifier, classifier.in_channels
        self._logit = logit(threshold)

    def forward(self, features: Tensor) -> Tensor:
        """Return (batch, 2, h, w)."""
        logits: Tensor = self.classifier(features)
        return torch.cat([torch.full_like(logits, self._logit), logits], dim=1)


class _SigmoidPredictor(SegmentationPredictor):
    """PyTorch's side of a network with a sigmoid: what is above the threshold, rather than the larger of two logits."""

    def __init__(self, backend: Backend, contract: ModelContract, threshold: float) -> None:
        super().__init__(backend, contract)
        self._contract, self._threshold = contract, threshold

    def predictions(self, output: NDArray[Any], prepared: Prepared) -> list[NDArray[np.uint8]]:
        """Return labels of 0 and 1, or masks, one for each frame."""
        if self._contract.outputs[0].kind != "logits":
            return super().predictions(output, prepared)
        placements: Sequence[Placement] = prepared.details.placements
        masks = [self._masks(logits, place) for logits, place in zip(output, placements, strict=False)]
        return [each if self._contract.multi_label else each[1] for each in masks]

    def _masks(self, logits: NDArray[Any], place: Placement) -> NDArray[np.uint8]:
        output, size_hw = self._contract.outputs[0], self._contract.input.size_hw
        values, how = torch.from_numpy(logits), {"align_corners": output.align_corners}
        if output.through_input and (place.height, place.width) != place.frame_size_hw:
            values = upsampled(values[None], size_hw, **how)[0]
        rows, columns = int(values.shape[1]), int(values.shape[2])
        region = place.region((rows, columns), model_size_hw=size_hw, **how)
        vertical = interpolation(place.frame_size_hw[0], rows, region[0], region[2], **how)
        horizontal = interpolation(place.frame_size_hw[1], columns, region[1], region[3], **how)
        found = torch.stack([torch.sigmoid(vertical @ each @ horizontal.T) for each in values])
        return (found > self._threshold).to(torch.uint8).numpy()


def interpolation(pixels: int, cells: int, start: float, extent: float, *, align_corners: bool = False) -> Tensor:
    """Return the weights (pixels, cells) float32 of bilinear interpolation along one axis.

    Args:
        pixels: how many there are.
        cells: how many values they lie between.
        start: where the pixels begin, in cells.
        extent: how many cells they cover.
        align_corners: both are counted from the center of the first cell, where the first pixel's center lies too.
    """
    numbers = torch.arange(pixels, dtype=torch.float64)
    centers = start + (numbers + 0.5) * extent / pixels - 0.5
    if align_corners:
        centers = start + numbers * extent / max(1, pixels - 1)
    apart = (centers.clamp(0, cells - 1)[:, None] - torch.arange(cells, dtype=torch.float64)).abs()
    return (1 - apart).clamp(min=0).float()


def reference_for(
    contract: ModelContract, weights: str | os.PathLike[str] | None, settings: ParitySettings | None = None
) -> Reference:
    """Rebuild PyTorch's side.

    A network with one output and a sigmoid is compared as such. Its threshold is the checkpoint's where that says one,
    since a wrong one in the file is to show, and else the file's.

    Args:
        contract: the model file's.
        weights: the checkpoint; None takes a demonstration model if the file was made from one.
        settings: with which network of the checkpoint is meant, what the user says of the training's preparation, and
            the threshold of a network with a sigmoid.

    Raises:
        UsageError: no weights, or those of another kind of network than the file's.
        CheckpointError: the weights cannot be read.
        ContractError: the contract's recipe is none, or does not fit the contract's own input.
    """
    threshold = None if settings is None else settings.threshold
    checkpoint = read_checkpoint(
        weights if weights is not None else _demo_of(contract),
        threshold=threshold,
        weights_key=None if settings is None else settings.weights_key,
        usual_key=contract.weights_key,
    )
    _check_kind(checkpoint, contract)
    # Also without options: what is unclear is asked for.
    checkpoint = checkpoint.overruled(settings or PreparationOptions(), None if settings is None else settings.res)
    own = checkpoint.threshold if checkpoint.threshold_source else None
    expected = None if contract.threshold is None else threshold or own or contract.threshold
    trained, given = checkpoint.preparation, contract.input
    spec = InputSpec(
        name="image",
        height=given.height,
        width=given.width,
        batch=given.batch,
        open_batch=given.open_batch,
        layout="NCHW",
        dtype="float32",
        color_order=trained.color_order,
        mean=trained.mean,
        std=trained.std,
        normalized_in_graph=False,
        resize=trained.resize or given.resize,
        channels=len(trained.mean),
        interpolation=trained.interpolation or given.interpolation,
        matrix=given.matrix,  # so that both are given the same pixels
    )
    network = _network(checkpoint, expected)
    return Reference(checkpoint, network, _fitting_recipe(contract, checkpoint), spec, contract, expected)


def _network(checkpoint: Checkpoint, threshold: float | None) -> Network:
    """Return the learned network; of one output without what was made of it for the graph."""
    if checkpoint.threshold is None or threshold is None:
        return learned_model(checkpoint)
    config, state = without_background(checkpoint.config, checkpoint.state)
    network = learned_model(dataclasses.replace(checkpoint, config=config, state=state))
    head: Any = network.head
    head.classifier = Thresholded(head.classifier, threshold)
    return network


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
    trained = reference.checkpoint.preparation
    outputs = tuple(
        dataclasses.replace(
            each,
            align_corners=trained.align_corners and each.kind != "heatmaps",
            through_input=trained.through_input and each.kind == "logits",
        )
        for each in reference.contract.outputs
    )
    contract = dataclasses.replace(reference.contract, input=reference.spec, outputs=outputs)
    if reference.threshold is not None:
        return _SigmoidPredictor(backend, contract, reference.threshold)
    return predictor_of(backend, contract)


def _mismatches(contract: ModelContract, trained: InputSpec, preparation: Preparation) -> Iterator[str]:
    file = contract.input
    facts = [(fact, getattr(file, fact), getattr(trained, fact)) for fact in ("mean", "std", "color_order")]
    if contract.task == "segmentation":  # a person's crop has its own geometry
        facts += [(fact, getattr(file, fact), getattr(trained, fact)) for fact in ("resize", "interpolation")]
        facts.append(("align_corners", contract.outputs[0].align_corners, preparation.align_corners))
        if contract.outputs[0].kind == "logits":
            facts.append(("through_input", contract.outputs[0].through_input, preparation.through_input))
    for fact, has, expected in facts:
        if has != expected:
            yield _mismatch(fact, _fact_text(has), _fact_text(expected), preparation)
    size = Resolution(file.width, file.height)
    if contract.task == "segmentation" and not _fits(size, preparation):
        yield _mismatch("size", str(size), str(preparation.size), preparation)


def _mismatch(fact: str, has: str, expected: str, preparation: Preparation) -> str:
    source = preparation.said.get(fact, "the default, as the checkpoint says nothing")
    option = "res" if fact == "size" else fact.replace("_", "-")
    given = f"if the file is right, give --{option} {has}"
    if fact == "align_corners":
        given = f"if the file is right, give {'--align-corners' if has == 'True' else '--no-align-corners'}"
    if fact == "through_input":  # a library's habit and no option
        given = "export the model again"
    return f"{fact} differs: the file has {has}, the checkpoint's training {expected} ({source}); {given}"


def _fact_text(value: Any) -> str:
    return numbers_text(value) if isinstance(value, tuple) else str(value)


def _fits(size: Resolution, preparation: Preparation) -> bool:
    """Tell whether the library would give the network an image of this size."""
    # Of a size of any shape that its box bounds, since it resizes a frame of that shape to the box.
    own, slack = preparation.usual_size(size), max(preparation.size_divisor, 2)
    return all(0 <= side - expected < slack for side, expected in zip(size, own, strict=True))


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
    if (checkpoint.threshold is None) != (contract.threshold is None or contract.multi_label):
        has = "one output with a sigmoid" if checkpoint.threshold is not None else "two outputs"
        raise UsageError(
            f"{checkpoint.name} has {has}, and the file says the threshold {contract.threshold}: give the checkpoint "
            "that the file was exported from, or export it again"
        )
