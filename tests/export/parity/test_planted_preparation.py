"""Each fact of a preparation that a file has otherwise than its checkpoint is named, by itself and in the report."""

import dataclasses

import onnx
import pytest
import torch
from safetensors.torch import load_file

from sfpp.export import export_onnx
from sfpp.export.checkpoints.storage import StoredWeights
from sfpp.export.checkpoints.stored_preparation import read_preparation
from sfpp.export.demo import demo_checkpoint, demo_image
from sfpp.export.parity import parity
from sfpp.export.parity.reference import _fits, reference_for
from sfpp.export.parity.report_text import report_text
from sfpp.export.parity.settings import ParitySettings
from sfpp.export.settings import Resolution
from tests.export.parity.planted import contract_of, with_contract

MEAN, STD = (110.0, 120.0, 130.0), (60.0, 70.0, 80.0)
CONFIG = """
model = dict(
    data_preprocessor=dict(bgr_to_rgb=False, mean=[110, 120, 130], std=[60, 70, 80], type='SegDataPreProcessor'),
    decode_head=dict(align_corners=True, type='SegformerHead'))
test_pipeline = [dict(type='LoadImageFromFile'), dict(keep_ratio=False, scale=(192, 128), type='Resize')]
"""
DIFFERS = {
    "mean": ("the file has 90 90 90, the checkpoint's training 110 120 130", "--mean 90 90 90"),
    "std": ("the file has 9 9 9, the checkpoint's training 60 70 80", "--std 9 9 9"),
    "color_order": ("the file has RGB, the checkpoint's training BGR", "--color-order RGB"),
    "resize": ("the file has letterbox, the checkpoint's training stretch", "--resize letterbox"),
    "interpolation": ("the file has antialias, the checkpoint's training linear", "--interpolation antialias"),
    "align_corners": ("the file has False, the checkpoint's training True", "--no-align-corners"),
}
CAUSES = {
    "mean": "with the contract's mean and std it agrees - mean/std differ: contract says mean (90, 90, 90) and std",
    "std": "with the contract's mean and std it agrees - mean/std differ: contract says mean (110, 120, 130) and",
    "color_order": "with red and blue exchanged it agrees - the color order is wrong (the contract says RGB, the",
    "resize": "with the contract's resize letterbox it agrees - resize: contract says letterbox, training stretch",
    "interpolation": "with the contract's interpolation antialias it agrees - interpolation: contract says antialias",
}
WRONG = {
    "mean": {"mean": (90.0,) * 3},
    "std": {"std": (9.0,) * 3},
    "color_order": {"color_order": "RGB"},
    "resize": {"resize": "letterbox"},
    "interpolation": {"interpolation": "antialias"},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "iter.pth"
    torch.save({"state_dict": load_file(demo_checkpoint()), "meta": {"cfg": CONFIG}}, path)
    return path


@pytest.fixture(scope="module")
def model(weights, tmp_path_factory):
    lines = []
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    report = export_onnx(weights, path, input="float32", notify=lines.append)
    assert (
        "prepared as in training: mean 110 120 130, std 60 70 80, BGR, resize stretch 192x128, interpolation linear, "
        "align_corners True (meta.cfg)" in lines
    )
    spec = report.contract.input
    assert (spec.mean, spec.std, spec.color_order, spec.channels) == (MEAN, STD, "BGR", 3)
    assert (spec.width, spec.height, spec.resize, spec.interpolation) == (192, 128, "stretch", "linear")
    assert report.contract.outputs[0].align_corners
    return path


def plant(model, path, fact):
    if fact != "align_corners":
        return with_contract(model, path, input=WRONG[fact])
    (output,) = contract_of(onnx.load(model)).outputs
    return with_contract(model, path, outputs=(dataclasses.replace(output, align_corners=False),))


def test_a_file_as_the_checkpoint_says_agrees(model, weights):
    report = parity(model, weights=weights, frames=1)
    assert (report.agrees, report.failures, report.place) == (True, (), None)


@pytest.mark.parametrize("fact", DIFFERS)
def test_each_fact_is_named(model, weights, tmp_path, fact):
    report = parity(plant(model, tmp_path / "faulty.onnx", fact), weights=weights, frames=1)
    assert not report.agrees
    values, option = DIFFERS[fact]
    expected = f"{fact} differs: {values} (meta.cfg); if the file is right, give {option}"
    assert [each for each in report.failures if " differs: the file has " in each] == [expected]
    text = report_text(report)
    assert "DISAGREES" in text
    assert expected in text
    # Not by its words alone: the picture shows it too, but for what moves few labels.
    if fact in CAUSES:
        assert report.place.startswith(f"the input already differs: {CAUSES[fact]}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (90, 90, 90)}, "mean differs: the file has 110 120 130, the checkpoint's training 90 90 90 (--mean)"),
        ({"std": (9, 9, 9)}, "std differs: the file has 60 70 80, the checkpoint's training 9 9 9 (--std)"),
        (
            {"resize": "letterbox"},
            "resize differs: the file has stretch, the checkpoint's training letterbox (--resize)",
        ),
        (
            {"interpolation": "area"},
            "interpolation differs: the file has linear, the checkpoint's training area (--int",
        ),
        (
            {"align_corners": False},
            "align_corners differs: the file has True, the checkpoint's training False (--no-al",
        ),
        ({"res": "96x64"}, "size differs: the file has 192x128, the checkpoint's training 96x64 (--res; meta.cfg says"),
        (
            {"color_order": "RGB", "mean": MEAN, "std": STD},
            "color_order differs: the file has BGR, the checkpoint's training RGB (--color-order)",
        ),
    ],
)
def test_an_option_overrules_the_checkpoint(model, weights, options, words):
    reference = reference_for(contract_of(onnx.load(model)), weights, ParitySettings(model, **options))
    (mismatch,) = reference.mismatches()
    assert mismatch.startswith(words)


def test_a_file_that_was_exported_with_options_agrees_with_the_same(weights, tmp_path):
    options = {
        "mean": (100, 100, 100), "std": (50, 50, 50), "color_order": "RGB", "resize": "letterbox",
        "interpolation": "area", "align_corners": False, "res": "160x96",
    }  # fmt: skip
    path = export_onnx(weights, tmp_path / "other.onnx", **options).path
    assert parity(path, weights=weights, frames=1, **options).agrees
    report = parity(path, weights=weights, frames=1)
    assert [failure.partition(" differs")[0] for failure in report.failures[:7]] == [
        "mean", "std", "color_order", "resize", "interpolation", "align_corners", "size",
    ]  # fmt: skip


def test_a_file_of_another_size_is_named(weights, tmp_path):
    path = export_onnx(weights, tmp_path / "small.onnx", res="96x64").path
    report = parity(path, weights=weights, frames=1)
    assert report.failures == (
        "size differs: the file has 96x64, the checkpoint's training 192x128 (meta.cfg); if the file is right, give "
        "--res 96x64",
    )
    assert report.place == report.failures[0]
    assert parity(path, weights=weights, frames=1, res="96x64").agrees


@pytest.mark.parametrize(
    ("size", "divisor", "fits"),
    [
        ((2048, 512), 1, True),
        ((910, 512), 1, True),  # a frame of 16:9 in that box
        ((928, 512), 32, True),  # the same, rounded up
        ((512, 910), 1, True),
        ((512, 512), 1, True),
        ((1920, 1080), 1, False),
        ((2048, 500), 1, True),
        ((1024, 256), 1, False),
    ],
)
def test_sizes_that_fit_a_box(tmp_path, size, divisor, fits):
    text = CONFIG.replace("keep_ratio=False, scale=(192, 128)", "keep_ratio=True, scale=(2048, 512)")
    text += f"data_preprocessor = dict(test_cfg=dict(size_divisor={divisor}))"
    stored = StoredWeights(tmp_path, tmp_path, {}, {"cfg": text}, "")
    assert _fits(Resolution(*size), read_preparation(stored, "mmseg")) is fits


def test_what_nothing_says_is_the_files_own(tmp_path):
    path = export_onnx(path=tmp_path / "model.onnx", res="96x64", resize="stretch", interpolation="linear").path
    reference = reference_for(contract_of(onnx.load(path)), None)
    assert reference.mismatches() == ()
    assert (reference.spec.resize, reference.spec.interpolation) == ("stretch", "linear")
    assert parity(path, frames=1, images=demo_image("segmentation")).agrees


def test_a_wrong_fact_of_a_file_whose_checkpoint_says_nothing(tmp_path):
    path = export_onnx(path=tmp_path / "model.onnx", res="96x64").path
    report = parity(with_contract(path, tmp_path / "odd.onnx", input={"mean": (90.0, 90.0, 90.0)}), frames=1)
    assert report.failures[0] == (
        "mean differs: the file has 90 90 90, the checkpoint's training 123.675 116.28 103.53 (the default, as the "
        "checkpoint says nothing); if the file is right, give --mean 90 90 90"
    )
