"""What is OpenVINO's own: precision, the kept models, its import."""

import os
import platform
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import helper

from sfpp.runtime.backends import BackendOptions, OpenVinoBackend, openvino
from sfpp.runtime.contract import METADATA_KEY
from sfpp.runtime.errors import MissingDependencyError, UsageError
from tests.runtime.backends.graphs import write_graph, write_sums

pytest.importorskip("openvino", reason="OpenVINO is not installed")

CONTRACT = {METADATA_KEY: "{}"}  # enough for a file to be taken for one of ours
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


class FakeCore:
    """A CPU that can do what it is told it can."""

    def __init__(self, *capabilities):
        self.properties = {"OPTIMIZATION_CAPABILITIES": list(capabilities), "FULL_DEVICE_NAME": "Test CPU"}

    def get_property(self, device, name):
        assert device == "CPU"
        return self.properties[name]


@pytest.mark.parametrize(
    ("capabilities", "wanted", "taken"),
    [
        (["FP32", "INT8"], None, "fp32"),
        (["BF16", "FP32", "FP16"], None, "bf16"),
        (["FP32", "FP16"], None, "fp32"),
        (["BF16", "FP32"], "fp32", "fp32"),
        (["BF16", "FP32", "FP16"], "fp16", "fp16"),
    ],
)
def test_precision_by_what_the_cpu_has_and_the_users_wish(capabilities, wanted, taken):
    assert openvino._precision_on(FakeCore(*capabilities), wanted) == taken


def test_a_precision_that_the_cpu_has_not():
    with pytest.raises(UsageError, match=r"bf16 was asked for, but this CPU \(Test CPU\) computes in fp32, fp16 only"):
        openvino._precision_on(FakeCore("FP32", "FP16", "INT8"), "bf16")


@pytest.mark.parametrize(("allowed", "asked_for", "taken"), [(None, None, None), (2, None, 2), (2, 3, 3), (None, 3, 3)])
def test_threads_follow_what_a_container_allows(monkeypatch, allowed, asked_for, taken):
    monkeypatch.setattr(openvino, "thread_limit", lambda: allowed)
    options = openvino._core_settings(BackendOptions(threads=asked_for), "fp32")
    assert options.get("INFERENCE_NUM_THREADS") == taken


def native(*precisions):
    """Skip unless this CPU has them all."""
    import openvino as library

    has = library.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision in precisions:
        if precision.upper() not in has:
            pytest.skip(f"this CPU has no native {precision}")


def write_products(path, *, scale=1.0, metadata=CONTRACT):
    """Write a matrix product, large enough that its rounding tells the precision; the scale makes two files differ."""
    weights = scale * np.random.default_rng(7).normal(size=(64, 64)).astype(np.float32)
    constant = helper.make_tensor("w", 1, weights.shape, weights.ravel())
    nodes = [
        helper.make_node("Constant", [], ["w"], value=constant),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Softmax", ["m"], ["y"], axis=-1),
    ]
    return write_graph(path, nodes, {"x": (64, 64)}, {"y": (64, 64)}, metadata=metadata)


def answer(path, **options):
    x = np.random.default_rng(8).normal(size=(64, 64)).astype(np.float32)
    backend = OpenVinoBackend(path, BackendOptions(threads=1, **options))
    return backend.run({"x": x})["y"]


def test_precision_is_what_is_computed_in_and_said(tmp_path):
    native("bf16")
    path = write_products(tmp_path / "model.onnx")
    exact, rounded = answer(path, precision="fp32"), answer(path, precision="bf16")
    assert rounded.dtype == np.float32
    assert 1e-4 < abs(rounded - exact).max() < 0.05
    np.testing.assert_array_equal(rounded, answer(path))
    backend = OpenVinoBackend(path)
    assert backend.precision == "bf16"
    assert backend.description.endswith("on the CPU in bfloat16")
    assert OpenVinoBackend(path, BackendOptions(precision="fp32")).description.endswith("on the CPU in float32")


def test_a_kept_model_gives_the_same_answer(tmp_path, cache):
    path = write_products(tmp_path / "model.onnx")
    without = answer(path, cache=False)
    assert not cache.exists()
    first = answer(path)
    kept = {each: each.stat().st_mtime_ns for each in cache.rglob("*.blob")}
    assert len(kept) == 1
    again = answer(path)
    assert {each: each.stat().st_mtime_ns for each in cache.rglob("*.blob")} == kept  # read, not made anew
    np.testing.assert_array_equal(without, first)
    np.testing.assert_array_equal(without, again)


def test_a_model_kept_in_one_precision_is_not_used_for_another(tmp_path):
    native("bf16")
    path = write_products(tmp_path / "model.onnx")
    for precision in ("fp32", "bf16", "fp32"):
        np.testing.assert_array_equal(answer(path, precision=precision), answer(path, precision=precision, cache=False))


def test_a_changed_file_is_compiled_anew(tmp_path):
    """Of the same size and written within the same moment, as an export in a loop would do."""
    path = write_products(tmp_path / "model.onnx")
    before, size = answer(path, precision="fp32"), path.stat().st_size
    stamp = path.stat().st_atime_ns, path.stat().st_mtime_ns
    write_products(path, scale=-1.0)
    os.utime(path, ns=stamp)
    assert path.stat().st_size == size
    after = answer(path, precision="fp32")
    assert abs(after - before).max() > 0.1
    np.testing.assert_array_equal(after, answer(path, precision="fp32", cache=False))


def test_what_was_compiled_for_another_kind_of_cpu_is_not_taken(tmp_path, cache, monkeypatch):
    path = write_products(tmp_path / "model.onnx")
    answer(path)
    monkeypatch.setattr(openvino, "cpu_kind", lambda: "another")
    answer(path)
    assert len(list(cache.rglob("*.blob"))) == 2


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"x" * 999])
def test_a_damaged_kept_model_is_made_anew(tmp_path, cache, damage):
    path = write_products(tmp_path / "model.onnx")
    expected = answer(path)
    (kept,) = cache.rglob("*.blob")
    kept.write_bytes(damage(kept.read_bytes()))
    np.testing.assert_array_equal(answer(path), expected)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SFPP_CACHE", str(tmp_path / "file"))
    assert np.isfinite(answer(write_products(tmp_path / "model.onnx"))).all()


def test_a_foreign_model_is_not_kept(tmp_path, cache):
    answer(write_products(tmp_path / "model.onnx", metadata={}))
    assert not cache.exists()


def test_missing_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"model\.onnx in OpenVINO needs openvino.*'sfpp\[openvino\]'"):
        OpenVinoBackend(write_sums(tmp_path / "model.onnx"))
    assert "openvino_telemetry" not in sys.modules or sys.modules["openvino_telemetry"] is not None


# Of an ARM processor OpenVINO reads who made it, and says so on standard error where the kernel does not show it.
MIDR = Path("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1")


@pytest.mark.skipif(
    platform.machine() == "aarch64" and not MIDR.exists(), reason=f"OpenVINO tells that {MIDR} is missing"
)
def test_its_import_starts_no_telemetry(tmp_path):
    path = write_sums(tmp_path / "model.onnx")
    program = f"""
import sys, threading
from pathlib import Path
from sfpp.runtime.backends import OpenVinoBackend
OpenVinoBackend(Path({str(path)!r}))
assert "openvino" in sys.modules
assert not any(name.split(".")[0] == "openvino_telemetry" for name in sys.modules)
assert threading.enumerate() == [threading.main_thread()]
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_times_from_the_profile_of_the_nodes():
    times_us = [("Add", 400), ("MatMul", 3000), ("Result", 0), ("MatMul", 1500)]
    nodes = [SimpleNamespace(node_type=kind, real_time=timedelta(microseconds=time)) for kind, time in times_us]
    assert list(openvino.times_from_nodes(nodes).items()) == [("MatMul", 4.5), ("Add", 0.4)]


def test_the_useful_line_of_an_error():
    text = "Exception from src/core.cpp:132:\nCheck 'false' failed at x.cpp:1:\nIt is too large.\nmore"
    assert openvino._useful_line(RuntimeError(text)) == "It is too large"
    summary = "Exception from a:1:\nModel wasn't fully converted.\nSummary:\n-- No conversion rule found for: Nonsense"
    assert openvino._useful_line(RuntimeError(summary)) == "No conversion rule found for: Nonsense"
    assert openvino._useful_line(RuntimeError("Exception from a:1:")) == "Exception from a:1:"
    assert openvino._useful_line(RuntimeError()) == "RuntimeError"


DROPPED_ELSEWHERE = """
import gc, os, pathlib, signal, sys, threading
from sfpp.runtime.backends import BackendOptions, OpenVinoBackend

held = [OpenVinoBackend(pathlib.Path(sys.argv[1]), BackendOptions(cache=False))]
thread = threading.Thread(target=lambda: (held.clear(), gc.collect()))
thread.start()
thread.join()
signal.signal(signal.SIGINT, lambda *told: print("heard"))
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_signal_is_heard_after_a_model_was_dropped_in_another_thread(tmp_path):
    """With AMX, OpenVINO gives the loading thread a stack for signals, and must not free it in a second one."""
    path = write_sums(tmp_path / "model.onnx")
    program = [sys.executable, "-X", "faulthandler", "-c", DROPPED_ELSEWHERE, path]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
