"""Networks with sigmoids, from the picture's file to labels and masks: what torch computes of the network itself."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from sfpp.export import export_onnx
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.checkpoints.sigmoid import threshold_of, without_background
from sfpp.export.cli import describe
from sfpp.export.demo import demo_checkpoint, demo_frame
from sfpp.export.models.segformer import SegFormer
from sfpp.export.to_onnx import learned_model
from sfpp.runtime import load, read_image, write_image
from sfpp.runtime.errors import CheckpointError, UsageError
from tests.golden import FOLDER, GoldenCase

SIZE_HW = (96, 160)
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
TINY = {"hidden_sizes": [8, 16, 20, 24], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 6]}
NAMES, RED = ("background", "road"), [[0, 0, 0], [255, 0, 0]]
CONFIG = "model = dict(decode_head=dict(type='SegformerHead', num_classes=2, out_channels=1, threshold=0.3))"
ROAD = 3


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A street, as a file of the model's size."""
    image = read_image(demo_frame())
    height, width = (side // size for side, size in zip(image.shape[:2], SIZE_HW, strict=True))
    path = tmp_path_factory.mktemp("picture") / "street.png"
    write_image(path, np.ascontiguousarray(image[::height, ::width][: SIZE_HW[0], : SIZE_HW[1]]))
    return path


def road_weights(folder, meta, *, rows=(ROAD,)):
    """Write the demonstration's network with some of its outputs, as MMSegmentation keeps one with sigmoids."""
    tensors = load_file(demo_checkpoint())
    for part in ("weight", "bias"):
        values = tensors[f"decode_head.conv_seg.{part}"]
        # Less what is likely anywhere, so that the answer is sometimes one thing and sometimes the other.
        tensors[f"decode_head.conv_seg.{part}"] = values[list(rows)] - values.mean(0)
    path = folder / "road.pth"
    torch.save({"state_dict": tensors, "meta": meta}, path)
    return path


def pixels(path):
    """The picture as the networks were trained to see it, (1, 3, height, width)."""
    normalized = (read_image(path)[..., ::-1] - MEAN) / STD
    return torch.from_numpy(normalized.astype(np.float32)).permute(2, 0, 1)[None]


def probability(network, path):
    """(outputs, height, width): what torch says of a picture."""
    with torch.inference_mode():
        logits = network(pixels(path))
        return torch.sigmoid(F.interpolate(logits, size=SIZE_HW, mode="bilinear", align_corners=False))[0].numpy()


def assert_same(found, probability, threshold):
    """Equal everywhere but in ties, and both answers occur."""
    expected = probability > threshold
    assert 0.05 < expected.mean() < 0.95
    decided = np.abs(probability - threshold) > 1e-5
    np.testing.assert_array_equal(found[decided], expected[decided])


def exported(weights, folder, **settings):
    return export_onnx(weights, folder / "model.onnx", res=f"{SIZE_HW[1]}x{SIZE_HW[0]}", **settings)


def answered(report, path):
    with load(report.path, backend="onnxruntime", precision="fp32") as model:
        return model(read_image(path))


@pytest.fixture(scope="module")
def transformers_one(tmp_path_factory, picture):
    """A Transformers model with one output, and the folder that it was saved in."""
    transformers = pytest.importorskip("transformers", reason="the Transformers library is not installed")
    torch.manual_seed(4)
    config = transformers.SegformerConfig(num_labels=1, decoder_hidden_size=32, **TINY)
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for tensor in (each for each in model.parameters() if each.ndim > 1):
            tensor.normal_(std=(2.0 / tensor[0].numel()) ** 0.5)
        logits = model(pixel_values=pixels(picture)).logits
        model.decode_head.classifier.bias.sub_(logits.median())
    folder = tmp_path_factory.mktemp("transformers")
    model.save_pretrained(folder)
    return (lambda image: model(pixel_values=image).logits), folder


@pytest.mark.parametrize(("threshold", "output"), [(None, "logits"), (0.6, "labels")])
def test_a_transformers_network_with_one_label(transformers_one, tmp_path, picture, threshold, output):
    network, folder = transformers_one
    report = exported(folder, tmp_path, threshold=threshold, output=output)
    found = answered(report, picture)
    assert found.classes == ("background", "foreground")
    assert found.palette[0] == (0, 0, 0)
    assert max(found.palette[1]) == 255
    assert_same(found.labels, probability(network, picture)[0], threshold or 0.5)
    told = "(the default; --threshold sets another)" if threshold is None else "(--threshold)"
    assert f"one output with a sigmoid: background, foreground above {threshold or 0.5} {told}" in describe(report)


@pytest.mark.parametrize(("given", "output", "target"), [(None, "logits", "portable"), (0.7, "labels", "onnxruntime")])
def test_a_network_of_mmsegmentation_with_one_output(tmp_path, picture, given, output, target):
    weights = road_weights(tmp_path, {"config": CONFIG, "CLASSES": NAMES, "PALETTE": RED})
    report = exported(weights, tmp_path, threshold=given, output=output, target=target)
    threshold = given or 0.3
    contract = report.contract
    assert (contract.classes, contract.palette) == (NAMES, ((0, 0, 0), (255, 0, 0)))
    assert (contract.threshold, contract.multi_label) == (threshold, False)
    found = answered(report, picture)
    checkpoint = read_checkpoint(weights)
    config, state = without_background(checkpoint.config, checkpoint.state)
    network = SegFormer(config)
    network.load_state_dict(state, strict=False)
    expected = probability(network.eval(), picture)
    assert expected.shape == (1, *SIZE_HW)
    assert_same(found.labels, expected[0], threshold)
    source = "meta.config" if given is None else "--threshold"
    assert f"one output with a sigmoid: background, road above {threshold} ({source})" in describe(report)
    if output == "logits":  # as the contract's documentation says
        with load(report.path, backend="onnxruntime", precision="fp32") as model:
            prepared = model.prepare(read_image(picture))
            background, road = model.infer(prepared)["logits"][0]
        np.testing.assert_allclose(1 / (1 + np.exp(-background)), threshold, atol=1e-6)
        with torch.inference_mode():
            np.testing.assert_allclose(road, network(pixels(picture))[0, 0].numpy(), atol=1e-4)


def test_what_is_read_has_the_background_first(tmp_path):
    weights = road_weights(tmp_path, {})
    checkpoint = read_checkpoint(weights, threshold=0.8)
    trained = torch.load(weights)["state_dict"]
    for part in ("weight", "bias"):
        background, road = checkpoint.state[f"head.classifier.{part}"]
        assert torch.equal(road, trained[f"decode_head.conv_seg.{part}"][0])
        assert torch.all(background == (0.0 if part == "weight" else torch.tensor(math.log(4))))
    assert (checkpoint.outputs, checkpoint.config.head.classes, checkpoint.threshold) == (2, 2, 0.8)


def test_an_edaformer_with_one_output(tmp_path):
    if not FOLDER.is_dir():
        pytest.skip(f"no golden cases in {FOLDER}")
    state = GoldenCase("edaformer_t_2211-222_256x320").state_dict()
    classifier = next(key for key in state if key.endswith("linear_pred.weight")).removesuffix("weight")
    for part in ("weight", "bias"):
        state[classifier + part] = state[classifier + part][:1]
    torch.save(state, tmp_path / "eda.pth")
    checkpoint = read_checkpoint(tmp_path / "eda.pth")
    assert (checkpoint.family, checkpoint.outputs, checkpoint.threshold) == ("edaformer", 2, 0.5)
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = learned_model(checkpoint)(image)
    assert torch.all(logits[:, 0] == 0)
    assert logits[:, 1].std() > 0


@pytest.mark.parametrize(
    ("meta", "names", "palette"),
    [
        ({"CLASSES": NAMES, "PALETTE": RED}, NAMES, ((0, 0, 0), (255, 0, 0))),
        (
            {"dataset_meta": {"classes": ["crack"], "palette": [[1, 2, 3]]}},
            ("background", "crack"),
            ((0, 0, 0), (1, 2, 3)),
        ),
        ({"CLASSES": ["a", "b", "c"]}, ("background", "foreground"), None),
        ({"PALETTE": [[9, 9, 9]]}, ("background", "foreground"), ((0, 0, 0), (9, 9, 9))),
    ],
)
def test_names_and_colors(tmp_path, meta, names, palette):
    classes = read_checkpoint(road_weights(tmp_path, meta)).class_set()
    assert classes.names == names
    assert palette is None or classes.palette == palette
    assert classes.palette[0] == (0, 0, 0) != classes.palette[1]


@pytest.mark.parametrize(
    ("names", "expected"), [("crack\n", ("background", "crack")), ("ok\ncrack\n", ("ok", "crack"))]
)
def test_a_class_file_names_one_or_both(tmp_path, names, expected):
    (tmp_path / "names.txt").write_text(names)
    report = exported(road_weights(tmp_path, {}), tmp_path, classes=tmp_path / "names.txt")
    assert report.contract.classes == expected


def test_a_class_file_with_more_names_is_refused(tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    with pytest.raises(UsageError, match="names 3 classes, but the model has 2"):
        exported(road_weights(tmp_path, {}), tmp_path, classes=tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("meta", "value", "source"),
    [
        ({"cfg": CONFIG}, 0.3, "meta.cfg"),
        ({"cfg": "t = 0.25\nhead = dict(threshold=t)\nmodel = dict(type='A', decode_head=head)"}, 0.25, "meta.cfg"),
        ({"config": "model = {'decode_head': {'threshold': 0.7}}"}, 0.7, "meta.config"),
        ({"cfg": "base = dict(threshold=0.2)\nmodel = dict(decode_head=dict(channels=1, **base))"}, 0.2, "meta.cfg"),
        ({"cfg": "a = dict(threshold=0.2)\nmodel = dict(decode_head={'threshold': 0.4, **a})"}, 0.2, "meta.cfg"),
        ({"cfg": "model = dict(decode_head=dict(threshold=None))"}, 0.3, "MMSegmentation's default"),
        ({"cfg": "model = dict(auxiliary_head=dict(threshold=0.9))\nthreshold = 0.8"}, 0.3, "MMSegmentation's default"),
        ({"cfg": 5}, 0.3, "MMSegmentation's default"),
        ({}, 0.3, "MMSegmentation's default"),
    ],
)
def test_where_the_threshold_is_from(meta, value, source):
    found = threshold_of(meta, "mmseg", "road.pth")
    assert (found.value, found.source) == (value, source)


def test_other_libraries_say_no_threshold():
    found = threshold_of({}, "transformers", "model")
    assert (found.value, found.source) == (0.5, "")


@pytest.mark.parametrize("value", ["1.0", "0", "-0.3", "True", "'0.3'", "half()", "unknown", "float('nan')", "1e400"])
def test_a_threshold_that_cannot_be(value):
    config = f"model = dict(decode_head=dict(threshold={value}))"
    with pytest.raises(CheckpointError, match=r"m\.pth: meta\.cfg has the decode_head\.threshold .* --threshold"):
        threshold_of({"cfg": config}, "mmseg", "m.pth")


@pytest.mark.parametrize("text", ["model = dict(decode_head=", "_base_ = ['a.py']\nmodel = dict(decode_head=dict())"])
def test_a_config_that_cannot_be_read_is_asked_about(tmp_path, text):
    weights = road_weights(tmp_path, {"cfg": text})
    with pytest.raises(CheckpointError, match=r"meta\.cfg cannot be read, since .*: give .* with --threshold"):
        read_checkpoint(weights)
    assert read_checkpoint(weights, threshold=0.4).threshold == 0.4


def test_code_in_a_config_is_not_run(tmp_path):
    opened = f"open({str(tmp_path / 'made')!r}, 'w')"
    config = f"{opened}\nmodel = dict(decode_head=dict(threshold={opened}))"
    with pytest.raises(CheckpointError):
        threshold_of({"cfg": config}, "mmseg", "m.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("output", ["logits", "labels"])
def test_several_outputs_with_sigmoids(tmp_path, picture, output):
    threshold, rows = 0.7, (ROAD, 0, 6)
    weights = road_weights(tmp_path, {"CLASSES": ("road", "sky", "sign")}, rows=rows)
    report = exported(weights, tmp_path, multi_label=True, threshold=threshold, output=output)
    contract = report.contract
    assert (contract.threshold, contract.multi_label) == (threshold, True)
    assert contract.outputs[0].kind == {"logits": "logits", "labels": "masks"}[output]
    found = answered(report, picture)
    expected = probability(learned_model(read_checkpoint(weights)), picture)
    assert found.masks.shape == (3, *SIZE_HW)
    assert_same(found.masks, expected, threshold)
    assert (found.masks.sum(0) > 1).any()  # some pixels have several, and some none
    assert (found.labels == 255).any()
    best = expected.argmax(0) if output == "logits" else (expected > threshold).argmax(0)
    undecided = (np.abs(expected - threshold) < 1e-5).any(0) | (np.sort(expected, axis=0)[-2] > expected.max(0) - 1e-5)
    labels = np.where((expected > threshold).any(0), best, 255)
    np.testing.assert_array_equal(found.labels[~undecided], labels[~undecided])
    assert "each class with a sigmoid of its own, above 0.7" in describe(report)


def test_sigmoids_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"--multi-label is for networks with several outputs, and .* has one"):
        exported(road_weights(tmp_path, {}), tmp_path, multi_label=True)
    with pytest.raises(UsageError, match=r"--threshold is for networks with a sigmoid, and .* has 11 outputs"):
        exported(None, tmp_path, threshold=0.4)
    with pytest.raises(UsageError, match=r"--multi-label is for segmentation networks, and .* is a pose network"):
        exported(None, tmp_path, task="pose", multi_label=True)


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.1, "0.5", True, math.nan])
def test_a_threshold_is_a_probability(value):
    with pytest.raises(UsageError, match=r"--threshold is .*, expected a probability above 0 and below 1"):
        export_onnx(threshold=value)
