import builtins

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sfpp.runtime.backends import FunctionBackend, OnnxRuntimeBackend, open_backend
from sfpp.runtime.errors import BackendError, MissingDependencyError, ModelFileError


@pytest.fixture
def model_path(tmp_path):
    """y = x + x and z = -x for x of shape (2, 3), with one entry of metadata."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in "xyz"]
    graph = helper.make_graph(nodes, "sums", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"note": "größer"})
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_arrays_by_name_in_and_out(model_path):
    backend = OnnxRuntimeBackend(model_path, threads=1)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    outputs = backend.run({"x": x})
    assert list(outputs) == ["y", "z"]
    np.testing.assert_array_equal(outputs["y"], 2 * x)
    np.testing.assert_array_equal(outputs["z"], -x)
    assert backend.metadata == {"note": "größer"}


def test_choice_is_said_with_its_reason(model_path):
    backend, reason = open_backend(model_path)
    assert backend.description in reason
    assert reason.startswith("ONNX Runtime")
    assert "on the CPU" in reason


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ({"x": np.zeros((2, 4), np.float32)}, "dimension"),
        ({"x": np.zeros((2, 3), np.float64)}, "type"),
        ({"wrong": np.zeros((2, 3), np.float32)}, "x"),
    ],
)
def test_input_that_the_model_does_not_take(model_path, inputs, word):
    with pytest.raises(BackendError, match=rf"ONNX Runtime .* failed: .*{word}"):
        OnnxRuntimeBackend(model_path).run(inputs)


def test_closing_twice_is_harmless_and_running_afterwards_is_not(model_path):
    backend = OnnxRuntimeBackend(model_path)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="was closed; load it again"):
        backend.run({"x": np.zeros((2, 3), np.float32)})


@pytest.mark.parametrize("kept", [0, 10, 60])
def test_truncated_model(model_path, kept):
    model_path.write_bytes(model_path.read_bytes()[:kept])
    with pytest.raises(ModelFileError, match=r"model\.onnx cannot be opened as an ONNX model: .*truncated"):
        open_backend(model_path)


def test_text_file_under_the_name_of_a_model(tmp_path):
    (tmp_path / "notes.onnx").write_text("these are notes")
    with pytest.raises(ModelFileError, match="cannot be opened as an ONNX model"):
        open_backend(tmp_path / "notes.onnx")


def test_missing_file_folder_and_foreign_suffix(tmp_path):
    with pytest.raises(ModelFileError, match="is not a file"):
        open_backend(tmp_path / "nothing.onnx")
    with pytest.raises(ModelFileError, match="is not a file"):
        open_backend(tmp_path)
    for name, said in (("model.pth", r"no backend opens \.pth; expected \.onnx"), ("model", "without suffix")):
        (tmp_path / name).touch()
        with pytest.raises(ModelFileError, match=said):
            open_backend(tmp_path / name)


def test_missing_library_names_the_extra(model_path, monkeypatch):
    real_import = builtins.__import__

    def without_onnxruntime(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_onnxruntime)
    with pytest.raises(MissingDependencyError, match=r"model\.onnx needs onnxruntime.*pip install 'sfpp\[cpu\]'"):
        open_backend(model_path)


def test_function_takes_the_place_of_a_library():
    backend = FunctionBackend(lambda inputs: {"y": inputs["x"] + 1}, metadata={"a": "b"})
    assert backend.run({"x": np.array([1])})["y"].tolist() == [2]
    assert backend.metadata == {"a": "b"}
    assert backend.description == "python function"
    backend.close()
