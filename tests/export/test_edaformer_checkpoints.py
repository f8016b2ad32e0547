"""EDAFormer in its authors' naming: the network it becomes, its answers, and what is said when it does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sfpp.export.checkpoints import Checkpoint, read_checkpoint
from sfpp.export.models.edaformer import EdaFormer, EdaFormerConfig
from sfpp.export.models.recipe import IsrRecipe
from sfpp.runtime.errors import CheckpointError
from tests.golden import FOLDER, GoldenCase, golden_cases

CASES = golden_cases("edaformer")
pytestmark = pytest.mark.skipif(not CASES, reason=f"no golden cases in {FOLDER}")

State = dict[str, torch.Tensor]


def saved(folder: Path, payload: object) -> Path:
    torch.save(payload, folder / "weights.pth")
    return folder / "weights.pth"


def hollow(name: str) -> State:
    """Return a golden checkpoint's keys and shapes; one stored number a tensor makes writing and reading quick."""
    return {key: torch.zeros(()).expand(shape) for key, shape in GoldenCase(name).facts["keys"].items()}


@pytest.fixture
def tiny() -> State:
    return hollow("edaformer_t_1111-111_256x320")


@pytest.fixture(scope="module")
def weights() -> State:
    return GoldenCase("edaformer_t_1111-111_256x320").state_dict()


@pytest.fixture(scope="module")
def canonical(weights, tmp_path_factory) -> State:
    return read_checkpoint(saved(tmp_path_factory.mktemp("canonical"), weights)).state


def refused(folder: Path, state: State) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(saved(folder, state))
    message = str(caught.value)
    assert str(folder / "weights.pth") in message
    assert "\n" not in message
    return message


def answer(checkpoint: Checkpoint, case: GoldenCase, recipe: IsrRecipe) -> np.ndarray:
    assert isinstance(checkpoint.config, EdaFormerConfig)
    model = EdaFormer(checkpoint.config).eval()
    missing, unexpected = model.load_state_dict(checkpoint.state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    spec = case.facts["input"]
    image = (torch.from_numpy(case.frame_rgb).float() - torch.tensor(spec["mean"])) / torch.tensor(spec["std"])
    with torch.inference_mode():
        return model(image.permute(2, 0, 1)[None], recipe).numpy()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_case(case, tmp_path):
    checkpoint = read_checkpoint(case.save_checkpoint(tmp_path))
    recipe = IsrRecipe(tuple(case.facts["backbone_reduction"]), tuple(case.facts["decoder_reduction"]))
    case.assert_close(answer(checkpoint, case, recipe))
    assert f"eft_{checkpoint.size}" == case.facts["backbone"]
    assert checkpoint.outputs == case.facts["classes"]


# What is told from keys and shapes


def test_size_t(tmp_path, tiny):
    checkpoint = read_checkpoint(saved(tmp_path, tiny))
    encoder, decoder = checkpoint.config.encoder, checkpoint.config.decoder
    assert (checkpoint.family, checkpoint.task, checkpoint.style) == ("edaformer", "segmentation", "edaformer")
    assert (checkpoint.size, checkpoint.outputs, checkpoint.keypoints) == ("t", 19, None)
    assert (encoder.channels, encoder.depths) == ((32, 64, 128, 256), (2, 2, 10, 2))
    assert encoder.hidden == tuple(int(3.8 * channels) for channels in encoder.channels)
    assert decoder.hidden == tuple(2 * channels for channels in encoder.channels[1:])
    assert (decoder.width, decoder.classes) == (128, 19)
    assert (encoder.block_eps, encoder.embed_eps, decoder.eps) == (1e-6, 1e-5, 1e-5)


def test_size_b(tmp_path):
    checkpoint = read_checkpoint(saved(tmp_path, hollow("edaformer_b_2211-222_256x256")))
    encoder, decoder = checkpoint.config.encoder, checkpoint.config.decoder
    assert (checkpoint.size, checkpoint.outputs) == ("b", 150)
    assert (encoder.channels, encoder.depths) == ((64, 128, 256, 512), (3, 3, 22, 3))
    assert encoder.hidden == tuple(4 * channels for channels in encoder.channels)
    assert (decoder.hidden, decoder.width) == (encoder.channels[1:], 768)


def test_feed_forward_widths_are_read_from_the_shapes(tmp_path, tiny):
    for name, inputs in (("fc1.weight", (64,)), ("fc1.bias", ()), ("dwconv.dwconv.weight", (1, 3, 3))):
        tiny[f"decode_head.attn2.mlp.{name}"] = torch.zeros(200, *inputs)
    tiny["decode_head.attn2.mlp.dwconv.dwconv.bias"] = torch.zeros(200)
    tiny["decode_head.attn2.mlp.fc2.weight"] = torch.zeros(64, 200)
    assert read_checkpoint(saved(tmp_path, tiny)).config.decoder.hidden == (200, 256, 512)


def test_the_fusion_begins_with_the_last_stage(canonical, weights):
    fused = canonical["head.fusion.conv.weight"]
    stored = weights["decode_head.linear_fuse.conv.weight"]
    assert torch.equal(fused[:, :64], stored[:, 384:])
    assert torch.equal(fused[:, 64:192], stored[:, 256:384])
    assert torch.equal(fused[:, 192:], stored[:, :256])


@pytest.mark.parametrize(
    ("stored", "key"),
    [
        ("backbone.block3.9.attn.sr.weight", "encoder.stages.2.blocks.9.attention.key_value.weight"),
        ("backbone.norm4.bias", "encoder.stages.3.norm.bias"),
        ("decode_head.attn2.attn.norm.bias", "head.stages.0.0.attention.key_value_norm.bias"),
        ("decode_head.attn3.mlp.fc1.weight", "head.stages.1.0.ffn.expand.weight"),
        ("decode_head.attn33.mlp.fc1.weight", "head.stages.1.1.ffn.expand.weight"),
        ("decode_head.attn4.norm2.weight", "head.stages.2.0.norm2.weight"),
        ("decode_head.attn44.norm2.weight", "head.stages.2.1.norm2.weight"),
        ("decode_head.attn444.norm2.weight", "head.stages.2.2.norm2.weight"),
        ("decode_head.linear_pred.bias", "head.classifier.bias"),
    ],
)
def test_where_a_tensor_goes(canonical, weights, stored, key):
    assert torch.equal(canonical[key], weights[stored])


def test_wrapped_by_mmseg(tmp_path, canonical, weights):
    names, palette = [f"thing {index}" for index in range(19)], [[index, 0, 255] for index in range(19)]
    wrapped = {
        "meta": {"CLASSES": names, "PALETTE": palette, "epoch": 3},
        "state_dict": {f"module.{key}": value for key, value in weights.items()},
        "optimizer": {"param_groups": [{"lr": 6e-5}]},
    }
    checkpoint = read_checkpoint(saved(tmp_path, wrapped))
    assert checkpoint.state.keys() == canonical.keys()
    assert all(torch.equal(checkpoint.state[key], canonical[key]) for key in canonical)
    assert (checkpoint.classes, checkpoint.palette[18]) == (tuple(names), (18, 0, 255))
    assert checkpoint.class_set().names == tuple(names)


def test_without_the_encoders_prefix(tmp_path, tiny):
    state = {key.removeprefix("backbone."): value for key, value in tiny.items()}
    assert read_checkpoint(saved(tmp_path, state)).size == "t"


def test_class_names_are_generated_where_the_file_has_none(tmp_path, tiny):
    assert read_checkpoint(saved(tmp_path, tiny)).class_set().names[18] == "class 18"


# What does not fit


def test_an_encoder_without_a_decoder(tmp_path, tiny):
    encoder = {key.removeprefix("backbone."): value for key, value in tiny.items() if key.startswith("backbone.")}
    message = refused(tmp_path, {**encoder, "head.weight": torch.zeros(1000, 256)})
    assert (
        "an encoder in the EDAFormer style without a segmentation head (no key begins with decode_head.attn" in message
    )
    assert "found instead head.weight), but that of ImageNet classification, and sfpp reads SegFormer's own" in message


def test_another_size_lists_the_known_ones(tmp_path, tiny):
    message = refused(tmp_path, {key: value for key, value in tiny.items() if ".block3.9." not in key})
    assert (
        "channels (32, 64, 128, 256) and blocks (2, 2, 9, 2) (EDAFormer style), which is no published size" in message
    )
    assert "T (32, 64, 128, 256), (2, 2, 10, 2); B (64, 128, 256, 512), (3, 3, 22, 3)" in message
    assert "do not tell the number of heads" in message


def test_missing_unexpected_and_misshapen_keys_are_all_listed(tmp_path, tiny):
    del tiny["decode_head.attn44.attn.norm.bias"]
    tiny["decode_head.attn22.norm1.bias"] = torch.zeros(64)
    tiny["decode_head.linear_fuse.conv.weight"] = torch.zeros(128, 480, 1, 1)
    tiny["backbone.block1.1.mlp.fc1.weight"] = torch.zeros(128, 32)
    message = refused(tmp_path, tiny)
    assert "does not fit the EDAFormer style" in message
    assert "1 missing: decode_head.attn44.attn.norm.bias. " in message
    assert "1 unexpected: decode_head.attn22.norm1.bias. " in message
    assert "2 of another shape: " in message
    assert "backbone.block1.1.mlp.fc1.weight (128, 32), expected (121, 32)" in message
    assert "decode_head.linear_fuse.conv.weight (128, 480, 1, 1), expected (128, 448, 1, 1)" in message


@pytest.mark.parametrize(
    ("key", "stored", "found"),
    [
        ("decode_head.linear_pred.weight", None, "is missing"),
        ("decode_head.attn3.mlp.fc1.weight", None, "is missing"),
        ("backbone.block2.0.mlp.fc1.weight", torch.zeros(0, 64), "has no rows"),
        ("decode_head.linear_fuse.conv.weight", torch.tensor(1.0), "has no rows"),
    ],
)
def test_a_tensor_that_tells_a_size_is_named(tmp_path, tiny, key, stored, found):
    del tiny[key]
    state = tiny if stored is None else {**tiny, key: stored}
    assert f"{key} {found}, without which the size is unknown (EDAFormer style)" in refused(tmp_path, state)


def test_values_that_are_not_finite(tmp_path, tiny):
    state = {**tiny, "decode_head.attn33.attn.sr.bias": torch.full((128,), torch.nan)}
    assert "not finite numbers in decode_head.attn33.attn.sr.bias" in refused(tmp_path, state)


def test_the_encoder_of_one_family_with_the_head_of_the_other(tmp_path, tiny):
    official = hollow("segformer_b0_256x320")

    def mixed(encoder: State, head: State) -> State:
        chosen = [(encoder, "backbone."), (head, "decode_head.")]
        return {key: value for state, prefix in chosen for key, value in state.items() if key.startswith(prefix)}

    message = refused(tmp_path, mixed(tiny, official))
    assert "an encoder in the EDAFormer style without a segmentation head" in message
    assert "found instead decode_head.conv_seg.bias" in message
    message = refused(tmp_path, mixed(official, tiny))
    assert "does not fit the official SegFormer style" in message
    assert "8 missing: decode_head.linear_c1.proj.weight, " in message
    assert "unexpected: decode_head.attn" in message


def test_a_segformer_is_not_taken_for_an_edaformer(tmp_path):
    checkpoint = read_checkpoint(saved(tmp_path, hollow("segformer_b0_256x320")))
    assert (checkpoint.family, checkpoint.task, checkpoint.style) == ("segformer", "segmentation", "official")
    assert checkpoint.outputs == 150
