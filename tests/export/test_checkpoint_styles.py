"""Every style of checkpoint becomes the same canonical network."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sfpp.export.catalog import MIT_SIZES
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.checkpoints.checkpoint import stored_labels
from sfpp.export.checkpoints.conversion import stages_reversed
from sfpp.export.classes import default_classes
from sfpp.export.demo import demo_checkpoint
from sfpp.export.models.segformer import SegFormer
from tests.golden import FOLDER, GoldenCase

needs_golden = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the golden cases are not at {FOLDER}")


def golden_state(name: str) -> dict[str, torch.Tensor]:
    return GoldenCase(name).state_dict()


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    return golden_state("segformer_b0_256x320")


@pytest.fixture(scope="module")
def mmseg() -> dict[str, torch.Tensor]:
    return golden_state("segformerpp_b0_none_256x320")


def saved(folder: Path, payload: object, name: str = "weights.pth") -> Path:
    torch.save(payload, folder / name)
    return folder / name


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@needs_golden
@pytest.mark.parametrize(
    ("name", "style", "size", "width", "classes"),
    [
        ("segformer_b0_256x320", "official", "b0", 256, 150),
        ("segformer_b2_192x256", "official", "b2", 768, 19),
        ("segformerpp_b0_none_256x320", "mmseg", "b0", 256, 19),
        ("segformerpp_b1_hq_192x256", "mmseg", "b1", 256, 150),
        ("segformerpp_b5_fast_192x256", "mmseg", "b5", 256, 19),
    ],
)
def test_style_size_and_head_are_told_from_the_keys(tmp_path, name, style, size, width, classes):
    # One stored number a tensor is enough: this is about keys and shapes.
    shapes = GoldenCase(name).facts["keys"]
    checkpoint = read_checkpoint(saved(tmp_path, {key: torch.zeros(()).expand(shapes[key]) for key in shapes}))

    assert (checkpoint.style, checkpoint.size) == (style, size)
    assert (checkpoint.config.encoder.channels, checkpoint.config.encoder.depths) == MIT_SIZES[size]
    assert (checkpoint.config.head.kind, checkpoint.config.head.width) == (style, width)
    assert checkpoint.config.head.classes == classes
    assert (checkpoint.classes, checkpoint.palette) == (None, None)
    with torch.device("meta"):
        network = SegFormer(checkpoint.config).state_dict()
    expected = {key: tensor.shape for key, tensor in network.items() if not key.endswith("num_batches_tracked")}
    assert {key: tensor.shape for key, tensor in checkpoint.state.items()} == expected
    assert {tensor.dtype for tensor in checkpoint.state.values()} == {torch.float32}


@needs_golden
def test_official_norms_have_two_epsilons(tmp_path, official, mmseg):
    encoder = read_checkpoint(saved(tmp_path, official)).config.encoder
    assert (encoder.block_eps, encoder.embed_eps) == (1e-6, 1e-5)
    encoder = read_checkpoint(saved(tmp_path, mmseg)).config.encoder
    assert (encoder.block_eps, encoder.embed_eps) == (1e-6, 1e-6)


@needs_golden
def test_mmseg_in_projection_is_queries_keys_values(tmp_path, mmseg):
    state = read_checkpoint(saved(tmp_path, mmseg)).state
    stacked = mmseg["backbone.layers.2.1.1.attn.attn.in_proj_weight"]
    assert torch.equal(state["encoder.stages.2.blocks.1.attention.query.weight"], stacked[:160])
    assert torch.equal(state["encoder.stages.2.blocks.1.attention.key_value.weight"], stacked[160:])


@needs_golden
def test_official_fusion_begins_with_the_last_stage(tmp_path, official):
    fused = read_checkpoint(saved(tmp_path, official)).state["head.fusion.conv.weight"]
    stored = official["decode_head.linear_fuse.conv.weight"]
    for stage in range(4):
        canonical = fused[:, 256 * stage : 256 * (stage + 1)]
        assert torch.equal(canonical, stored[:, 256 * (3 - stage) : 256 * (4 - stage)])


def test_reversing_stages_twice_changes_nothing():
    weight = torch.arange(24.0).reshape(2, 12, 1, 1)
    once = stages_reversed(weight, widths=(5, 4, 2, 1))
    assert once[0, :, 0, 0].tolist() == [11, 9, 10, 5, 6, 7, 8, 0, 1, 2, 3, 4]
    assert torch.equal(stages_reversed(once, widths=(1, 2, 4, 5)), weight)


def wrapped_in_state_dict(state):
    return {"state_dict": state, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]}, "meta": {"epoch": 3}}


def wrapped_in_model(state):
    return {"model": state, "epoch": 12, "scheduler": None}


def with_module(state):
    return {"state_dict": {f"module.{key}": value for key, value in state.items()}}


def with_model_prefix(state):
    return {"state_dict": {f"model.{key}": value for key, value in state.items()}}


def without_backbone(state):
    return {key.removeprefix("backbone."): value for key, value in state.items()}


def with_training_extras(state):
    extras = {
        "auxiliary_head.conv_seg.weight": torch.zeros(19, 8, 1, 1),
        "auxiliary_head.convs.0.bn.num_batches_tracked": torch.tensor(7),
        "data_preprocessor.mean": torch.zeros(3, 1, 1),
    }
    return {"state_dict": {**state, **extras}}


WRAPPERS = [
    wrapped_in_state_dict,
    wrapped_in_model,
    with_module,
    with_model_prefix,
    without_backbone,
    with_training_extras,
]


@needs_golden
@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("style", ["official", "mmseg"])
def test_wrapping_and_prefixes_change_nothing(tmp_path, request, style, wrap):
    state = request.getfixturevalue(style)
    plain = read_checkpoint(saved(tmp_path, state))
    other = read_checkpoint(saved(tmp_path, wrap(state), "wrapped.pth"))
    assert (other.style, other.size, other.config) == (style, plain.size, plain.config)
    assert same(other.state, plain.state)


@needs_golden
def test_the_old_torch_format_and_safetensors_read_the_same(tmp_path, mmseg):
    plain = read_checkpoint(saved(tmp_path, mmseg))
    torch.save(mmseg, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(mmseg, tmp_path / "new.safetensors")
    (tmp_path / "nameless").write_bytes((tmp_path / "new.safetensors").read_bytes())
    for name in ("old.pth", "new.safetensors", "nameless"):
        assert same(read_checkpoint(tmp_path / name).state, plain.state)


@needs_golden
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, mmseg, dtype):
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in mmseg.items()}
    state = read_checkpoint(saved(tmp_path, stored)).state
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert torch.equal(state["head.classifier.bias"], stored["decode_head.conv_seg.bias"].float())


@needs_golden
def test_linear_and_pointwise_convolution_are_the_same(tmp_path, mmseg):
    flat = {key: value.flatten(1) if ".ffn.layers.4.w" in key else value for key, value in mmseg.items()}
    assert same(read_checkpoint(saved(tmp_path, flat)).state, read_checkpoint(saved(tmp_path, mmseg, "b.pth")).state)


@needs_golden
def test_weights_outlive_the_file(tmp_path, mmseg):
    path = saved(tmp_path, mmseg)
    state = read_checkpoint(path).state
    before = {key: tensor.clone() for key, tensor in state.items()}
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    assert same(state, before)


NAMES = tuple(f"thing {index}" for index in range(19))
PALETTE = [[index, 2 * index, 3 * index] for index in range(19)]


@needs_golden
@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": NAMES, "PALETTE": PALETTE, "epoch": 1},
        {"dataset_meta": {"classes": NAMES, "palette": PALETTE}},
        {"dataset_meta": {"CLASSES": list(NAMES), "PALETTE": PALETTE}},
    ],
)
def test_mmseg_metadata_gives_names_and_palette(tmp_path, mmseg, meta):
    checkpoint = read_checkpoint(saved(tmp_path, {"meta": meta, "state_dict": mmseg}))
    assert checkpoint.classes == NAMES
    assert checkpoint.palette == tuple(tuple(color) for color in PALETTE)
    assert checkpoint.class_set().names == NAMES


@needs_golden
@pytest.mark.parametrize(
    ("meta", "names", "colors", "notes"),
    [
        (
            {"CLASSES": NAMES[:17], "PALETTE": PALETTE[:18]},
            (*NAMES[:17], "class 17", "class 18"),
            18,
            [
                "CLASSES has 17 names for 19 outputs: none for 17, 18; ",
                "PALETTE has 18 colors for 19 outputs: none for",
            ],
        ),
        (
            {"dataset_meta": {"classes": [*NAMES, "ignored"], "palette": PALETTE}},
            NAMES,
            19,
            ["dataset_meta has 20 names for 19 outputs: some for 19 (ignored), which the network does not have; "],
        ),
        (
            {"CLASSES": ["a", " ", *NAMES[2:]], "PALETTE": [PALETTE[0], "red", *PALETTE[2:]]},
            ("a", "class 1", *NAMES[2:]),
            1,
            ["CLASSES has 19 names for 19 outputs: none for 1; ", "PALETTE has 19 colors for 19 outputs: none for 1; "],
        ),
    ],
)
def test_as_many_names_and_colors_as_fit(tmp_path, mmseg, meta, names, colors, notes):
    checkpoint = read_checkpoint(saved(tmp_path, {"meta": meta, "state_dict": mmseg}))
    assert checkpoint.classes == names
    palette, generated = checkpoint.palette or (), default_classes(19).palette
    assert palette[:colors] == tuple(tuple(color) for color in PALETTE[:colors])
    assert palette[colors : colors + 1] == generated[colors : colors + 1]
    assert len(checkpoint.notes) == len(notes)
    for note, expected in zip(checkpoint.notes, notes, strict=True):
        assert note.startswith(expected)
        assert "check them, or give --classes FILE" in note


@pytest.mark.parametrize(
    ("id2label", "names", "note"),
    [
        ({"1": "a", "2": "b", "3": "c"}, ("class 0", "a", "b"), "none for 0, some for 3 (c), which the network does "),
        ({"0": "a", "1": "b", "255": "ignore"}, ("a", "b", "class 2"), "none for 2, some for 255 (ignore), which"),
        ({"0": "a", "1": "", "2": "c"}, ("a", "class 1", "c"), "none for 1; those that fit were taken by their index"),
        ({2: "c", 0: "a", 1: "b"}, ("a", "b", "c"), None),
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, None, None),
        ({"zero": "a"}, None, None),
        ("abc", None, None),
    ],
)
def test_names_by_number_that_fit(id2label, names, note):
    labels = stored_labels({}, {"id2label": id2label}, 3)
    assert labels.names == names
    assert [note in line for line in labels.notes] == ([] if note is None else [True])
    assert ("counts from 1" in str(labels.notes)) == (next(iter(id2label)) == "1")


@needs_golden
@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": "road", "PALETTE": "colorful"},
        {"CLASSES": [1] * 19, "PALETTE": [[0, 0, 256]] * 19},
        {"dataset_meta": 1},
    ],
)
def test_metadata_that_does_not_fit_is_left_aside(tmp_path, mmseg, meta):
    checkpoint = read_checkpoint(saved(tmp_path, {"meta": meta, "state_dict": mmseg}))
    assert (checkpoint.classes, checkpoint.palette) == (None, None)
    assert checkpoint.class_set().names[18] == "class 18"
    assert len(checkpoint.class_set().palette) == 19


# The same network, as other libraries spell it


def as_smp(state):
    """Rename as segmentation_models_pytorch does, whose first projection is that of the last stage."""
    renamed = {}
    for key, value in state.items():
        key = re.sub(r"^backbone\.", "encoder.", key)
        key = re.sub(
            r"^decode_head\.linear_c(\d)\.proj\.", lambda found: f"decoder.mlp_stage.{4 - int(found[1])}.linear.", key
        )
        key = key.replace("decode_head.linear_fuse.conv.", "decoder.fuse_stage.0.")
        key = key.replace("decode_head.linear_fuse.bn.", "decoder.fuse_stage.1.")
        renamed[key.replace("decode_head.linear_pred.", "segmentation_head.0.")] = value
    return {key: value for key, value in renamed.items() if "conv_seg" not in key}


def as_tao(state):
    renamed = {
        "model."
        + key.replace("decode_head.", "decoder.")
        .replace("linear_fuse.conv.", "linear_fuse.0.")
        .replace("linear_fuse.bn.", "linear_fuse.1."): value
        for key, value in state.items()
    }
    return {key: value for key, value in renamed.items() if "conv_seg" not in key}


@needs_golden
@pytest.mark.parametrize(("rename", "style"), [(as_smp, "smp"), (as_tao, "tao")])
def test_the_official_network_in_the_keys_of_others(tmp_path, official, rename, style):
    plain = read_checkpoint(saved(tmp_path, official))
    other = read_checkpoint(saved(tmp_path, {"state_dict": rename(official)}, "renamed.pth"))
    assert (other.style, other.size, other.config) == (style, plain.size, plain.config)
    assert same(other.state, plain.state)
    assert other.notes == ()


@needs_golden
def test_a_folder_that_smp_saved(tmp_path, official):
    save_file({key: value.contiguous() for key, value in as_smp(official).items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"_model_class": "Segformer", "encoder_name": "mit_b0", "classes": 150}')
    assert same(read_checkpoint(tmp_path).state, read_checkpoint(saved(tmp_path, official)).state)


@needs_golden
@pytest.mark.parametrize("style", ["official", "tao"])
def test_a_bias_of_the_fusion_goes_into_its_batch_norm(tmp_path, official, style):
    bias = torch.linspace(-1, 1, 256)
    state = {**official, "decode_head.linear_fuse.conv.bias": bias}
    checkpoint = read_checkpoint(saved(tmp_path, as_tao(state) if style == "tao" else state))
    fusion = {key.removeprefix("head.fusion."): value for key, value in checkpoint.state.items()}
    x = torch.randn(2, 1024, 3, 4, generator=torch.Generator().manual_seed(0))
    order = torch.cat([torch.arange(256 * stage, 256 * (stage + 1)) for stage in (3, 2, 1, 0)])
    norm = [official[f"decode_head.linear_fuse.bn.{name}"] for name in NORM]
    stored = torch.nn.functional.conv2d(x, official["decode_head.linear_fuse.conv.weight"], bias)
    expected = torch.nn.functional.batch_norm(stored, *norm)
    answer = torch.nn.functional.conv2d(x[:, order], fusion["conv.weight"])
    answer = torch.nn.functional.batch_norm(answer, *[fusion[f"bn.{name}"] for name in NORM])
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(fusion["bn.running_mean"], official["decode_head.linear_fuse.bn.running_mean"])


NORM = ("running_mean", "running_var", "weight", "bias")


def test_the_demo_weights_tell_classes_and_terms():
    checkpoint = read_checkpoint(demo_checkpoint())
    assert (checkpoint.style, checkpoint.size, checkpoint.name) == ("mmseg", "b0", str(demo_checkpoint()))
    assert checkpoint.classes[:2] == ("sky", "building")
    assert checkpoint.palette[10] == (0, 128, 192)
    assert "no commercial use" in checkpoint.licence
    assert checkpoint.sha256 == hashlib.sha256(demo_checkpoint().read_bytes()).hexdigest()
    assert demo_checkpoint().stat().st_size < 8_000_000


def test_the_demo_weights_are_those_of_the_training(tmp_path):
    original = FOLDER.parent / "weights" / "segformer_b0_camvid.pth"
    if not original.is_file():
        pytest.skip(f"the trained weights are not at {original}")
    trained, shipped = read_checkpoint(original), read_checkpoint(demo_checkpoint())
    assert trained.config == shipped.config
    for key, tensor in trained.state.items():
        torch.testing.assert_close(shipped.state[key], tensor, rtol=1e-3, atol=1e-6)
