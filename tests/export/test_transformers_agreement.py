"""Checkpoints saved by the Transformers library: what is read from them, and that the answers are the library's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.to_onnx import learned_model
from sfpp.runtime.errors import CheckpointError

transformers = pytest.importorskip("transformers", reason="the Transformers library is not installed")

TINY = {
    "hidden_sizes": [8, 12, 20, 24],
    "depths": [1, 2, 1, 2],
    "num_attention_heads": [2, 3, 4, 6],
    "sr_ratios": [4, 4, 2, 1],
    "mlp_ratios": [2, 4, 3, 2],
    "patch_sizes": [7, 5, 3, 3],
    "strides": [4, 2, 2, 1],
    "decoder_hidden_size": 16,
}
WIDE = {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 6, 3], "decoder_hidden_size": 768}


def random_model(**settings):
    """Return a model whose every parameter and statistic matters: the library's own start has biases of zero."""
    torch.manual_seed(0)
    names = settings.pop("names", [f"thing {index}" for index in range(5)])
    config = transformers.SegformerConfig(id2label=dict(enumerate(names)), **settings)
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor.ndim == 1:
                tensor.copy_(float(name.endswith("weight")) + 0.3 * torch.randn_like(tensor))
            elif tensor.ndim > 1:
                tensor.normal_(std=(2.0 / tensor[0].numel()) ** 0.5)
    return model


@pytest.fixture(scope="module")
def tiny():
    return random_model(**TINY)


@pytest.fixture
def tiny_folder(tiny, tmp_path) -> Path:
    tiny.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def largest_difference(model, path: Path, size_hw: tuple[int, int]) -> float:
    image = torch.randn(2, 3, *size_hw, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, answer = model(pixel_values=image).logits, learned_model(read_checkpoint(path))(image)
    assert answer.shape == expected.shape
    assert expected.std() > 0.1
    return float((answer - expected).abs().max())


@pytest.mark.parametrize(
    ("settings", "size", "size_hw"),
    [
        ({}, "b0", (250, 333)),
        ({"hidden_sizes": WIDE["hidden_sizes"]}, "b1", (96, 128)),
        (WIDE, "b2", (128, 160)),
        (TINY, "custom", (97, 130)),
        ({"num_attention_heads": [2, 4, 4, 8]}, "custom", (64, 96)),
    ],
)
def test_logits_agree_with_the_library(tmp_path, settings, size, size_hw):
    model = random_model(**settings)
    model.save_pretrained(tmp_path)
    assert read_checkpoint(tmp_path).size == size
    assert largest_difference(model, tmp_path, size_hw) < 1e-4


def test_the_sizes_come_from_the_config(tiny_folder):
    checkpoint = read_checkpoint(tiny_folder)
    encoder, head = checkpoint.config.encoder, checkpoint.config.head
    assert (checkpoint.style, checkpoint.size) == ("transformers", "custom")
    assert (encoder.channels, encoder.depths) == ((8, 12, 20, 24), (1, 2, 1, 2))
    assert (encoder.heads, encoder.reductions, encoder.expansions) == ((2, 3, 4, 6), (4, 4, 2, 1), (2, 4, 3, 2))
    assert (encoder.patch_kernels, encoder.patch_strides) == ((7, 5, 3, 3), (4, 2, 2, 1))
    assert (encoder.block_eps, encoder.embed_eps) == (1e-5, 1e-5)
    assert (head.kind, head.width, head.classes) == ("official", 16, 5)


def test_class_names_come_from_the_config(tiny_folder):
    assert read_checkpoint(tiny_folder).classes == ("thing 0", "thing 1", "thing 2", "thing 3", "thing 4")
    edit_config(tiny_folder, id2label={str(index): f"LABEL_{index}" for index in range(5)})
    assert read_checkpoint(tiny_folder).classes is None


def test_class_names_are_in_the_order_of_their_numbers(tmp_path):
    names = [f"thing {index}" for index in range(12)]
    random_model(**TINY, names=names).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())["id2label"]
    edit_config(tmp_path, id2label=dict(sorted(stored.items())))  # as text: 0, 1, 10, 11, 2, ...
    assert read_checkpoint(tmp_path).classes == tuple(names)


def test_every_way_of_saving_reads_the_same(tiny, tiny_folder, tmp_path):
    expected = read_checkpoint(tiny_folder).state
    pickled, sharded, in_memory = tmp_path / "pickled", tmp_path / "sharded", tmp_path / "in_memory"
    for folder in (pickled, in_memory):
        folder.mkdir()
        shutil.copy(tiny_folder / "config.json", folder)
    from safetensors.torch import load_file

    torch.save(load_file(tiny_folder / "model.safetensors"), pickled / "pytorch_model.bin")
    torch.save(tiny.state_dict(), in_memory / "pytorch_model.bin")
    tiny.save_pretrained(sharded, max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    # A single file uses the config.json beside it.
    for path in (pickled, in_memory, sharded, tiny_folder / "model.safetensors", pickled / "pytorch_model.bin"):
        state = read_checkpoint(path).state
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_a_lone_file_of_a_published_size_needs_no_config(tmp_path):
    model = random_model()
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    checkpoint = read_checkpoint(tmp_path / "model.safetensors")
    assert (checkpoint.size, checkpoint.classes) == ("b0", None)
    assert largest_difference(model, tmp_path / "model.safetensors", (64, 64)) < 1e-4


def test_a_lone_file_of_another_size_asks_for_the_config(tiny_folder):
    (tiny_folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"channels \(8, 12, 20, 24\).* give the folder with its config\.json"):
        read_checkpoint(tiny_folder / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu', but sfpp supports 'gelu' only"),
        ({"num_channels": 4}, "num_channels gives 4, the weights 3"),
        ({"num_channels": "3"}, "num_channels '3', expected a whole number"),
        ({"num_encoder_blocks": 3}, "num_encoder_blocks 3"),
        ({"model_type": "bert"}, "model_type 'bert'"),
        ({"mlp_ratios": [2, 4, 3, 2.5]}, r"mlp_ratios \[2, 4, 3, 2.5\], expected 4 whole numbers"),
        ({"strides": [4, 2, 2]}, r"strides \[4, 2, 2\], expected 4 whole numbers"),
        ({"sr_ratios": [4, 4, 2, 0]}, "sr_ratios"),
        ({"depths": "2222"}, "depths '2222'"),
        ({"num_attention_heads": [3, 3, 4, 6]}, "8 channels, which 3 heads cannot share"),
        ({"hidden_sizes": [16, 24, 40, 48]}, r"hidden_sizes gives \(16, 24, 40, 48\), the weights \(8, 12, 20, 24\)"),
        ({"depths": [1, 2, 3, 2]}, r"depths gives \(1, 2, 3, 2\), the weights \(1, 2, 1, 2\)"),
        ({"decoder_hidden_size": 256}, "decoder_hidden_size gives 256, the weights 16"),
        ({"id2label": {"0": "road"}}, "id2label gives 1, the weights 5"),
        ({"sr_ratios": [8, 4, 2, 1]}, r"attention.self.sr.weight \(8, 8, 4, 4\), expected \(8, 8, 8, 8\)"),
    ],
)
def test_settings_that_contradict_or_are_not_supported(tiny_folder, changes, expected):
    edit_config(tiny_folder, **changes)
    with pytest.raises(CheckpointError, match=expected):
        read_checkpoint(tiny_folder)


def test_settings_that_are_irrelevant(tiny_folder):
    edit_config(
        tiny_folder,
        mlp_ratios=[2.0, 4.0, 3.0, 2.0],
        layer_norm_eps=0.5,
        semantic_loss_ignore_index=0,
        reduce_labels=True,
    )
    assert read_checkpoint(tiny_folder).config.encoder.block_eps == 1e-5


def test_a_config_that_is_not_json(tiny_folder):
    (tiny_folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        read_checkpoint(tiny_folder)


def test_a_classifier_and_a_bare_encoder_have_no_head(tmp_path):
    config = transformers.SegformerConfig(num_labels=7)
    transformers.SegformerForImageClassification(config).save_pretrained(tmp_path / "classifier")
    transformers.SegformerModel(config).save_pretrained(tmp_path / "encoder")
    with pytest.raises(CheckpointError, match=r"without a segmentation head .*found instead classifier\.bias"):
        read_checkpoint(tmp_path / "classifier")
    with pytest.raises(CheckpointError, match="Transformers style without a segmentation head"):
        read_checkpoint(tmp_path / "encoder")
