"""What is ONNX Runtime's own: devices, falling back, settings, the profile. GPUs are a module that records calls."""

import logging
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sfpp.runtime.backends import BackendOptions, OnnxRuntimeBackend, onnxruntime, open_backend
from sfpp.runtime.backends.onnxruntime import times_from_events
from sfpp.runtime.errors import BackendError, ModelFileError, UsageError
from tests.runtime.backends.graphs import write_sums

GPU_PROVIDERS = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt"


@pytest.fixture
def model_path(tmp_path):
    return write_sums(tmp_path / "model.onnx")


class FakeRuntime:
    """A module in the place of onnxruntime, whose providers start or do not.

    Args:
        dead: providers that the session drops without a word, as it does when their libraries do not load.
        raising: providers that keep the session from opening.
    """

    __version__ = "1.2.3"

    def __init__(self, *, dead=(), raising=(), available=GPU_PROVIDERS):
        self.dead, self.raising, self.available = dead, raising, available
        self.sessions = []

    def get_available_providers(self):
        return list(self.available)

    class SessionOptions:
        def __init__(self):
            self.entries = {}

        def add_session_config_entry(self, key, value):
            self.entries[key] = value

    def InferenceSession(self, path, options, *, providers, enable_fallback):  # noqa: N802
        assert enable_fallback == 0
        self.sessions.append((providers, options))
        names = [name for name, _ in providers]
        if set(names) & set(self.raising):
            raise RuntimeError("CUDA failure 35: the driver is too old\nand more")
        return SimpleNamespace(
            get_providers=lambda: [name for name in names if name not in self.dead],
            get_modelmeta=lambda: SimpleNamespace(custom_metadata_map={}),
            get_inputs=lambda: [SimpleNamespace(name="x", shape=[1, "h", None], type="tensor(float16)")],
            get_outputs=lambda: [SimpleNamespace(name="y")],
            run=lambda names, inputs: [inputs["x"] + 1],
        )


@pytest.fixture
def runtime(monkeypatch):
    def install(**facts):
        fake = FakeRuntime(**facts)
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        return fake

    return install


@pytest.mark.parametrize(
    ("device", "precision", "first", "names", "label"),
    [
        ("cpu", None, {}, GPU_PROVIDERS[2:], "the CPU"),
        ("cuda", None, {}, GPU_PROVIDERS[1:], "CUDA"),
        ("cuda", "fp32", {"use_tf32": "0"}, GPU_PROVIDERS[1:], "CUDA"),
        ("tensorrt", None, {}, GPU_PROVIDERS, "TensorRT"),
        ("tensorrt", "fp32", {}, GPU_PROVIDERS, "TensorRT"),
        ("tensorrt", "fp16", {"trt_fp16_enable": "1"}, GPU_PROVIDERS, "TensorRT"),
        ("tensorrt", "bf16", {"trt_bf16_enable": "1"}, GPU_PROVIDERS, "TensorRT"),
    ],
)
def test_what_a_device_asks_for(runtime, model_path, caplog, device, precision, first, names, label):
    fake, lines = runtime(), []
    backend = OnnxRuntimeBackend(
        model_path, BackendOptions(precision=precision, cache=False), device=device, notify=lines.append
    )
    (providers, _), *more = fake.sessions
    assert providers == [(name, first if name == names[0] else {}) for name in names]
    assert backend.description == f"ONNX Runtime 1.2.3 on {label}"
    assert backend.precision == precision or (precision is None and backend.precision == "fp32")
    assert backend.inputs[0].shape == (1, None, None)
    assert backend.inputs[0].dtype == "float16"
    assert not more + lines + caplog.messages


def test_tensorrt_keeps_its_engines_by_the_files_content(runtime, model_path, cache):
    fake = runtime()
    for _ in range(2):
        OnnxRuntimeBackend(model_path, device="tensorrt")
    OnnxRuntimeBackend(model_path, BackendOptions(precision="fp16"), device="tensorrt")
    write_sums(model_path, factor_node="Mul")
    OnnxRuntimeBackend(model_path, device="tensorrt")
    options = [providers[0][1] for providers, _ in fake.sessions]
    assert all(each["trt_engine_cache_enable"] == "1" for each in options)
    folders = [Path(each["trt_engine_cache_path"]) for each in options]
    assert folders[0] == folders[1]
    assert {folder.parent for folder in folders} == {cache}
    assert len({*folders}) == 3


def test_tensorrt_without_cuda_beside_it(runtime, model_path):
    fake = runtime(available=["TensorrtExecutionProvider", "CPUExecutionProvider"])
    OnnxRuntimeBackend(model_path, BackendOptions(cache=False), device="tensorrt")
    assert [name for name, _ in fake.sessions[0][0]] == ["TensorrtExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("device", "facts", "said", "used"),
    [
        ("cuda", {"dead": GPU_PROVIDERS[:2]}, r"CUDA, but .* not start that and computes on the CPU", "the CPU"),
        ("tensorrt", {"dead": GPU_PROVIDERS[:1]}, r"TensorRT, but .* not start that and computes on CUDA", "CUDA"),
        (
            "cuda",
            {"raising": GPU_PROVIDERS[:2]},
            r"that \(CUDA failure 35: the driver is too old\) and .* CPU",
            "the CPU",
        ),
    ],
)
def test_falling_back_is_loud(runtime, model_path, caplog, capsys, device, facts, said, used):
    runtime(**facts)
    lines = []
    options = BackendOptions(precision="fp32", cache=False)
    with caplog.at_level(logging.WARNING, logger="sfpp"):
        backend, reason = open_backend(
            model_path, backend=f"onnxruntime-{device}", options=options, notify=lines.append
        )
    (line,) = lines
    assert caplog.messages == lines
    assert caplog.records[0].levelno == logging.WARNING
    assert line.startswith("warning: model.onnx was to run on ")
    assert re.search(said, line), line
    wanted = {"cuda": "CUDA", "tensorrt": "TensorRT"}[device]
    assert backend.description == f"ONNX Runtime 1.2.3 on {used} ({wanted} was asked for and did not start)"
    assert reason.startswith(backend.description)
    assert backend.run({"x": np.zeros(1)})["y"].tolist() == [1]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("device", "times"), [("cpu", 0), ("cuda", 1), ("tensorrt", 1)])
def test_the_cuda_libraries_of_pip_are_loaded_without_a_word(runtime, model_path, capsys, device, times):
    fake, calls = runtime(), []

    def preload_dlls():
        calls.append(len(fake.sessions))
        print("Failed to load libcublas.so.13")

    fake.preload_dlls = preload_dlls
    OnnxRuntimeBackend(model_path, BackendOptions(cache=False), device=device)
    assert calls == [0] * times, "before the session, or not at all"
    assert capsys.readouterr().out == ""


def test_precision_of_a_device_that_did_not_start(runtime, model_path):
    runtime(dead=GPU_PROVIDERS[:2])
    assert OnnxRuntimeBackend(model_path, BackendOptions(precision="fp16"), device="tensorrt").precision == "fp32"


def test_a_file_that_opens_nowhere_is_the_files_fault(runtime, model_path):
    runtime(raising=GPU_PROVIDERS)
    with pytest.raises(ModelFileError, match=r"model\.onnx cannot be opened as an ONNX model: CUDA failure 35"):
        OnnxRuntimeBackend(model_path, device="cuda")


@pytest.mark.parametrize(("device", "precision"), [("cpu", "bf16"), ("cpu", "fp16"), ("cuda", "fp16")])
def test_a_precision_that_the_device_has_not(runtime, model_path, device, precision):
    runtime()
    with pytest.raises(UsageError, match=rf"precision {precision} was asked for, but ONNX Runtime on .* in fp32 "):
        OnnxRuntimeBackend(model_path, BackendOptions(precision=precision), device=device)


def test_a_device_that_is_not_there(runtime, model_path):
    runtime(available=["CPUExecutionProvider"])
    with pytest.raises(BackendError, match=r"CUDA was asked for, .* has only CPUExecutionProvider: .*onnxruntime-gpu"):
        OnnxRuntimeBackend(model_path, device="cuda")


def test_settings(runtime, model_path, monkeypatch):
    fake = runtime()
    monkeypatch.setattr(onnxruntime, "thread_limit", lambda: None)
    OnnxRuntimeBackend(model_path)
    OnnxRuntimeBackend(model_path, BackendOptions(threads=3))
    monkeypatch.setattr(onnxruntime, "thread_limit", lambda: 2)  # as of a container
    OnnxRuntimeBackend(model_path)
    OnnxRuntimeBackend(model_path, BackendOptions(threads=3))
    (_, plain), (_, three), (_, limited), (_, asked_for) = fake.sessions
    assert plain.entries == {"session.intra_op.allow_spinning": "0"}
    assert plain.enable_mem_pattern is False
    assert not hasattr(plain, "intra_op_num_threads")
    assert [each.intra_op_num_threads for each in (three, limited, asked_for)] == [3, 2, 3]


def test_settings_are_accepted_by_the_library(model_path):
    """In a process of its own, whose stderr is all that tells of an entry that ONNX Runtime does not know."""
    program = f"""
from pathlib import Path
from sfpp.runtime.backends import OnnxRuntimeBackend
OnnxRuntimeBackend(Path({str(model_path)!r}))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_times_from_the_events_of_a_trace():
    def node(op, kind, microseconds):
        return {"cat": "Node", "name": f"/n/{op}_{kind}", "dur": microseconds, "args": {"op_name": op}}

    events = [
        {"cat": "Session", "name": "model_loading_uri", "dur": 99_000},
        {"cat": "Session", "name": "model_run", "dur": 5_000},
        {"cat": "Session", "name": "model_run", "dur": 5_000},
        {"cat": "Session", "name": "SequentialExecutor::Execute", "dur": 5_000},
        node("Add", "kernel_time", 100),
        node("MatMul", "kernel_time", 3000),
        node("MatMul", "fence_before", 77_000),
        node("MatMul", "kernel_time", 1000),
        node("Add", "kernel_time", 300),
        {"cat": "Kernel", "name": "x_kernel_time", "dur": 1, "args": {}},
    ]
    assert list(times_from_events(events).items()) == [("MatMul", 2.0), ("Add", 0.2)]
    assert times_from_events([]) == {}


def test_a_profile_leaves_no_file(model_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    before = sorted(tmp_path.rglob("*"))
    read = OnnxRuntimeBackend(model_path, BackendOptions(profile=True))
    closed = OnnxRuntimeBackend(model_path, BackendOptions(profile=True))
    for backend in (read, closed):
        backend.run({"x": X})
    times_ms = read.operator_times_ms()
    assert set(times_ms) == {"Add", "Neg"}
    read.run({"x": X})
    assert read.operator_times_ms() == times_ms
    closed.close()
    model_path.write_bytes(b"")
    with pytest.raises(ModelFileError):
        OnnxRuntimeBackend(model_path, BackendOptions(profile=True))
    assert sorted(tmp_path.rglob("*")) == before


def test_it_starts_no_telemetry(model_path, tmp_path):
    """Neither a device's number in the user's folders nor anything else is left there."""
    home = tmp_path / "home"
    home.mkdir()
    program = f"""
import os
from pathlib import Path
from sfpp.runtime.backends import OnnxRuntimeBackend
OnnxRuntimeBackend(Path({str(model_path)!r}))
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
"""
    folders = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR"), str(home))
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | folders
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []
