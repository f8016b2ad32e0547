import itertools
import re
import sys

import numpy as np
import pytest

from sfpp.runtime.backends import (
    PRECISIONS,
    BackendOptions,
    FunctionBackend,
    backend_choices,
    backend_names,
    choice,
    open_backend,
)
from sfpp.runtime.backends.choice import Machine, this_machine
from sfpp.runtime.contract import METADATA_KEY
from sfpp.runtime.errors import BackendError, MissingDependencyError, ModelFileError, UsageError
from tests.runtime.backends.graphs import write_for_target, write_sums

TARGETS = ("portable", "onnxruntime", "openvino", "tensorrt")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model_path(tmp_path):
    return write_sums(tmp_path / "model.onnx")


@pytest.fixture
def machine(monkeypatch):
    """Make this a machine of that kind."""

    def become(**facts):
        made = Machine(**{"x86": True, "onnxruntime": True, "openvino": True, "cuda": False, **facts})
        monkeypatch.setattr(choice, "this_machine", lambda: made)

    return become


@pytest.mark.parametrize("target", TARGETS)
def test_choice_for_every_target_and_machine(target):
    """Against the rules written as the ladder that a reader would expect."""
    for x86, onnxruntime, openvino, cuda in itertools.product([False, True], repeat=4):
        if cuda and not onnxruntime:
            continue
        if target == "onnxruntime":
            expected = "onnxruntime"
        elif cuda:
            expected = "onnxruntime-cuda"
        elif (x86 and openvino) or (openvino and not onnxruntime):
            expected = "openvino"
        else:
            expected = "onnxruntime"
        machine = Machine(x86=x86, onnxruntime=onnxruntime, openvino=openvino, cuda=cuda)
        assert next(iter(choice._preferred(target, machine))) == expected, machine


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, r"OpenVINO \S+ on the CPU in \w+: chosen because this is an x86 CPU and OpenVINO is installed"),
        ({"openvino": False}, r"ONNX Runtime \S+ on the CPU: chosen because it runs ONNX files on every CPU$"),
        ({"x86": False}, r"ONNX Runtime \S+ on the CPU: chosen because it runs ONNX files on every CPU$"),
        ({"x86": False, "onnxruntime": False}, r"OpenVINO .*: chosen because ONNX Runtime is not installed"),
    ],
)
def test_choice_is_said_with_its_reason(model_path, machine, facts, reason):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    machine(**facts)
    backend, said = open_backend(model_path)
    assert said.startswith(f"{backend.description}: ")
    np.testing.assert_array_equal(backend.run({"x": np.ones((2, 3), np.float32)})["y"], 2)
    assert re.match(reason, said), said


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_which_target_runs_where(tmp_path, name, target):
    pytest.importorskip(name)
    path = write_for_target(tmp_path / "model.onnx", target)
    if (name, target) == ("openvino", "onnxruntime"):
        with pytest.raises(
            BackendError,
            match=r"model\.onnx was exported for the target 'onnxruntime', which the backend openvino cannot run; "
            r"choose onnxruntime or onnxruntime-cuda or onnxruntime-tensorrt, or .* sfpp-export --target portable",
        ):
            open_backend(path, backend=name)
        return
    backend, reason = open_backend(path, backend=name)
    assert reason.startswith(f"{backend.description}: as asked for")


def test_what_suits_comes_in_order_and_what_was_asked_for_alone(tmp_path, machine):
    machine(cuda=True)
    path = write_for_target(tmp_path / "model.onnx", "portable")
    choices = backend_choices(path)
    assert [each.name for each in choices] == ["onnxruntime-cuda", "openvino", "onnxruntime"]
    assert not any(each.asked for each in choices)
    assert choices[1].because == "chosen because this is an x86 CPU and OpenVINO is installed"
    (named,) = backend_choices(path, backend="openvino")
    assert (named.name, named.because, named.asked) == ("openvino", "as asked for", True)
    # Nothing that cannot run the file, and nothing that is not installed.
    own = write_for_target(tmp_path / "own.onnx", "onnxruntime")
    assert [each.name for each in backend_choices(own)] == ["onnxruntime", "onnxruntime-cuda"]
    machine(x86=False, openvino=False)
    assert [each.name for each in backend_choices(path)] == ["onnxruntime"]
    machine(x86=False)
    assert [each.name for each in backend_choices(path)] == ["onnxruntime", "openvino"]
    machine(openvino=False, onnxruntime=False)
    assert [each.name for each in backend_choices(path)] == ["onnxruntime"]  # whose error says what to install
    (tmp_path / "model.engine").touch()
    (engine,) = backend_choices(tmp_path / "model.engine")
    assert (engine.name, engine.because, engine.asked) == ("tensorrt", "the file is an engine", True)


def test_a_file_for_onnxruntime_runs_there_unasked(tmp_path):
    _, reason = open_backend(write_for_target(tmp_path / "model.onnx", "onnxruntime"))
    assert reason.endswith("chosen because the file was exported for it")


def test_an_unknown_target_is_refused_whatever_the_backend(tmp_path):
    path = write_for_target(tmp_path / "model.onnx", "abacus")
    for backend in (None, "onnxruntime"):
        with pytest.raises(BackendError, match=r"target 'abacus', which this sfpp does not know .*upgrade sfpp"):
            open_backend(path, backend=backend)


def test_a_given_target_wins_over_the_files(tmp_path):
    path = write_for_target(tmp_path / "model.onnx", "abacus")
    assert open_backend(path, backend="onnxruntime", target="portable")[0].inputs
    with pytest.raises(BackendError, match="'onnxruntime', which the backend openvino cannot run"):
        open_backend(path, backend="openvino", target="onnxruntime")


@pytest.mark.parametrize("text", ["{", "[]", '"text"', "[" * 100_000, '{"target": 3}', "{}"])
def test_a_broken_contract_is_told_by_whoever_reads_it(tmp_path, text):
    """The choice takes such a file for portable; loading it then says what is wrong with its contract."""
    assert open_backend(write_sums(tmp_path / "model.onnx", metadata={METADATA_KEY: text}))[0].metadata


def test_unknown_backend(model_path):
    with pytest.raises(
        UsageError, match=r"backend is 'openvin', expected one of onnxruntime, .*, did you mean 'openvino'\?"
    ):
        open_backend(model_path, backend="openvin")
    assert backend_names()[:4] == ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "openvino")
    assert backend_names()[4:] == ("tensorrt", "tensorrt-rtx")


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_device_that_this_onnxruntime_has_not(model_path, name):
    import onnxruntime

    if any(each.startswith(("CUDA", "Tensorrt")) for each in onnxruntime.get_available_providers()):
        pytest.skip("this ONNX Runtime is one for GPUs")
    with pytest.raises(BackendError, match=r"was asked for, but .* has only .*pip install onnxruntime-gpu"):
        open_backend(model_path, backend=name)


def test_missing_file_folder_and_foreign_suffix(tmp_path):
    with pytest.raises(ModelFileError, match="is not a file"):
        open_backend(tmp_path / "nothing.onnx")
    with pytest.raises(ModelFileError, match="is not a file"):
        open_backend(tmp_path)
    for name, said in (("model.pth", r"no backend opens \.pth; expected \.onnx"), ("model", "without suffix")):
        (tmp_path / name).touch()
        with pytest.raises(ModelFileError, match=said):
            open_backend(tmp_path / name)


def test_text_file_under_the_name_of_a_model(tmp_path):
    (tmp_path / "notes.onnx").write_text("these are notes")
    with pytest.raises(ModelFileError, match="cannot be opened as an ONNX model"):
        open_backend(tmp_path / "notes.onnx")


def test_missing_libraries_name_the_extra(model_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"model\.onnx needs onnxruntime.*pip install 'sfpp\[cpu\]'"):
        open_backend(model_path, backend="onnxruntime")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert this_machine() == Machine(x86=this_machine().x86, onnxruntime=False, openvino=False, cuda=False)
    with pytest.raises(MissingDependencyError, match=r"model\.onnx needs onnxruntime"):
        open_backend(model_path)


@pytest.mark.parametrize(("name", "x86"), [("x86_64", True), ("AMD64", True), ("aarch64", False), ("arm64", False)])
def test_this_machine_is_told_without_importing_a_library(monkeypatch, tmp_path, name, x86):
    package = tmp_path / "onnxruntime"
    (package / "capi").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(choice.platform, "machine", lambda: name)
    assert (this_machine().x86, this_machine().onnxruntime, this_machine().cuda) == (x86, True, False)
    (package / "capi" / "libonnxruntime_providers_cuda.so").touch()
    assert this_machine().cuda


def test_float32_is_offered_where_less_was_taken_unasked():
    taken = FunctionBackend(lambda inputs: {}, metadata={}, precision="bf16")
    hint = choice._precision_hint(taken, BackendOptions())
    assert hint == "; bfloat16 is native here, --precision fp32 computes in float32"
    assert choice._precision_hint(taken, BackendOptions(precision="bf16")) == ""
    assert choice._precision_hint(FunctionBackend(lambda inputs: {}, metadata={}), BackendOptions()) == ""


def test_options_are_checked():
    for threads in (0, -1):
        with pytest.raises(UsageError, match=f"threads is {threads}, expected at least 1"):
            BackendOptions(threads=threads)
    with pytest.raises(
        UsageError, match=r"precision is 'fp23', expected one of fp32, bf16, fp16, .*, did you mean 'fp32'\?"
    ):
        BackendOptions(precision="fp23")
    assert [BackendOptions(precision=each).precision for each in PRECISIONS] == ["fp32", "bf16", "fp16"]


def test_options_and_notify_reach_the_backend(model_path, monkeypatch):
    seen = []

    def opener(*given, notify):
        seen.append((*given, notify))
        return FunctionBackend(lambda inputs: {}, metadata={})

    monkeypatch.setitem(choice._BACKENDS, "openvino", opener)
    options = BackendOptions(threads=3, profile=True)
    _, reason = open_backend(model_path, backend="openvino", options=options, notify=print)
    assert seen == [(model_path, options, print)]
    assert reason == "python function: as asked for"


def test_function_takes_the_place_of_a_library():
    backend = FunctionBackend(lambda inputs: {"y": inputs["x"] + 1}, metadata={"a": "b"})
    assert backend.run({"x": np.array([1])})["y"].tolist() == [2]
    assert backend.metadata == {"a": "b"}
    assert (backend.description, backend.inputs, backend.precision) == ("python function", (), "fp32")
    with pytest.raises(UsageError, match="python function did not measure its operators"):
        backend.operator_times_ms()
    backend.close()
