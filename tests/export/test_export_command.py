"""What is asked for and what is written down: settings to variants, contracts to command lines."""

import dataclasses

import pytest

from sfpp.export.catalog import export_command
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.contracts import variant_from
from sfpp.export.demo import demo_checkpoint
from sfpp.export.settings import ExportSettings
from sfpp.runtime.errors import UsageError
from tests.runtime.video.clips import CONTRACT

SIZED = ({"kv_mode": "kmeans", "kv_r": 0.9, "kv_size": True}, {"q_mode": "n2d", "q_s": [2, 2]})


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"variant": "fast"}, "--variant fast"),
        ({"variant": "my own"}, "--variant 'my own.json'"),
        (
            {"variant": "2x2", "matching": "local", "share_matching": 2},
            "--variant 2x2 --matching local --share-matching 2",
        ),
        ({"variant": "hq", "share_matching": 0}, "--variant hq --share-matching all"),
        ({"variant": "fast", "recipe": SIZED}, "--variant fast --size-weighted"),
        ({"variant": "fast+", "recipe": SIZED}, "--variant fast+"),
        ({"variant": "mine", "recipe": (*SIZED, {"kv_mode": "n2d", "kv_s": [2, 2]})}, "--variant mine.json"),
        ({"variant": "isr", "recipe": ({"isr": "2211-222"},)}, "--isr 2211-222"),
        ({"variant": "hq", "weights_key": "a b.ema"}, "--variant hq --weights-key 'a b.ema'"),
        ({"variant": "isr", "recipe": ({"isr": "1; reboot"},)}, "--isr '1; reboot'"),
    ],
)
def test_the_options_are_those_of_the_file(changes, options):
    contract = dataclasses.replace(CONTRACT, **changes)
    size = f"--res {contract.input.width}x{contract.input.height}"
    assert export_command(contract, weights="FILE") == f"sfpp-export --weights FILE {options} {size}"
    command = export_command(contract, "--opset 17", weights="FILE")
    assert command == f"sfpp-export --weights FILE {options} --opset 17 {size}"


def test_input_and_output_are_those_of_the_file():
    given = dataclasses.replace(CONTRACT.input, dtype="float32", batch=4, resize="stretch")
    outputs = (dataclasses.replace(CONTRACT.outputs[0], kind="labels"),)
    contract = dataclasses.replace(CONTRACT, variant="hq", input=given, outputs=outputs)
    expected = " --variant hq --output labels --input float32 --batch 4 --resize stretch --res "
    assert expected in export_command(contract, weights="FILE")


def test_target_and_opset_are_those_of_the_file_unless_others_are_wished():
    contract = dataclasses.replace(CONTRACT, variant="hq", target="openvino", opset=20)
    assert " --variant hq --target openvino --opset 20 --res " in export_command(contract, weights="FILE")
    wished = export_command(contract, "--target tensorrt", "--opset 17", weights="FILE")
    assert " --variant hq --target tensorrt --opset 17 --res " in wished


def test_images_are_prepared_as_for_the_file():
    given = dataclasses.replace(CONTRACT.input, mean=(127.5,) * 3, color_order="BGR", interpolation="linear")
    outputs = (dataclasses.replace(CONTRACT.outputs[0], align_corners=True),)
    contract = dataclasses.replace(CONTRACT, variant="hq", input=given, outputs=outputs, weights_key="ema state")
    assert (
        " --variant hq --weights-key 'ema state' --mean 127.5 127.5 127.5 --color-order BGR "
        "--interpolation linear --resize letterbox --align-corners --res "
    ) in export_command(contract, weights="FILE")


@pytest.mark.parametrize(
    ("options", "instead"),
    [
        ({"variant": "fast+"}, "take --variant fast"),
        ({"variant": "hq+"}, "take --variant hq"),
        ({"variant": "fast", "size_weighted": True}, "leave out --size-weighted"),
    ],
)
def test_a_network_that_was_trained_with_merging_is_given_no_sizes(options, instead):
    checkpoint = read_checkpoint(demo_checkpoint())
    assert variant_from(ExportSettings(**options), checkpoint).recipe.sized
    trained = dataclasses.replace(checkpoint, merging="meta.cfg, model.backbone.merging[0]")
    with pytest.raises(UsageError) as caught:
        variant_from(ExportSettings(**options), trained)
    assert "was trained with tokens merged (meta.cfg, model.backbone.merging[0])" in str(caught.value)
    assert str(caught.value).endswith(f"{instead}, or give --no-trained-with-merging if it was trained without")
    assert variant_from(ExportSettings(**options, trained_with_merging=False), trained).recipe.sized
    with pytest.raises(UsageError, match=rf"\(--trained-with-merging\).*{instead}$"):
        variant_from(ExportSettings(**options, trained_with_merging=True), checkpoint)
    assert not variant_from(ExportSettings(variant="fast", trained_with_merging=True), checkpoint).recipe.sized
