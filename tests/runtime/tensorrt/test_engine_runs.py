"""An engine in the place of the file that it was built from: the same answers, by the same calls."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sfpp.export.demo import demo_frame, demo_person
from sfpp.runtime import PoseEstimator, Segmenter, load, read_image
from sfpp.runtime.cli.run import main
from sfpp.runtime.errors import BackendError
from sfpp.runtime.tensorrt import build_engine


@pytest.fixture(scope="module")
def models(demo_export):
    return {
        "segmentation": demo_export(variant="hq", res="192x128").path,
        "labels": demo_export(output="labels", res="192x128").path,
        "pose": demo_export(task="pose").path,
    }


@pytest.fixture
def engine(fakes, models, tmp_path):
    return lambda name: build_engine(models[name], tmp_path / f"{name}.engine", backend="tensorrt").path


@pytest.mark.parametrize("name", ["segmentation", "labels"])
def test_the_same_labels(engine, models, name):
    frame = read_image(demo_frame())
    with load(models[name], backend="onnxruntime") as reference, load(engine(name)) as model:
        assert isinstance(model, Segmenter)
        for each in (frame, frame[:, ::-1], frame):
            np.testing.assert_array_equal(model(each).labels, reference(each).labels)


def test_the_same_keypoints(engine, models):
    frame = read_image(demo_person())
    height, width = frame.shape[:2]
    boxes = [[0, 0, width, height], [width / 4, 0, width / 2, height]]
    with load(models["pose"], backend="onnxruntime") as reference, load(engine("pose")) as model:
        assert isinstance(model, PoseEstimator)
        np.testing.assert_array_equal(model(frame, boxes).keypoints_xy, reference(frame, boxes).keypoints_xy)


def test_the_command_runs_an_engine(engine, tmp_path, capsys):
    path = engine("segmentation")
    assert main([str(path), str(demo_frame()), str(tmp_path / "out.png")]) == 0
    captured = capsys.readouterr()
    assert (
        "segmentation.engine runs in TensorRT 10.3.0 on NVIDIA Orin, CUDA 12.6: the file is an engine" in captured.err
    )
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_the_command_builds_nothing_where_it_may_not(fakes, models, tmp_path, capsys):
    arguments = [str(models["segmentation"]), str(demo_frame()), str(tmp_path / "out.png"), "--no-build"]
    assert main([*arguments, "--backend", "tensorrt"]) == 1
    assert "there is no engine of hq.onnx for TensorRT" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "TensorRT" not in capsys.readouterr().err


def test_what_may_not_be_built_in_python(fakes, models):
    with pytest.raises(BackendError, match="leave --no-build off"):
        load(models["segmentation"], backend="tensorrt", build=False)


def told_by(path, caplog):
    caplog.clear()
    lines = []
    with caplog.at_level("INFO", logger="sfpp"):
        load(path, notify=lines.append).close()
    tests = [line for line in lines if "self-test" in line]
    assert [record.message for record in caplog.records if "self-test" in record.message] == tests
    return tests


def test_an_engine_is_tested_once_for_each_driver_and_version(engine, caplog, monkeypatch):
    path = engine("segmentation")
    (line,) = told_by(path, caplog)
    assert line.startswith("segmentation.engine, first use here: self-test passed: 100.00% of the labels")
    assert told_by(path, caplog) == []
    monkeypatch.setenv("FAKE_DRIVER", "13000")
    assert len(told_by(path, caplog)) == 1
    assert told_by(path, caplog) == []


def test_an_engine_that_answers_wrongly_is_told_of_each_time(engine, models, caplog):
    path = engine("segmentation")
    broken = onnx.load(models["segmentation"])
    for each in broken.graph.initializer:
        if "stages.3" in each.name and len(each.dims) > 1:
            each.CopyFrom(numpy_helper.from_array(np.zeros(tuple(each.dims), np.float32), each.name))
    magic, facts, _ = path.read_bytes().split(b"\n", 2)
    path.write_bytes(magic + b"\n" + facts + b"\n" + broken.SerializeToString())
    for _ in range(2):
        (line,) = told_by(path, caplog)
        assert "self-test failed" in line
        assert caplog.records[-1].levelname == "WARNING"
        assert "build the engine again on this machine with sfpp-engine" in line
