"""An export as a caller meets it: names, options, contract, checkpoints of every style, and nothing half written."""

import dataclasses
import errno
import hashlib
import json
from importlib import metadata

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from sfpp.export import export_onnx, to_onnx
from sfpp.export.catalog import MIT_SIZES, VARIANTS, words_from_recipe
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.checkpoints.conversion import canonical_slots, stages_reversed
from sfpp.export.checkpoints.styles import STYLES
from sfpp.export.cli import describe
from sfpp.export.contracts import input_spec
from sfpp.export.demo import demo_checkpoint, demo_frame
from sfpp.export.models.segformer import EncoderConfig, HeadConfig, SegFormer, SegFormerConfig
from sfpp.export.settings import ExportSettings, PreparationOptions
from sfpp.runtime import load_segmenter
from sfpp.runtime.contract import METADATA_KEY, contract_from_json
from sfpp.runtime.errors import CheckpointError, MediaError, MemoryShortageError, RecipeError, SfppError, UsageError
from sfpp.runtime.images import input_from_frame
from sfpp.runtime.pixels.pictures import read_image

RES = "160x128"
CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The demonstration model with every option left alone but the size."""
    told = []
    path = tmp_path_factory.mktemp("plain") / "model.onnx"
    return export_onnx(path=path, variant="fast", res=RES, notify=told.append), told


def contract_in(path):
    stored = {each.key: each.value for each in onnx.load(path).metadata_props}
    return contract_from_json(stored[METADATA_KEY])


def signature(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [(each.name, each.type, each.shape) for each in (*session.get_inputs(), *session.get_outputs())]


def test_the_report_tells_what_was_made(plain):
    report, told = plain
    assert report.size_bytes == report.path.stat().st_size > 10_000_000
    assert [each.partition(" ")[0] for each in told] == ["reading", "tracing", "checking", "adding", "writing"]
    assert "160x128" in told[1]
    assert all(line.endswith(" ...") for line in told)
    assert list(report.seconds) == [line.removesuffix(" ...") for line in told]
    assert all(0 < seconds < 600 for seconds in report.seconds.values())
    # grids 32x40, 16x20, 8x10, 4x5; keys and values on 4x5, of which 1 token is a destination and 1 stays
    grids = [(stage.grid_hw, stage.key_value_grid_hw, stage.query, stage.key_value) for stage in report.planned_tokens]
    assert grids == [
        ((32, 40), (4, 5), 1280, 2),
        ((16, 20), (4, 5), 320, 2),
        ((8, 10), (4, 5), 8, 20),
        ((4, 5), (4, 5), 2, 20),
    ]


def test_the_contract_is_in_the_file_and_right(plain):
    report, _ = plain
    contract = contract_in(report.path)
    assert contract == report.contract
    assert (contract.task, contract.family, contract.size, contract.variant) == (
        "segmentation",
        "segformer",
        "b0",
        "fast",
    )
    assert contract.recipe == words_from_recipe(VARIANTS["fast"])
    assert (contract.matching, contract.precision, contract.target, contract.opset) == ("exact", "fp32", "portable", 17)
    spec = contract.input
    assert (spec.name, spec.shape, spec.dtype, spec.layout) == ("frame", (1, 128, 160, 3), "uint8", "NHWC")
    assert (spec.color_order, spec.normalized_in_graph, spec.resize) == ("RGB", True, "letterbox")
    assert (spec.mean, spec.std) == ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    assert [(each.name, each.kind, each.stride) for each in contract.outputs] == [("logits", "logits", 4)]
    assert list(contract.classes) == CAMVID
    assert contract.palette[0] == (128, 128, 128)
    assert contract.checkpoint_sha256 == hashlib.sha256(demo_checkpoint().read_bytes()).hexdigest()
    assert "no commercial use" in contract.licence
    assert contract.sfpp_version == metadata.version("sfpp")
    model = onnx.load(report.path)
    assert (model.producer_name, model.producer_version) == ("sfpp", metadata.version("sfpp"))


def test_the_graph_keeps_the_contract(plain):
    assert signature(plain[0].path) == [
        ("frame", "tensor(uint8)", [1, 128, 160, 3]),
        ("logits", "tensor(float)", [1, 11, 32, 40]),
    ]


def test_two_exports_are_the_same_bytes(tmp_path, plain):
    again = export_onnx(path=tmp_path / "again.onnx", variant="fast", res=(160, 128))
    assert again.path.read_bytes() == plain[0].path.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.onnx"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"output": "labels", "variant": "2x2"},
            [("frame", "tensor(uint8)", [1, 128, 160, 3]), ("labels", "tensor(uint8)", [1, 128, 160])],
        ),
        (
            {"input": "float32", "batch": 2, "resize": "stretch"},
            [("image", "tensor(float)", [2, 3, 128, 160]), ("logits", "tensor(float)", [2, 11, 32, 40])],
        ),
        (
            {"variant": "downsample", "opset": 18},
            [("frame", "tensor(uint8)", [1, 128, 160, 3]), ("logits", "tensor(float)", [1, 11, 16, 20])],
        ),
    ],
    ids=["labels", "float32 batch", "downsample"],
)
def test_options_reach_graph_and_contract(tmp_path, options, expected):
    report = export_onnx(path=tmp_path / "model.onnx", res=RES, **options)
    assert signature(report.path) == expected
    contract = contract_in(report.path)
    assert contract == report.contract
    spec, output = contract.input, contract.outputs[0]
    assert (spec.name, list(spec.shape)) == (expected[0][0], expected[0][2])
    assert (spec.dtype, spec.normalized_in_graph) == (("float32", False) if "input" in options else ("uint8", True))
    assert (spec.resize, contract.opset) == (options.get("resize", "letterbox"), options.get("opset", 17))
    assert (output.name, output.kind) == (expected[1][0], options.get("output", "logits"))
    assert output.stride == {"2x2": 1, "downsample": 8}.get(contract.variant, 4)


@pytest.mark.parametrize(
    ("changes", "spec", "name"),
    [
        ({}, {}, "segformer-b0-hq-160x128.onnx"),
        ({"output": "labels"}, {"batch": 4}, "segformer-b0-hq-160x128-labels-batch4.onnx"),
        ({}, {"dtype": "float32"}, "segformer-b0-hq-160x128-float32.onnx"),
        ({"variant": "mine"}, {"width": 3840, "height": 2160}, "segformer-b0-mine-3840x2160.onnx"),
    ],
)
def test_default_names_say_what_is_inside(plain, changes, spec, name):
    contract = plain[0].contract
    outputs = (dataclasses.replace(contract.outputs[0], kind=changes.pop("output", "logits")),)
    changed = dataclasses.replace(
        contract, **{"variant": "hq", "outputs": outputs, **changes}, input=dataclasses.replace(contract.input, **spec)
    )
    assert to_onnx.default_name(changed) == name


def test_without_a_path_the_file_is_named_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = export_onnx(res="64x64")
    assert str(report.path) == "segformer-b0-original-64x64.onnx"
    assert [path.name for path in tmp_path.iterdir()] == [report.path.name]


@pytest.mark.parametrize("output", ["logits", "labels"])
def test_corners_are_aligned_from_the_option_to_the_labels(tmp_path, output):
    """As MMSegmentation answers for a picture of the input's size; another network than without the option."""
    report = export_onnx(path=tmp_path / "model.onnx", align_corners=True, output=output, res="133x98")
    assert report.contract.outputs[0].align_corners
    assert not report.parity.failures()
    frame_bgr = cv2.resize(read_image(demo_frame()), (133, 98))
    checkpoint, answers = read_checkpoint(demo_checkpoint()), []
    spec = dataclasses.replace(report.contract.input, layout="NCHW", dtype="float32", normalized_in_graph=False)
    image = torch.from_numpy(input_from_frame(frame_bgr, spec)[0])
    for aligned in (True, False):
        model = to_onnx.learned_model(checkpoint.overruled(PreparationOptions(align_corners=aligned)))
        assert model.head.align_corners == aligned
        logits = torch.nn.functional.interpolate(model(image), (98, 133), mode="bilinear", align_corners=aligned)
        answers.append(logits.argmax(1)[0].numpy())
    with load_segmenter(report.path, backend="onnxruntime", precision="fp32") as segmenter:
        assert segmenter.self_test.outcome == "passed"
        labels = segmenter(frame_bgr).labels
    assert np.mean(labels == answers[0]) > 0.999
    assert np.mean(labels == answers[1]) < 0.995


def random_state(style, size, *, width, classes):
    """A checkpoint of random weights, as the style's own training code would have saved it."""
    config = SegFormerConfig(EncoderConfig(*MIT_SIZES[size]), HeadConfig(style.head, width, classes))
    torch.manual_seed(41)
    network = SegFormer(config).state_dict()
    state = {}
    for slot in canonical_slots(config):
        value = network[slot.key].uniform_(0.5, 1.5) if slot.param == "running_var" else network[slot.key]
        if style.fused_last_first and slot.key == "head.fusion.conv.weight":
            value = stages_reversed(value, widths=(width,) * 4)
        prefix = "decode_head." if slot.key.startswith("head.") else style.encoder_prefix
        parts = style.table[slot.module]
        for part, rows in zip(parts, value.chunk(len(parts)), strict=True):
            state.setdefault(prefix + part.key(slot.param, slot.i, slot.j), {})[part.index] = rows
    return {key: torch.cat([rows[index] for index in sorted(rows)]) for key, rows in state.items()}


@pytest.mark.parametrize(
    ("style", "size", "width", "classes"),
    [
        (STYLES["official"], "b1", 256, 150),
        pytest.param(STYLES["official"], "b2", 768, 19, marks=pytest.mark.slow),
        pytest.param(STYLES["mmseg"], "b1", 256, 21, marks=pytest.mark.slow),
    ],
)
def test_checkpoints_of_the_authors_export(tmp_path, style, size, width, classes):
    torch.save({"state_dict": random_state(style, size, width=width, classes=classes)}, tmp_path / "weights.pth")
    report = export_onnx(tmp_path / "weights.pth", tmp_path / "model.onnx", variant="hq", res="160x128")
    assert (report.contract.size, len(report.contract.classes)) == (size, classes)
    assert report.contract.classes[-1] == f"class {classes - 1}"
    assert (report.contract.licence, len(report.contract.palette)) == ("", classes)
    assert len(report.parity.tokens) == sum(MIT_SIZES[size][1])
    assert signature(report.path)[1][2] == [1, classes, 32, 40]


def test_a_transformers_folder_of_any_sizes_exports(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the Transformers library is not installed")
    torch.manual_seed(42)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 12, 20, 24],
        depths=[1, 2, 1, 1],
        num_attention_heads=[2, 3, 4, 6],
        sr_ratios=[4, 4, 2, 1],
        patch_sizes=[7, 5, 3, 3],
        strides=[2, 2, 2, 1],
        decoder_hidden_size=16,
        id2label={0: "lane", 1: "rest"},
    )
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "tiny")
    preprocessor = {"image_mean": [0.5, 0.4, 0.2], "image_std": [0.5, 0.5, 0.25]}
    (tmp_path / "tiny" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    report = export_onnx(tmp_path / "tiny", tmp_path / "model.onnx", variant="2x2", res="96x70")
    assert (report.contract.size, report.contract.classes) == ("custom", ("lane", "rest"))
    assert report.contract.outputs[0].stride == 2
    assert report.contract.input.mean == (127.5, 102.0, 51.0)
    assert report.contract.input.std == (127.5, 127.5, 63.75)
    assert signature(report.path)[1][2] == [1, 2, 35, 48]
    assert [each.query for each in report.parity.tokens] == [18 * 24, 9 * 12, 9 * 12, 5 * 6, 5 * 6]


def test_classes_of_ones_own(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"thing {index}" for index in range(11)))
    report = export_onnx(path=tmp_path / "model.onnx", res="64x64", classes=names)
    assert contract_in(report.path).classes == tuple(f"thing {index}" for index in range(11))


def test_too_many_classes_for_labels(tmp_path):
    torch.save(random_state(STYLES["mmseg"], "b0", width=8, classes=257), tmp_path / "weights.pth")
    expected = r"weights\.pth has 257 classes, expected 1 to 256, since labels are uint8; give a network"
    with pytest.raises(CheckpointError, match=expected):
        export_onnx(tmp_path / "weights.pth", tmp_path / "model.onnx", res="64x64")


BIG_CELL = [{}, {}, {}, {"q_mode": "bsm", "q_r": 0.5, "q_sx": 2, "q_sy": 5}]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"res": "0x0"}, UsageError, "--res is 0x0"),
        ({"res": "3840"}, UsageError, "expected WIDTHxHEIGHT"),
        ({"res": "16x160"}, UsageError, r"--res 16x160 \(width x height\) is too small: stage 1"),
        ({"res": "160x28"}, UsageError, "too small: stage 1 .* at least 32 pixels on each side"),
        ({"res": "160x57", "variant": "downsample"}, UsageError, "at least 64 pixels on each side"),
        ({"variant": "fsat"}, UsageError, "did you mean 'fast'"),
        ({"variant": "nowhere.json"}, UsageError, "the recipe file nowhere.json does not exist"),
        ({"output": "mask"}, UsageError, "output is 'mask', expected one of logits, labels"),
        ({"input": "float16"}, UsageError, "input is 'float16', expected one of uint8, float32"),
        ({"resize": "crop"}, UsageError, "resize is 'crop', expected one of letterbox, pad, stretch"),
        ({"input": None}, UsageError, "input is None, expected one of uint8, float32"),
        ({"target": None}, UsageError, "target is None, expected one of portable"),
        ({"batch": 0}, UsageError, "batch is 0, expected a whole number from 1 to 64"),
        ({"batch": 65}, UsageError, "batch is 65"),
        ({"batch": True}, UsageError, "batch is True"),
        ({"batch": 1.0}, UsageError, "batch is 1.0"),
        ({"opset": 16}, UsageError, "opset is 16, expected 17 to 20; 17 suits"),
        ({"opset": 21}, UsageError, "opset is 21"),
        ({"opset": 17.0}, UsageError, "opset is 17.0"),
        ({"classes": "cityscapes"}, UsageError, "'cityscapes' names 19 classes, but the model has 11"),
        ({"classes": "cityscape"}, UsageError, "did you mean 'cityscapes'"),
        ({"image": "nowhere.jpg"}, MediaError, "nowhere.jpg"),
        ({"weights": "nowhere.pth"}, CheckpointError, "nowhere.pth"),
        ({"variant": "big.json"}, RecipeError, "stage 4: a cell of 5x2 tokens does not fit a grid of 4x5"),
        ({"path": "model.engine"}, UsageError, "'model.engine', expected a name that ends in .onnx"),
        ({"path": "model.json"}, UsageError, "ends in .onnx"),
        ({"path": ""}, UsageError, "ends in .onnx"),
        ({"path": "folder.onnx"}, SfppError, "it is a folder"),
        ({"path": "big.json/model.onnx"}, SfppError, "cannot write big.json/model.onnx: .*big.json is no folder"),
    ],
)
def test_what_cannot_be_meant_is_told_before_the_work(tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(to_onnx, "graph_from_model", lambda *_: pytest.fail("the export went on"))
    (tmp_path / "big.json").write_text(json.dumps(BIG_CELL))
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(error, match=message):
        export_onnx(**{"path": "model.onnx", "res": RES, **options})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.json", "folder.onnx"]
    assert list((tmp_path / "folder.onnx").iterdir()) == []


@pytest.mark.parametrize("size", ["32x32", "29x47"])
def test_the_smallest_sizes_that_are_promised_work(tmp_path, size):
    report = export_onnx(path=tmp_path / "model.onnx", res=size)
    assert [stage.key_value for stage in report.planned_tokens] == [1, 1, 1, 1] if size == "32x32" else [1, 1, 2, 4]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError("broken"), MemoryError])
@pytest.mark.parametrize("step", ["graph_from_model", "compare_with_pytorch", "require_tokens", "stored_self_test"])
def test_a_stop_on_the_way_leaves_what_was_there(tmp_path, monkeypatch, plain, step, stop):
    target = tmp_path / "model.onnx"
    target.write_bytes(b"an older export")
    expected = stop if isinstance(stop, type) else type(stop)
    if expected is MemoryError and step != "graph_from_model":
        expected = MemoryShortageError  # which says what the check takes

    def interrupted(*arguments, **options):
        raise stop

    if step != "graph_from_model":
        graph = onnx.load(plain[0].path)
        monkeypatch.setattr(to_onnx, "graph_from_model", lambda *_: graph)
    monkeypatch.setattr(to_onnx, step, interrupted)
    with pytest.raises(expected):
        export_onnx(path=target, variant="fast", res=RES)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert target.read_bytes() == b"an older export"


def test_a_full_disk_is_named(tmp_path, monkeypatch, plain):
    graph = onnx.load(plain[0].path)
    monkeypatch.setattr(to_onnx, "graph_from_model", lambda *_: graph)

    def full(model, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(SfppError, match=r"cannot write .*model\.onnx: the disk is full; nothing was left behind"):
        export_onnx(path=tmp_path / "model.onnx", variant="fast", res=RES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_check_sees_the_whole_picture_without_a_border(dtype):
    """In an empty border all tokens would be equally alike, and rounding would decide what is merged there."""
    tall = np.random.default_rng(43).integers(0, 256, (90, 30, 3), np.uint8)
    spec = input_spec(ExportSettings(res=(64, 48), input=dtype))
    example = to_onnx._example(spec, tall)
    assert (example.shape, example.dtype) == (spec.shape, np.dtype(dtype))
    expected, _ = input_from_frame(tall, dataclasses.replace(spec, resize="stretch"))
    np.testing.assert_array_equal(example, expected)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_frames_of_a_batch_differ(dtype):
    picture = np.random.default_rng(44).integers(0, 256, (48, 64, 3), np.uint8)
    spec = input_spec(ExportSettings(res=(64, 48), input=dtype, batch=3))
    example = to_onnx._example(spec, picture)
    frames = example if dtype == "uint8" else example.transpose(0, 2, 3, 1)
    mirrored = frames[0][:, ::-1]
    for index in (1, 2):
        np.testing.assert_array_equal(frames[index][:, 7 * index :], mirrored[:, : -7 * index])
    assert example.flags.c_contiguous


def test_a_picture_of_another_shape_checks_as_well(tmp_path):
    picture = cv2.GaussianBlur(np.random.default_rng(45).integers(0, 256, (300, 90, 3), np.uint8), (9, 9), 0)
    cv2.imwrite(str(tmp_path / "tall.png"), picture)
    report = export_onnx(path=tmp_path / "model.onnx", variant="hq", res=RES, image=tmp_path / "tall.png")
    assert report.parity.failures() == []


def test_a_picture_without_content_checks_as_well(tmp_path):
    """All tokens of a blank picture are nearly alike, so that any choice of what to merge is a matter of rounding."""
    cv2.imwrite(str(tmp_path / "blank.png"), np.full((64, 64, 3), 128, np.uint8))
    report = export_onnx(path=tmp_path / "model.onnx", variant="hq", res=RES, image=tmp_path / "blank.png")
    assert report.parity.failures() == []


def test_the_network_that_was_chosen_is_exported_recorded_and_told(tmp_path):
    weights = load_file(demo_checkpoint())
    averaged = {key: value / 2 if value.is_floating_point() else value for key, value in weights.items()}
    torch.save({"model": weights, "ema": averaged}, tmp_path / "weights.pth")
    report = export_onnx(tmp_path / "weights.pth", tmp_path / "ema.onnx", res="64x64", weights_key="ema")
    assert report.contract.weights_key == "ema"
    stored = {each.key: each.value for each in onnx.load(report.path).metadata_props}
    assert contract_from_json(stored[METADATA_KEY]).weights_key == "ema"
    assert "the weights are those under 'ema'; the file also holds 'model'" in report.notes[0]
    assert f"\n  note: {report.notes[0]}\n" in describe(report)
    bias = weights["decode_head.conv_seg.bias"].float().numpy() / 2
    constants = [onnx.numpy_helper.to_array(each).ravel() for each in onnx.load(report.path).graph.initializer]
    assert any(np.array_equal(each, bias) for each in constants)
