"""`sfpp-run --self-test` as a user meets it."""

import dataclasses
import json
import subprocess
import sys

import cv2
import pytest

from sfpp.runtime import load
from sfpp.runtime.cli.run import main
from sfpp.runtime.self_test import self_test_for
from tests.runtime.cli.test_run import write_model
from tests.runtime.cli.test_run_pose import write_pose_model
from tests.runtime.people import dots
from tests.runtime.planted import plant, store
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


def break_colors(path):
    """Let the file say another color order than its graph was made for."""
    with load(path, self_test=False) as model:
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
    assert main(["model.onnx", "clip.mp4", "--self-test", "--backend", "onnxruntime"]) == 1
    assert capsys.readouterr().out.startswith("self-test failed: ")
    assert not (here / "clip-sfpp.mp4").exists()


def test_asked_for_it_tells_of_the_backend_that_takes_over(here, capsys, monkeypatch):
    plant(monkeypatch)
    assert main(["model.onnx", "--self-test"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("self-test passed: 100.00%")
    assert "ONNX Runtime" in told.out
    assert "runs in ONNX Runtime" in told.err
    assert "because Planted 1.0 on the CPU answers wrongly here" in told.err
    assert main(["model.onnx", "--self-test", "--backend", "openvino"]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("self-test failed: 0.00%")
    assert "self-test" not in told.err  # once is enough


def test_unasked_the_first_use_replays_it(here, capfd, monkeypatch):
    plant(monkeypatch)
    command = ["model.onnx", "clip.mp4", "-o", "out.mp4"]
    for first in (True, False):
        assert main(command) == 0
        told = capfd.readouterr()
        lines = [line for line in told.err.splitlines() if "answers wrongly" in line]
        assert len(lines) == 1  # and not once more from the logger
        assert lines[0].startswith("sfpp-run: warning: model.onnx runs in ONNX Runtime ")
        assert ("first use here: self-test passed" in told.err) is first
        assert told.out.endswith("self-test: passed\n3 frames of clip\nwrote out.mp4\n")


def test_a_backend_that_was_named_goes_on_with_a_warning(here, capfd, monkeypatch):
    plant(monkeypatch)
    command = ["model.onnx", "clip.mp4", "out.mp4", "--backend", "openvino"]
    for _ in range(2):
        assert main(command) == 0
        told = capfd.readouterr()
        assert told.err.count("self-test failed: 0.00%") == 1
        assert "sfpp-run: warning: model.onnx: self-test failed: 0.00% of the labels" in told.err
        assert "self-test: failed (0.00%); do not trust these answers\n" in told.out
    assert main([*command, "--no-self-test"]) == 0
    told = capfd.readouterr()
    assert "self-test: off\n" in told.out
    assert "self-test" not in told.err


def test_a_warning_is_printed_once(here):
    """Where nobody has set up logging, Python would print the logger's warnings too."""
    break_colors("model.onnx")
    program = "import sys; from sfpp.runtime.cli.run import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "model.onnx", "clip.mp4", "out.mp4", "--backend", "onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.count("self-test failed") == 1
    assert "self-test: failed (" in done.stdout


def test_where_no_backend_answers_rightly_nothing_is_run_unless_the_test_is_off(here, capsys):
    break_colors("model.onnx")
    assert main(["model.onnx", "clip.mp4", "out.mp4"]) == 1
    told = capsys.readouterr()
    assert "sfpp-run: error: no backend here answers as model.onnx did when it was exported: " in told.err
    assert not (here / "out.mp4").exists()
    assert main(["model.onnx", "clip.mp4", "out.mp4", "--no-self-test"]) == 0
    assert "self-test: off\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"self_test": "passed", "self_test_agreement": 1.0}),
        ([], {"self_test": "passed"}),  # known from before
        (["--backend", "openvino"], {"self_test": "failed", "self_test_agreement": 0.0}),
        (["--no-self-test"], {"self_test": "off"}),
    ],
)
def test_each_line_of_json_says_how_it_stands(here, capsys, monkeypatch, options, expected):
    plant(monkeypatch)
    if expected == {"self_test": "passed"}:
        load("model.onnx").close()
    assert main(["model.onnx", "clip.mp4", "--json", "lines.jsonl", *options]) == 0
    assert f"self-test: {expected['self_test']}" in capsys.readouterr().out
    records = [json.loads(line) for line in (here / "lines.jsonl").read_text().splitlines()]
    assert len(records) == 3
    for record in records:
        assert {name: value for name, value in record.items() if name.startswith("self_test")} == expected


def test_the_page_shows_how_it_stands(here, monkeypatch):
    viewer = pytest.importorskip("sfpp.runtime.viewer")
    seen, real = [], viewer.Viewer
    monkeypatch.setattr(
        viewer, "Viewer", lambda model, **options: seen.append(model.self_test) or real(model, **options)
    )
    plant(monkeypatch)
    command = ["model.onnx", "test://?frames=2", "--view", "0"]
    assert main(command) == 0
    assert main([*command, "--backend", "openvino"]) == 0
    assert list(map(str, seen)) == ["passed", "failed (0.00%)"]


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
    # It keeps nobody from using the model, though not without a word.
    assert main(["model.onnx", "clip.mp4"]) == 0
    told = capsys.readouterr()
    assert "sfpp-run: warning: model.onnx: the self-test in the contract is damaged" in told.err
    assert "self-test: damaged\n" in told.out


def test_without_an_input_a_self_test_must_be_asked_for(here, capsys):
    with pytest.raises(SystemExit) as end:
        main(["model.onnx"])
    assert end.value.code == 2
    assert "required: SOURCE (or --self-test, which needs none)" in capsys.readouterr().err
