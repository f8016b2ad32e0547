"""Pose checkpoints: the SegFormer with an MMPose-style head, one channel a keypoint."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfpp.export.catalog import recipe_from_words
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.demo import demo_pose_checkpoint
from sfpp.export.models.recipe import NO_MERGING
from sfpp.export.models.segformer import SegFormer
from sfpp.runtime.errors import CheckpointError
from sfpp.runtime.keypoints import KEYPOINT_SETS
from tests.golden import FOLDER, golden_cases

CASES = golden_cases("pose")

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights() -> State:
    return load_file(demo_pose_checkpoint())


def saved(folder: Path, payload: object) -> Path:
    torch.save(payload, folder / "weights.pth")
    return folder / "weights.pth"


def refused(folder: Path, state: State) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(saved(folder, state))
    return str(caught.value)


@pytest.mark.skipif(not CASES, reason=f"no golden cases in {FOLDER}")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_case(case, tmp_path):
    checkpoint = read_checkpoint(case.save_checkpoint(tmp_path))
    assert (checkpoint.family, checkpoint.task, checkpoint.style) == ("segformer", "pose", "mmpose")
    assert (checkpoint.size, checkpoint.outputs) == (case.facts["backbone"], case.facts["keypoints"])

    model = SegFormer(checkpoint.config).eval()
    model.load_state_dict(checkpoint.state, strict=False)
    spec, merging = case.facts["input"], case.facts.get("merging")
    image = (torch.from_numpy(case.frame_rgb).float() - torch.tensor(spec["mean"])) / torch.tensor(spec["std"])
    with torch.inference_mode():
        heatmaps = model(image.permute(2, 0, 1)[None], recipe_from_words(merging) if merging else NO_MERGING)
    case.assert_close(heatmaps.numpy())


def test_the_network_is_that_of_segmentation(tmp_path, weights):
    """The same tensors under the names of a segmentation head give the same network."""
    names = {"head.final_layer.": "decode_head.conv_seg.", "head.": "decode_head."}
    state = {}
    for key, value in weights.items():
        prefix = next((prefix for prefix in names if key.startswith(prefix)), "")
        state[names.get(prefix, "") + key.removeprefix(prefix)] = value
    pose, segmentation = read_checkpoint(demo_pose_checkpoint()), read_checkpoint(saved(tmp_path, state))
    assert (segmentation.task, segmentation.style, segmentation.outputs) == ("segmentation", "mmseg", 14)
    assert pose.config == segmentation.config
    assert pose.state.keys() == segmentation.state.keys()
    assert all(torch.equal(pose.state[key], segmentation.state[key]) for key in pose.state)


def in_mmpose_0(state: State) -> object:
    return {"state_dict": {key.replace("head.", "keypoint_head.", 1): value for key, value in state.items()}}


def with_module(state: State) -> object:
    return {"meta": {"epoch": 210}, "state_dict": {f"module.{key}": value for key, value in state.items()}}


def with_training_extras(state: State) -> object:
    extras = {
        "data_preprocessor.mean": torch.zeros(3, 1, 1),
        "head.fusion_conv.bn.num_batches_tracked": torch.tensor(7),
    }
    return {"state_dict": {**state, **extras}}


@pytest.mark.parametrize("wrap", [in_mmpose_0, with_module, with_training_extras])
def test_wrapping_and_prefixes_change_nothing(tmp_path, weights, wrap):
    plain, other = read_checkpoint(demo_pose_checkpoint()), read_checkpoint(saved(tmp_path, wrap(weights)))
    assert (other.task, other.style, other.size, other.config) == ("pose", "mmpose", "b0", plain.config)
    assert other.state.keys() == plain.state.keys()
    assert all(torch.equal(other.state[key], plain.state[key]) for key in plain.state)


# Keypoints and classes


@pytest.mark.parametrize(
    ("text", "expected"),
    [("coco17", "coco17"), ('{"names": ["a"]}', '{"names": ["a"]}'), (" lsp14\n", "lsp14"), (" ", None), (None, None)],
)
def test_keypoints_come_from_the_metadata(tmp_path, weights, text, expected):
    metadata = {"format": "pt"} if text is None else {"sfpp.keypoints": text}
    save_file(weights, tmp_path / "pose.safetensors", metadata=metadata)
    assert read_checkpoint(tmp_path / "pose.safetensors").keypoints == expected


def test_a_pose_network_has_no_classes(tmp_path, weights):
    names = tuple(f"thing {index}" for index in range(14))
    checkpoint = read_checkpoint(saved(tmp_path, {"meta": {"CLASSES": names}, "state_dict": weights}))
    assert (checkpoint.classes, checkpoint.palette, checkpoint.keypoints) == (None, None, None)
    with pytest.raises(CheckpointError, match="is a pose network: it has 14 keypoints and no classes"):
        checkpoint.class_set()


# What does not fit


def test_missing_and_unexpected_keys_are_listed(tmp_path, weights):
    state = {key: value for key, value in weights.items() if not key.startswith("head.convs.1.bn.running")}
    message = refused(tmp_path, {**state, "head.deconv_layers.0.weight": torch.zeros(256, 256, 4, 4)})
    assert "does not fit the MMPose style" in message
    assert "2 missing: head.convs.1.bn.running_mean, head.convs.1.bn.running_var. " in message
    assert "1 unexpected: head.deconv_layers.0.weight" in message


def test_a_missing_last_layer_is_named(tmp_path, weights):
    message = refused(tmp_path, {key: value for key, value in weights.items() if "final_layer" not in key})
    assert "head.final_layer.weight is missing, without which the size is unknown (MMPose style)" in message


def test_an_encoder_with_another_pose_head(tmp_path, weights):
    encoder = {key: value for key, value in weights.items() if key.startswith("backbone.")}
    message = refused(tmp_path, {**encoder, "head.deconv_layers.0.weight": torch.zeros(256, 256, 4, 4)})
    assert "found instead head.deconv_layers.0.weight): give a checkpoint that was trained for" in message


# The demonstration weights


def test_the_demo_weights_tell_keypoints_and_terms():
    checkpoint = read_checkpoint(demo_pose_checkpoint())
    assert (checkpoint.task, checkpoint.size, checkpoint.keypoints) == ("pose", "b0", "lsp14")
    assert checkpoint.outputs == len(KEYPOINT_SETS["lsp14"].names)
    assert checkpoint.licence == "trained on LSP Extended (research data): demonstration only, no commercial use"
    assert checkpoint.sha256 == hashlib.sha256(demo_pose_checkpoint().read_bytes()).hexdigest()
    assert demo_pose_checkpoint().stat().st_size < 8_000_000


def test_the_demo_weights_are_those_of_the_training():
    original = FOLDER.parent / "weights" / "segformer_b0_lsp14_pose.pth"
    if not original.is_file():
        pytest.skip(f"the trained weights are not at {original}")
    trained, shipped = read_checkpoint(original), read_checkpoint(demo_pose_checkpoint())
    assert trained.config == shipped.config
    for key, tensor in trained.state.items():
        torch.testing.assert_close(shipped.state[key], tensor, rtol=1e-3, atol=1e-6)
