"""PyTorch's side: the recipe from the contract, the checkpoint's own normalization, refusals that say what to give."""

import dataclasses

import onnx
import pytest
import torch
from safetensors.torch import load_file

from sfpp.export.catalog import VARIANTS, isr_from_text, recipe_from_words, usual_matching, words_from_recipe
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.checkpoints.preparation import Preparation
from sfpp.export.demo import demo_checkpoint, demo_pose_checkpoint
from sfpp.export.models.recipe import with_matching
from sfpp.export.parity.reference import recipe_of, reference_for
from sfpp.export.parity.settings import ParitySettings
from sfpp.runtime.errors import ContractError, UsageError
from tests.export.parity.planted import contract_of


@pytest.fixture(scope="module")
def contract(exported):
    return contract_of(onnx.load(exported("fast").path))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_recipe_is_what_was_exported(contract, variant):
    written = {"variant": variant, "recipe": words_from_recipe(VARIANTS[variant]), "matching": usual_matching(variant)}
    assert recipe_of(dataclasses.replace(contract, **written)) == VARIANTS[variant]


def test_matching_and_own_recipes(contract):
    said = dataclasses.replace(contract, matching="local", share_matching=2)
    assert recipe_of(said) == with_matching(VARIANTS["fast"], local=True, share_matching=2)
    words = ({"q_mode": "n2d", "q_s": [2, 2]}, {}, {}, {})
    # A recipe file may be called as a variant is.
    assert recipe_of(dataclasses.replace(contract, variant="downsample", recipe=words)) == recipe_from_words(
        list(words)
    )
    reduction = dataclasses.replace(contract, family="edaformer", recipe=({"isr": "2211-222"},))
    assert recipe_of(reduction) == isr_from_text("2211-222")


def test_a_recipe_that_cannot_be(contract):
    words = tuple({**stage, "kv_sx": 99} if "kv_mode" in stage else stage for stage in contract.recipe)
    with pytest.raises(ContractError, match=r"the recipe in the contract cannot be right: stage 1: a cell of 4x99"):
        reference_for(dataclasses.replace(contract, recipe=words), None)


def test_frames_are_prepared_as_in_training(contract):
    said = dataclasses.replace(contract.input, color_order="BGR", mean=(1.0, 2.0, 3.0), resize="stretch", batch=2)
    spec = reference_for(dataclasses.replace(contract, input=said), None).spec
    assert (spec.color_order, spec.mean, spec.std) == ("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    assert (spec.dtype, spec.layout, spec.normalized_in_graph) == ("float32", "NCHW", False)
    assert (spec.height, spec.width, spec.batch, spec.resize) == (128, 192, 2, "stretch")  # these are the file's own


def test_frames_are_normalized_as_the_checkpoint_says(contract, monkeypatch):
    from sfpp.export.parity import reference

    trained = {"mean": (127.5, 127.5, 127.5), "std": (63.75, 63.75, 63.75)}
    preparation = Preparation(**trained, color_order="BGR")
    checkpoint = dataclasses.replace(reference.read_checkpoint(demo_checkpoint()), preparation=preparation)
    monkeypatch.setattr(reference, "read_checkpoint", lambda path, **options: checkpoint)
    spec = reference_for(contract, demo_checkpoint()).spec
    assert (spec.mean, spec.std, spec.color_order) == (trained["mean"], trained["std"], "BGR")


def test_weights_must_be_given_unless_they_are_the_demonstrations(contract):
    assert reference_for(contract, None).checkpoint.name == str(demo_checkpoint())
    with pytest.raises(UsageError, match=r"not made from a demonstration model: give the checkpoint .* with --weights"):
        reference_for(dataclasses.replace(contract, checkpoint_sha256="0" * 64), None)


def test_another_kind_of_network_is_refused(contract):
    with pytest.raises(
        UsageError,
        match=r"a segformer b0 for segmentation with 11 classes, but .* is a segformer b0 for pose with 14 outputs",
    ):
        reference_for(contract, demo_pose_checkpoint())


def test_other_bytes_are_told(contract):
    reference = reference_for(contract, None)
    assert reference.weights_note is None
    without = dataclasses.replace(contract, checkpoint_sha256="")
    assert dataclasses.replace(reference, contract=without).weights_note is None
    other = dataclasses.replace(contract, checkpoint_sha256="f" * 64)
    note = dataclasses.replace(reference, contract=other).weights_note
    assert "made from a checkpoint with the SHA-256 ffffffffffff..." in note
    assert reference.checkpoint.sha256[:12] in note


def test_the_network_that_the_file_was_exported_from_is_compared(tmp_path, contract):
    """Of a checkpoint with several, by what the contract says; another one is taken on request, and told."""
    weights = load_file(demo_checkpoint())
    averaged = {key: value / 2 if value.is_floating_point() else value for key, value in weights.items()}
    torch.save({"model": weights, "ema": averaged}, tmp_path / "weights.pth")
    bias = weights["decode_head.conv_seg.bias"].float()
    of_average = dataclasses.replace(
        contract, weights_key="ema", checkpoint_sha256=read_checkpoint(tmp_path / "weights.pth").sha256
    )
    reference = reference_for(of_average, tmp_path / "weights.pth")
    assert torch.equal(reference.checkpoint.state["head.classifier.bias"], bias / 2)
    assert reference.weights_note is None
    reference = reference_for(of_average, tmp_path / "weights.pth", ParitySettings("m.onnx", weights_key="model"))
    assert torch.equal(reference.checkpoint.state["head.classifier.bias"], bias)
    assert reference.weights_note == "the file was made from the weights under 'ema', and these are those under 'model'"
    # The same weights in a file of their own have no such name.
    torch.save(averaged, tmp_path / "alone.pth")
    reference = reference_for(of_average, tmp_path / "alone.pth")
    assert torch.equal(reference.checkpoint.state["head.classifier.bias"], bias / 2)
