import dataclasses

import pytest

from sfpp.export.catalog import export_command
from tests.runtime.video.clips import CONTRACT


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
