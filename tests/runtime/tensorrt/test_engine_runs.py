"""An engine in the place of the file that it was built from: the same answers, by the same calls."""

import numpy as np
import pytest

from sfpp.export import export_onnx
from sfpp.export.demo import demo_frame, demo_person
from sfpp.runtime import PoseEstimator, Segmenter, load, read_image
from sfpp.runtime.cli import main
from sfpp.runtime.errors import BackendError
from sfpp.runtime.tensorrt import build_engine


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "segmentation": export_onnx(path=folder / "street.onnx", res="192x128", variant="hq").path,
        "labels": export_onnx(path=folder / "labels.onnx", res="192x128", output="labels").path,
        "pose": export_onnx(path=folder / "pose.onnx", task="pose", res="96x128").path,
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
    assert "segmentation.engine runs in TensorRT 10.3.0.30 on NVIDIA Orin: the file is an engine" in captured.err
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_the_command_builds_nothing_where_it_may_not(fakes, models, tmp_path, capsys):
    arguments = [str(models["segmentation"]), str(demo_frame()), str(tmp_path / "out.png"), "--no-build"]
    assert main([*arguments, "--backend", "tensorrt"]) == 1
    assert "there is no engine of street.onnx for TensorRT" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "TensorRT" not in capsys.readouterr().err


def test_what_may_not_be_built_in_python(fakes, models):
    with pytest.raises(BackendError, match="leave --no-build off"):
        load(models["segmentation"], backend="tensorrt", build=False)
