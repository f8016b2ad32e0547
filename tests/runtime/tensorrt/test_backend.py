"""The backend against a fake of the documented API, in which nothing happens before the stream is synchronized."""

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import math
import threading

import numpy as np
import pytest

from sfpp.runtime.backends import BackendOptions, TensorInfo, open_backend
from sfpp.runtime.backends.choice import backend_names, this_machine
from sfpp.runtime.contract import METADATA_KEY, contract_from_json
from sfpp.runtime.errors import BackendError, ContractError, MissingDependencyError, ModelFileError, UsageError
from sfpp.runtime.tensorrt import EngineSettings, build_engine
from sfpp.runtime.tensorrt.cuda import Cuda
from tests.runtime.backends.graphs import write_graph, write_sums
from tests.runtime.video.clips import CONTRACT

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def model(tmp_path):
    return write_sums(tmp_path / "model.onnx", metadata={METADATA_KEY: CONTRACT.to_json()})


@pytest.fixture
def engine(fakes, model):
    return build_engine(model, backend="tensorrt").path


def opened(path, **options):
    return open_backend(path, options=BackendOptions(**options))[0]


def called(fakes, *names):
    return [call[0] for call in fakes.CALLS if call[0] in names]


def test_arrays_by_name_in_and_out(engine):
    backend, reason = open_backend(engine)
    outputs = backend.run({"x": X})
    assert list(outputs) == ["y", "z"]
    np.testing.assert_array_equal(outputs["y"], 2 * X)
    np.testing.assert_array_equal(outputs["z"], -X)
    assert backend.inputs == (TensorInfo("x", (2, 3), "float32"),)
    assert reason == "TensorRT 10.3.0 on NVIDIA Orin, CUDA 12.6: the file is an engine"
    assert dataclasses.replace(contract_from_json(backend.metadata[METADATA_KEY]), engine=None) == CONTRACT


def test_each_run_has_its_own_answer(engine):
    backend = opened(engine)
    answers = [backend.run({"x": X + step})["y"] for step in range(5)]
    for step, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, 2 * (X + step))


def test_memory_is_as_large_as_the_tensors_and_is_all_freed(engine, fakes):
    backend = opened(engine)
    assert sorted(len(each) for each in fakes.DEVICE.values()) == [24, 24, 24]
    assert sorted(len(each) for each in fakes.PINNED.values()) == [24, 24, 24]
    backend.run({"x": X})
    backend.run({"x": X})
    backend.close()
    backend.close()
    assert [fakes.DEVICE, fakes.PINNED, fakes.STREAMS, fakes.GRAPHS] == [{}, {}, {}, {}]
    with pytest.raises(BackendError, match="the model was closed"):
        backend.run({"x": X})


def test_a_run_is_recorded_when_the_engine_is_opened_and_all_later_ones_are_one_launch(engine, fakes):
    backend = opened(engine)
    steps = (
        "cudaMemcpyAsync",
        "enqueue",
        "cudaStreamBeginCapture",
        "cudaGraphUpload",
        "cudaGraphLaunch",
        "cudaStreamSynchronize",
    )
    plain = ["cudaMemcpyAsync", "enqueue", "cudaMemcpyAsync", "cudaMemcpyAsync"]
    assert called(fakes, *steps) == [
        *plain,
        "cudaStreamSynchronize",
        "cudaStreamBeginCapture",
        *plain,
        "cudaGraphUpload",
        "cudaGraphLaunch",
        "cudaStreamSynchronize",
    ]
    for step in range(3):
        fakes.CALLS.clear()
        np.testing.assert_array_equal(backend.run({"x": X + step})["y"], 2 * (X + step))
        assert called(fakes, *steps) == ["cudaGraphLaunch", "cudaStreamSynchronize"]
    assert {call[1] for call in fakes.CALLS if call[0] == "cudaStreamSynchronize"} == set(fakes.STREAMS)


def test_an_engine_that_cannot_be_recorded_runs_all_the_same(engine, fakes, monkeypatch):
    lines = []
    monkeypatch.setitem(fakes.FAILING, "cudaGraphInstantiate", 900)
    backend = open_backend(engine, notify=lines.append)[0]
    for _ in range(2):
        np.testing.assert_array_equal(backend.run({"x": X + 1})["y"], 2 * (X + 1))
    (line,) = lines
    assert "cudaErrorStreamCaptureUnsupported" in line
    assert called(fakes, "cudaGraphLaunch") == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"given the inputs nothing, expected 'x' \(float32, 2x3\)"),
        ({"y": X}, r"given the inputs 'y' \(float32, 2x3\), expected 'x'"),
        ({"x": X[:1]}, r"'x' \(float32, 1x3\), expected 'x' \(float32, 2x3\)"),
        ({"x": X.astype(np.float64)}, r"'x' \(float64, 2x3\), expected"),
    ],
)
def test_what_the_engine_does_not_take_reaches_no_card(engine, fakes, inputs, message):
    backend = opened(engine)
    fakes.CALLS.clear()
    with pytest.raises(BackendError, match=message):
        backend.run(inputs)
    assert called(fakes, "cudaMemcpyAsync") == []


@pytest.mark.parametrize(
    ("function", "code", "message"),
    [
        ("cudaMalloc", 2, "cudaMalloc failed: cudaErrorMemoryAllocation; close other programs"),
        ("cudaHostAlloc", 2, "cudaHostAlloc failed"),
        ("cudaStreamCreateWithFlags", 1, "cudaErrorInvalidValue; check the driver with nvidia-smi"),
        ("cudaGetDeviceProperties", 100, "cudaErrorNoDevice"),
    ],
)
def test_a_failure_of_cuda_is_told_and_frees_what_there_was(engine, fakes, monkeypatch, function, code, message):
    monkeypatch.setitem(fakes.FAILING, function, code)
    with pytest.raises(BackendError, match=message):
        opened(engine)
    assert [fakes.DEVICE, fakes.PINNED, fakes.STREAMS] == [{}, {}, {}]


def test_an_engine_that_does_not_run_says_why_in_a_few_words(engine, monkeypatch):
    backend = opened(engine, profile=True)  # or a graph would be launched
    monkeypatch.setattr("tensorrt._FAULT", "does not run")
    for _ in range(3):
        with pytest.raises(BackendError, match=r"failed to run the engine.*says: layer 0 has no memory") as caught:
            backend.run({"x": X})
        assert str(caught.value).count("has no memory") == 8
    assert len(backend._messages) <= 32


def test_a_fault_of_the_card_is_told_and_not_what_follows_from_it(engine, fakes, monkeypatch):
    lines = []
    backend = open_backend(engine, notify=lines.append)[0]
    fakes.CALLS.clear()
    monkeypatch.setitem(fakes.FAILING, "all", 700)
    with (
        pytest.raises(BackendError, match="cudaGraphLaunch failed: cudaErrorIllegalAddress"),
        contextlib.closing(backend),
    ):
        backend.run({"x": X})
    (line,) = lines
    assert line.startswith("warning: not all of TensorRT 10.3.0")
    assert "cudaErrorIllegalAddress" in line
    made = ("cudaGraphExecDestroy", "cudaStreamDestroy", *["cudaFree"] * 3, *["cudaFreeHost"] * 3)
    assert sorted(set(called(fakes, *made))) == sorted(set(made))


def test_a_capture_that_fails_is_told_by_its_own_failure(engine, fakes, monkeypatch):
    cuda = Cuda()
    stream = cuda.stream()
    monkeypatch.setitem(fakes.FAILING, "cudaStreamEndCapture", 900)

    def launch():
        raise BackendError("the engine does not run")

    with pytest.raises(BackendError, match="the engine does not run"):
        cuda.record(stream, launch)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x is padded", "the engine's 'x' is no plain array: Thirty-two wide channel vectorized"),
        ("y is padded", "the engine's 'y' is no plain array"),
        ("x is a shape", "the engine's 'x' is a shape, which the processor reads"),
        ("y is FP8", "the engine's 'y' holds FP8, which NumPy lacks"),
    ],
)
def test_tensors_that_are_no_arrays_are_refused(engine, fakes, monkeypatch, name, message):
    opened(engine).close()
    monkeypatch.setattr("tensorrt._FAULT", name)
    with pytest.raises(ModelFileError, match=message):
        opened(engine)
    assert [fakes.DEVICE, fakes.PINNED, fakes.STREAMS] == [{}, {}, {}]


def test_an_engine_runs_on_the_accelerator_that_it_was_built_for(fakes, model, monkeypatch):
    engine = build_engine(model, backend="tensorrt", settings=EngineSettings(dla=1)).path
    opened(engine).close()
    tensorrt = importlib.import_module("tensorrt")
    assert tensorrt.OPENED[-1].DLA_core == 1
    monkeypatch.setenv("FAKE_DLA_CORES", "1")
    with pytest.raises(UsageError, match=r"for the deep learning accelerator 1, and TensorRT 10\.3\.0 finds 1"):
        opened(engine)


def test_an_engine_for_the_gpu_names_no_accelerator(engine, fakes):
    opened(engine).close()
    assert importlib.import_module("tensorrt").OPENED[-1].DLA_core == -1


def test_a_smaller_module_or_another_power_mode_is_warned_of(engine, fakes, monkeypatch):
    lines = []
    open_backend(engine, notify=lines.append)[0].close()
    assert lines == []
    monkeypatch.setenv("FAKE_MULTIPROCESSORS", "8")
    open_backend(engine, notify=lines.append)[0].close()
    (line,) = lines
    assert "was built where 16 multiprocessors are on, and here are 8" in line


def test_engines_for_many_cards_are_not_warned_of(fakes, model, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT", "10.16.1.11")
    for mode in ("hardware_compatible", "same_capability"):
        engine = build_engine(model, backend="tensorrt", settings=EngineSettings(**{mode: True})).path
        monkeypatch.setenv("FAKE_MULTIPROCESSORS", "8")
        lines = []
        open_backend(engine, notify=lines.append)[0].close()
        assert lines == []
        monkeypatch.setenv("FAKE_MULTIPROCESSORS", "16")


def test_a_file_is_read_in_parts_where_the_library_can(fakes, model, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT", "10.16.1.11")
    monkeypatch.setattr("sfpp.runtime.tensorrt.opening._PART_BYTES", 100)
    engine = build_engine(model, backend="tensorrt").path
    np.testing.assert_array_equal(opened(engine).run({"x": X})["y"], 2 * X)
    parts = importlib.import_module("tensorrt").PARTS
    assert sum(parts) == engine.stat().st_size
    assert set(parts[:-1]) == {100}


def test_a_card_without_memory_for_a_context(engine, fakes, monkeypatch):
    opened(engine).close()
    monkeypatch.setattr("tensorrt._FAULT", "has no memory")
    with pytest.raises(BackendError, match="the card's memory is full"):
        opened(engine)
    assert not fakes.DEVICE


def test_layers_are_timed_one_by_one(engine, fakes):
    backend = opened(engine, profile=True)
    assert backend.operator_times_ms() == {}
    for _ in range(3):
        backend.run({"x": X})
    assert backend.operator_times_ms() == {"head": 3.0, "encoder": 2.0}
    assert called(fakes, "cudaGraphLaunch") == []
    with pytest.raises(UsageError, match="profile=True"):
        opened(engine).operator_times_ms()


def test_threads_take_turns(engine):
    backend = opened(engine)
    wrong = []

    def ask(value):
        answers = [backend.run({"x": X + value})["z"] for _ in range(20)]
        wrong.extend(value for each in answers if not np.array_equal(each, -(X + value)))

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"version": "10.1.0.27"},
            r"with TensorRT 10\.1\.0\.27, and this machine has 10\.3\.0; build it again",
        ),
        ({"version": "8.6.2", "version_compatible": True}, None),
        ({"version": "10.0.1", "version_compatible": True}, None),
        ({"version": "10.8.0", "version_compatible": True}, "built with TensorRT 10.8.0"),
        (
            {"devices": ("sm89",), "card": "RTX 4090"},
            r"for sm89 \(RTX 4090\), and this card is sm87 \(NVIDIA Orin\)",
        ),
        ({"devices": ("sm80",), "hardware_compatible": True}, None),
        ({"platform": "win32-amd64"}, "built on win32-amd64"),
        ({"library": "tensorrt-rtx"}, r"with TensorRT-RTX 10\.3\.0, and this machine has 1\.7\.1"),
    ],
)
def test_an_engine_for_something_else_is_refused_with_the_way_to_rebuild_it(engine, fakes, changed, message):
    sidecar = engine.with_suffix(".json")
    contract = contract_from_json(sidecar.read_text())
    sidecar.write_text(dataclasses.replace(contract, engine=dataclasses.replace(contract.engine, **changed)).to_json())
    if message is None:
        return opened(engine).close()
    with pytest.raises(BackendError, match=message) as caught:
        opened(engine)
    assert "sfpp-engine MODEL.onnx -o model.engine" in str(caught.value)
    return None


def test_a_version_compatible_engine_may_bring_its_code(fakes, model):
    engine = build_engine(model, backend="tensorrt", settings=EngineSettings(version_compatible=True)).path
    np.testing.assert_array_equal(opened(engine).run({"x": X})["y"], 2 * X)


def test_code_of_an_engine_without_a_contract_is_allowed_by_the_user_alone(fakes, model):
    engine = build_engine(model, backend="tensorrt", settings=EngineSettings(version_compatible=True)).path
    foreign = engine.rename(engine.with_name("foreign.trt"))
    with pytest.raises(
        BackendError, match=r"brings code along, .*allowed where you trust .*--allow-host-code"
    ) as caught:
        opened(foreign)
    assert "host code is not allowed" in str(caught.value)
    np.testing.assert_array_equal(opened(foreign, host_code=True).run({"x": X})["y"], 2 * X)


@pytest.fixture
def lean(fakes, monkeypatch):
    """TensorRT is not there when engines are run, but its lean runtime is."""

    def leave():
        monkeypatch.setattr("sfpp.runtime.tensorrt.library.is_installed", lambda name: False)

    return leave


def test_the_lean_runtime_runs_version_compatible_engines(lean, model):
    engine = build_engine(model, backend="tensorrt", settings=EngineSettings(version_compatible=True)).path
    lean()
    backend = opened(engine)
    np.testing.assert_array_equal(backend.run({"x": X})["y"], 2 * X)
    assert backend.description == "TensorRT's lean runtime 10.3.0 on NVIDIA Orin, CUDA 12.6"
    with pytest.raises(MissingDependencyError, match="needs TensorRT"):
        build_engine(model, backend="tensorrt")


def test_the_lean_runtime_runs_no_others(lean, engine):
    lean()
    with pytest.raises(
        BackendError, match=r"runs version-compatible engines alone; .*sfpp-engine --version-compatible"
    ):
        opened(engine)


def test_the_lean_runtime_refuses_what_is_padded(lean, model, monkeypatch):
    engine = build_engine(model, backend="tensorrt", settings=EngineSettings(version_compatible=True)).path
    lean()
    opened(engine).close()
    monkeypatch.setattr("tensorrt._FAULT", "x is padded")
    with pytest.raises(ModelFileError, match="the engine's 'x' is no plain array"):
        opened(engine)


def test_without_a_card_the_lean_runtime_is_not_asked(lean, model, monkeypatch, fakes):
    engine = build_engine(model, backend="tensorrt", settings=EngineSettings(version_compatible=True)).path
    lean()
    monkeypatch.setitem(fakes.FAILING, "cudaGetDeviceProperties", 100)
    monkeypatch.setattr("tensorrt.Runtime.__init__", lambda *_: pytest.fail("the process would end here"))
    with pytest.raises(BackendError, match="cudaErrorNoDevice"):
        opened(engine)


def test_an_engine_of_another_tool_runs_without_a_contract(engine):
    foreign = engine.rename(engine.with_name("foreign.trt"))
    backend = opened(foreign)
    assert backend.metadata == {}
    np.testing.assert_array_equal(backend.run({"x": X})["y"], 2 * X)


def test_what_is_no_engine(fakes, tmp_path):
    path = tmp_path / "a.engine"
    path.write_bytes(b"no engine")
    with pytest.raises(BackendError, match=r"a\.engine: the magic tag does not match; .*build it again"):
        opened(path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(ContractError, match=r"a\.json is not valid JSON"):
        opened(path)
    with pytest.raises(ModelFileError, match="is not a file"):
        opened(tmp_path / "b.engine")


def test_an_engine_has_one_precision(engine):
    assert opened(engine, precision="fp32").precision == "fp32"
    with pytest.raises(UsageError, match="computes in what its file holds, here fp32, and fp16 was asked for"):
        opened(engine, precision="fp16")


def test_other_backends_run_no_engines(engine):
    with pytest.raises(BackendError, match="is an engine, which onnxruntime cannot run"):
        open_backend(engine, backend="onnxruntime")


def test_no_size_is_left_open(fakes, tmp_path):
    model = write_graph(tmp_path / "a.onnx", [], {"x": [2]}, {"x": [2]}, metadata={METADATA_KEY: CONTRACT.to_json()})
    engine = build_engine(model, backend="tensorrt").path
    header, facts, _ = engine.read_bytes().split(b"\n", 2)
    open_size = write_graph(tmp_path / "b.onnx", [], {"x": ["n"]}, {"x": ["n"]})
    engine.write_bytes(header + b"\n" + facts + b"\n" + open_size.read_bytes())
    with pytest.raises(ModelFileError, match=r"'x' has no fixed size"):
        opened(engine)


def test_a_model_is_built_on_first_use_and_its_engine_kept(fakes, model, monkeypatch):
    monkeypatch.setattr("sfpp.runtime.tensorrt.engines._INTERVAL_S", math.inf)  # a slow machine tells of no progress
    lines = []
    for expected in (2, 0):
        lines.clear()
        backend, reason = open_backend(model, notify=lines.append)
        np.testing.assert_array_equal(backend.run({"x": X})["y"], 2 * X)
        assert len(lines) == expected
        assert reason == "TensorRT 10.3.0 on NVIDIA Orin, CUDA 12.6: chosen because TensorRT and a card are there"
        backend.close()
    write_sums(model, factor_node="Mul", metadata={METADATA_KEY: CONTRACT.to_json()})
    np.testing.assert_array_equal(opened(model).run({"x": X})["y"], X * X)  # another file, another engine


def test_a_kept_engine_belongs_to_card_and_version(fakes, model, monkeypatch):
    opened(model).close()
    monkeypatch.setenv("FAKE_CARD", "NVIDIA Thor:11.0")
    with pytest.raises(BackendError, match=r"no engine of model\.onnx for TensorRT .* on NVIDIA Thor yet"):
        open_backend(model, backend="tensorrt", options=BackendOptions(build=False))


def test_without_building_another_backend_is_taken_until_there_is_an_engine(fakes, model):
    pytest.importorskip("onnxruntime")
    assert "TensorRT" not in opened(model, build=False).description
    opened(model).close()
    assert opened(model, build=False).description == "TensorRT 10.3.0 on NVIDIA Orin, CUDA 12.6"


def test_without_a_card_nothing_is_built(fakes, model, monkeypatch):
    monkeypatch.setenv("FAKE_CARDS", "0")
    assert this_machine().tensorrt == ""
    assert "TensorRT" not in opened(model).description


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt-rtx"])
def test_what_is_missing_is_named_with_how_to_get_it(model, tmp_path, monkeypatch, library):
    monkeypatch.setattr("sfpp.runtime.tensorrt.library.is_installed", lambda name: False)
    advice = {"tensorrt": "on a Jetson it comes with JetPack", "tensorrt-rtx": r"pip install 'sfpp\[rtx\]'"}[library]
    with pytest.raises(MissingDependencyError, match=f"which is not installed: {advice}"):
        open_backend(model, backend=library)
    with pytest.raises(MissingDependencyError, match=r"JetPack .*for engines of RTX cards pip install"):
        build_engine(model)
    (tmp_path / "a.engine").write_bytes(b"engine")
    with pytest.raises(MissingDependencyError, match=r"running a\.engine needs TensorRT"):
        opened(tmp_path / "a.engine")
    assert {"tensorrt", "tensorrt-rtx"} <= set(backend_names())


def test_the_fake_takes_what_nvidias_bindings_take():
    """The fake's parameters are those of the real functions, so that a wrong call would show."""
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        pytest.skip("cuda-bindings is not installed")
    real = importlib.import_module("cuda.bindings.runtime")
    if "fakes" in (real.__file__ or ""):
        pytest.fail("the real bindings were to be read")
    from tests.runtime.tensorrt.fakes.cuda.bindings import runtime as fake

    for name in ("multiProcessorCount", "integrated", "canMapHostMemory"):
        assert hasattr(real.cudaDeviceProp, name)
    functions = {name: each for name, each in vars(fake).items() if hasattr(each, "parameters")}
    assert len(functions) > 12
    for name, each in functions.items():
        signature = inspect.getdoc(getattr(real, name)).splitlines()[0]
        inside = signature[signature.index("(") + 1 : signature.rindex(")")]
        expected = [part.split(":")[0].split()[-1] for part in inside.split(",") if part.strip()]
        assert list(each.parameters) == expected, name
    numbers = [name for name, each in vars(fake).items() if name.startswith("cuda") and isinstance(each, int)]
    assert len(numbers) == 5
    for name in numbers:
        assert getattr(fake, name) == int(getattr(real, name))
    for name in ("cudaError_t", "cudaMemcpyKind", "cudaMemoryType", "cudaStreamCaptureMode"):
        for member in getattr(fake, name):
            assert int(getattr(getattr(real, name), member.name)) == int(member)
