import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sfpp.runtime.bench import memory
from sfpp.runtime.bench.memory import MemoryRequest, model_peak_bytes, process_peak_bytes
from sfpp.runtime.errors import BackendError
from tests.runtime.bench.models import write_foreign, write_large, write_ours

MB = 1_000_000


def request(path, **changes):
    plain = MemoryRequest(model=str(path), backend="onnxruntime", precision=None, threads=1, frame=None, fitted=False)
    return replace(plain, **changes)


def test_the_peak_is_that_of_the_models_own_process(tmp_path):
    """This process holds more than the child needs, and the child of a larger model needs as much more as it fills."""
    held = np.ones(300 * MB, np.uint8)
    small = model_peak_bytes(request(write_foreign(tmp_path / "small.onnx")))
    large = model_peak_bytes(request(write_large(tmp_path / "large.onnx", megabytes=200)))
    assert 10 * MB < small < process_peak_bytes() - 100 * MB
    assert large - small > 190 * MB
    assert held.all()


def test_a_model_with_a_contract_gets_the_frame_from_a_file(tmp_path):
    np.save(tmp_path / "frame.npy", np.zeros((48, 64, 3), np.uint8))
    path = write_ours(tmp_path / "ours.onnx")
    assert model_peak_bytes(request(path, frame=str(tmp_path / "frame.npy"), fitted=True)) > 10 * MB


def test_open_sizes_and_failures_cross_over(tmp_path):
    path = write_foreign(tmp_path / "open.onnx", shape=("n", 3))
    assert model_peak_bytes(request(path, shapes={"": (4, 3)})) > 10 * MB
    with pytest.raises(BackendError, match=r"failed: memory: error: the input 'x' has the shape \?x3, whose open"):
        model_peak_bytes(request(path))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_process_is_named(monkeypatch):
    done = subprocess.CompletedProcess([], returncode=-9, stdout="", stderr="")
    monkeypatch.setattr(memory.subprocess, "run", lambda *arguments, **options: done)
    with pytest.raises(BackendError, match="killed by signal 9, as when memory runs out"):
        model_peak_bytes(request("model.onnx"))


def test_the_last_line_counts(monkeypatch):
    done = subprocess.CompletedProcess([], returncode=0, stdout="a library says hello\n12345\n", stderr="warning")
    monkeypatch.setattr(memory.subprocess, "run", lambda *arguments, **options: done)
    assert model_peak_bytes(request("model.onnx")) == 12345


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_high_water_mark_of_linux(monkeypatch, tmp_path):
    (tmp_path / "status").write_text("Name:\tpython\nVmPeak:\t  999999 kB\nVmHWM:\t  2048 kB\nVmRSS:\t 1000 kB\n")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    assert process_peak_bytes() == 2 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="units differ")
def test_other_systems_are_asked_for_their_resources(monkeypatch, tmp_path):
    known = process_peak_bytes()
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "nothing")
    assert process_peak_bytes() >= 0.5 * known
