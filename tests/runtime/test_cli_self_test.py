"""`sfpp-run --self-test` as a user meets it."""

import dataclasses

import cv2
import onnx
import pytest
from onnx import helper

from sfpp.runtime import load
from sfpp.runtime.cli import main
from sfpp.runtime.contract import METADATA_KEY
from sfpp.runtime.self_test import self_test_for
from tests.runtime.people import dots
from tests.runtime.test_cli import write_model
from tests.runtime.test_cli_pose import write_pose_model
from tests.runtime.video import clips
from tests.runtime.video.clips import write_clip

FRAMES = {"model": cv2.merge([clips.picture(0)[..., 0], clips.picture(1)[..., 0], clips.picture(2)[..., 0]])}
FRAMES["pose"] = dots.picture((32, 40), size_hw=(80, 64))
CONTRACTS = {"model": clips.CONTRACT, "pose": dots.CONTRACT}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a segmentation and a pose model that carry a self-test, and a clip in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path.with_name(f"{tmp_path.name}-cache")))
    write_clip(tmp_path / "clip.mp4", frames=3)
    for name, write in (("model", write_model), ("pose", write_pose_model)):
        write(tmp_path / f"{name}.onnx")
        with load(f"{name}.onnx", backend="onnxruntime") as model:
            test = self_test_for(model, FRAMES[name], 0.98)
        store(f"{name}.onnx", dataclasses.replace(CONTRACTS[name], self_test=test))
    return tmp_path


def store(path, contract):
    model = onnx.load(path)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)


def break_colors(path):
    """Let the file say another color order than its graph was made for."""
    with load(path, backend="onnxruntime") as model:
        contract = model.contract
    store(path, dataclasses.replace(contract, input=dataclasses.replace(contract.input, color_order="BGR")))


@pytest.mark.parametrize("name", ["model", "pose"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_sound_model_passes_and_a_broken_one_fails(here, capsys, name, backend):
    pytest.importorskip(backend)
    command = [f"{name}.onnx", "--self-test", "--backend", backend]
    assert main(command) == 0
    told = capsys.readouterr()
    assert told.out.startswith("self-test passed: ")
    assert told.out.count("\n") == 1
    assert told.err.startswith(f"sfpp-run: {name}.onnx runs in ")
    break_colors(f"{name}.onnx")
    assert main(command) == 1
    told = capsys.readouterr()
    assert told.out.startswith("self-test failed: ")
    assert "sfpp-parity" in told.out
    assert "error" not in told.err
    assert sorted(path.name for path in here.iterdir()) == ["clip.mp4", "model.onnx", "pose.onnx"]


def test_the_flip_test_changes_nothing(here, capsys):
    assert main(["pose.onnx", "--self-test", "--flip-test", "--precision", "fp32"]) == 0
    assert "self-test passed: 100.00% of the 3 keypoints" in capsys.readouterr().out


def test_with_an_input_it_comes_first_and_stops_a_broken_model(here, capsys):
    assert main(["model.onnx", "clip.mp4", "--self-test"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("self-test passed: ")
    assert out[-1] == "wrote clip-sfpp.mp4"
    (here / "clip-sfpp.mp4").unlink()
    break_colors("model.onnx")
    assert main(["model.onnx", "clip.mp4", "--self-test"]) == 1
    assert capsys.readouterr().out.startswith("self-test failed: ")
    assert not (here / "clip-sfpp.mp4").exists()
    # Unasked, the model is run as it is.
    assert main(["model.onnx", "clip.mp4"]) == 0
    assert "self-test" not in capsys.readouterr().out


def test_a_model_without_one_is_wrong_usage(here, capsys):
    store("model.onnx", clips.CONTRACT)
    assert main(["model.onnx", "--self-test"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[-1].startswith("sfpp-run: error: this model carries no self-test")
    assert "export it again" in told.err


def test_a_damaged_one_is_a_failure_of_one_line(here, capsys):
    with load("model.onnx", backend="onnxruntime") as model:
        contract = model.contract
    damaged = dataclasses.replace(contract.self_test, answer=contract.self_test.answer[::-1])
    store("model.onnx", dataclasses.replace(contract, self_test=damaged))
    assert main(["model.onnx", "--self-test"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("sfpp-run: error: the self-test in the contract is damaged")
    # It keeps nobody from using the model.
    assert main(["model.onnx", "clip.mp4"]) == 0


def test_without_an_input_a_self_test_must_be_asked_for(here, capsys):
    with pytest.raises(SystemExit) as end:
        main(["model.onnx"])
    assert end.value.code == 2
    assert "required: SOURCE (or --self-test, which needs none)" in capsys.readouterr().err


def test_the_help_tells_of_it(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert "sfpp-run model.onnx --self-test " in out
    assert "1 failed (a self-test too)" in out
