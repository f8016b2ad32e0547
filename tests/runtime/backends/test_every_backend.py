"""What every backend promises, checked for each that runs here."""

import threading
import time

import numpy as np
import pytest
from onnx import TensorProto, helper

from sfpp.runtime.backends import BackendOptions, TensorInfo, open_backend
from sfpp.runtime.errors import BackendError, ModelFileError, UsageError
from tests.runtime.backends.graphs import write_graph, write_sums

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["onnxruntime", "openvino"])
def name(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def model_path(tmp_path):
    return write_sums(tmp_path / "model.onnx", metadata={"note": "größer"})


def opened(path, name, **options):
    return open_backend(path, backend=name, options=BackendOptions(precision="fp32", **options))[0]


def test_arrays_by_name_in_and_out(model_path, name):
    backend = opened(model_path, name, threads=1)
    outputs = backend.run({"x": X})
    assert list(outputs) == ["y", "z"]
    np.testing.assert_array_equal(outputs["y"], 2 * X)
    np.testing.assert_array_equal(outputs["z"], -X)
    assert backend.metadata == {"note": "größer"}
    assert backend.inputs == (TensorInfo("x", (2, 3), "float32"),)
    assert backend.precision == "fp32"


def test_a_result_stays_as_it_is_when_the_model_runs_again(model_path, name):
    backend = opened(model_path, name)
    first = backend.run({"x": X})
    backend.run({"x": X + 10})
    np.testing.assert_array_equal(first["y"], 2 * X)
    first["y"][:] = 0  # the caller's own
    np.testing.assert_array_equal(backend.run({"x": X})["y"], 2 * X)


def test_input_is_left_alone_and_need_not_be_contiguous(model_path, name):
    backend = opened(model_path, name)
    mirrored = X[:, ::-1]
    np.testing.assert_array_equal(backend.run({"x": mirrored})["y"], 2 * mirrored)
    backend.run({"x": np.zeros_like(X)})
    np.testing.assert_array_equal(X, np.arange(6).reshape(2, 3))


def test_an_output_that_is_also_used_within_keeps_its_name(tmp_path, name):
    nodes = [helper.make_node("Identity", ["x"], ["logits"]), helper.make_node("Add", ["logits", "x"], ["sum"])]
    path = write_graph(tmp_path / "m.onnx", nodes, {"x": (2, 3)}, {"sum": (2, 3), "logits": (2, 3)})
    outputs = opened(path, name).run({"x": X})
    assert list(outputs) == ["sum", "logits"]
    np.testing.assert_array_equal(outputs["logits"], X)


def test_sizes_that_vary_are_none(tmp_path, name):
    path = write_graph(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])], {"x": ("n", 3)}, {"y": ("n", 3)})
    backend = opened(path, name)
    assert backend.inputs == (TensorInfo("x", (None, 3), "float32"),)
    for rows in (1, 4):
        assert backend.run({"x": np.ones((rows, 3), np.float32)})["y"].shape == (rows, 3)


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ({"x": np.zeros((2, 4), np.float32)}, "dimension|2x4"),
        ({"x": np.zeros((2, 3), np.float64)}, "type|float64"),
        ({"wrong": np.zeros((2, 3), np.float32)}, "x"),
        ({}, "x"),
        ({"x": X, "more": X}, "more"),
    ],
)
def test_input_that_the_model_does_not_take(model_path, name, inputs, word):
    backend = opened(model_path, name)
    backend.run({"x": X})  # a model that has run must not answer with what it has from then
    with pytest.raises(BackendError, match=rf"(ONNX Runtime|OpenVINO) .* failed: .*({word})"):
        backend.run(inputs)
    np.testing.assert_array_equal(backend.run({"x": X})["y"], 2 * X)


def test_closing_twice_is_harmless_and_running_afterwards_is_not(model_path, name):
    backend = opened(model_path, name, profile=True)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="was closed; load it again"):
        backend.run({"x": X})
    with pytest.raises(BackendError, match="was closed; ask for operator times before that"):
        backend.operator_times_ms()


def test_threads_may_share_a_model(model_path, name):
    backend = opened(model_path, name, threads=1)
    wrong = []

    def work(number):
        answers = (backend.run({"x": X + number})["y"] for _ in range(50))
        wrong.extend(number for answer in answers if (answer != 2 * (X + number)).any())

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_operator_times_are_means_by_type_the_largest_first(tmp_path, name):
    size = (256, 256)
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "b"], ["d"]),
        helper.make_node("Softmax", ["d"], ["e"], axis=-1),
    ]
    path = write_graph(tmp_path / "m.onnx", nodes, {"a": size, "b": size}, {"e": size})
    backend = opened(path, name, profile=True, threads=1)
    assert opened(path, name, profile=True).operator_times_ms() == {}  # before any run
    values = np.ones(size, np.float32)
    begun_s = time.perf_counter()
    for _ in range(3):
        backend.run({"a": values, "b": values})
    mean_ms = (time.perf_counter() - begun_s) * 1000 / 3
    times_ms = backend.operator_times_ms()
    assert {"MatMul", "Softmax"} <= {"MatMul" if "Mat" in each else each for each in times_ms}
    assert list(times_ms.values()) == sorted(times_ms.values(), reverse=True)
    assert min(times_ms.values()) > 0
    assert sum(times_ms.values()) < mean_ms  # on one thread operators share the time of a run
    assert backend.operator_times_ms() == times_ms  # a second time, the same


def test_operator_times_without_a_profile(model_path, name):
    with pytest.raises(UsageError, match=r"did not measure its operators: .*BackendOptions\(profile=True\)"):
        opened(model_path, name).operator_times_ms()


@pytest.mark.parametrize("kept", [0, 10, 60])
def test_truncated_model(model_path, name, kept):
    model_path.write_bytes(model_path.read_bytes()[:kept])
    with pytest.raises(ModelFileError, match=r"model\.onnx cannot be opened as an ONNX model: .*truncated"):
        opened(model_path, name)


def test_a_graph_that_is_none(model_path, name, capfd):
    whole = model_path.read_bytes()
    start = whole.index(b"Add")
    model_path.write_bytes(whole[:start] + b"\xff" * 8 + whole[start + 8 :])
    with pytest.raises(ModelFileError, match=r"model\.onnx cannot be opened as an ONNX model: (?!Exception from)"):
        opened(model_path, name)
    assert capfd.readouterr().out == ""


def test_an_operator_that_does_not_exist(tmp_path, name):
    path = write_graph(tmp_path / "m.onnx", [helper.make_node("Nonsense", ["x"], ["y"])], {"x": (2,)}, {"y": (2,)})
    with pytest.raises(ModelFileError, match=r"cannot be opened as an ONNX model: .*Nonsense"):
        opened(path, name)


def test_names_are_the_files_own_where_a_node_does_nothing(tmp_path, name):
    """A cast to the same type is dropped by libraries, and its tensor then goes by two names."""
    cast = {"to": TensorProto.FLOAT}
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], **cast),
        helper.make_node("Add", ["a", "a"], ["b"]),
        helper.make_node("Cast", ["b"], ["y"], **cast),
    ]
    backend = opened(write_graph(tmp_path / "casts.onnx", nodes, {"x": (2, 3)}, {"y": (2, 3)}), name)
    assert [info.name for info in backend.inputs] == ["x"]
    np.testing.assert_array_equal(backend.run({"x": X})["y"], 2 * X)
