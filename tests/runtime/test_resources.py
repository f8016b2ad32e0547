"""Cores and memory of containers and limits, read from trees like those that Linux shows."""

import importlib.util
import os
import subprocess
import sys

import pytest

from sfpp.runtime import resources
from sfpp.runtime.errors import MemoryShortageError
from sfpp.runtime.resources import free_memory, is_out_of_memory, memory_for, thread_limit, usable_cores

GIB = 2**30
MEMINFO = "MemTotal:       16000000 kB\nMemFree: 1000 kB\nMemAvailable:    8000000 kB\nSwapFree: 0 kB\n"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return what writes files into a machine of 16 GB and 8 cores with two threads each, all of them allowed."""
    for name in ("proc", "sys"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(resources, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(resources, "_GROUPS", tmp_path / "sys/fs/cgroup")
    monkeypatch.setattr(resources, "_CPUS", tmp_path / "sys/devices/system/cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    write({"proc/meminfo": MEMINFO})
    write({f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 8},{n % 8 + 8}" for n in range(16)})
    return write


def group(folder, **files):
    """Return files of a control group; ``memory_max`` stands for ``memory.max``."""
    return {f"sys/fs/cgroup/{folder}{name.replace('_', '.', 1)}": f"{text}\n" for name, text in files.items()}


def test_a_machine_without_containers_gives_all_it_has(machine):
    assert free_memory().bytes == 8_000_000 * 1024
    assert free_memory().limit == "this machine's memory"
    assert usable_cores() == 16
    assert thread_limit() is None


def test_what_can_be_moved_to_disk_counts(machine):
    machine({"proc/meminfo": MEMINFO.replace("SwapFree: 0", "SwapFree: 500")})
    assert free_memory().bytes == 8_000_500 * 1024


def test_memory_of_a_container_of_version_2(machine):
    machine({"proc/self/cgroup": "0::/\n"})
    machine(group("", memory_max=4 * GIB, memory_current=3 * GIB, memory_stat=f"anon 5\ninactive_file {2 * GIB}"))
    assert free_memory().bytes == 3 * GIB
    assert free_memory().limit == "the 4.3 GB of this container or control group"


def test_the_narrowest_of_nested_groups_counts(machine):
    machine({"proc/self/cgroup": "0::/user.slice/session.scope\n"})
    machine(group("user.slice/session.scope/", memory_max="max", memory_current=GIB))
    machine(group("user.slice/", memory_max=2 * GIB, memory_current=GIB))
    assert free_memory().bytes == GIB


def test_memory_of_a_container_of_version_1(machine):
    machine({"proc/self/cgroup": "5:cpu,cpuacct:/docker/f00\n4:memory:/docker/f00\n0::/docker/f00\n"})
    # Within the container the path is that outside; the container's own group is what is mounted.
    machine(
        group(
            "memory/",
            memory_limit_in_bytes=2 * GIB,
            memory_usage_in_bytes=2 * GIB,
            memory_stat=f"inactive_file 1\ntotal_inactive_file {GIB // 2}",
        )
    )
    assert free_memory().bytes == GIB // 2


def test_version_1_without_a_limit_has_none(machine):
    machine({"proc/self/cgroup": "4:memory:/\n"})
    machine(group("memory/", memory_limit_in_bytes=9223372036854771712, memory_usage_in_bytes=GIB))
    assert free_memory().limit == "this machine's memory"


def test_a_group_that_is_overfull_has_nothing_left(machine):
    machine({"proc/self/cgroup": "0::/\n", **group("", memory_max=GIB, memory_current=2 * GIB)})
    assert free_memory().bytes == 0


@pytest.mark.parametrize(
    ("quota", "cores"), [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 16), ("3200000 100000", 16)]
)
def test_cores_by_quota_of_version_2(machine, quota, cores):
    machine({"proc/self/cgroup": "0::/box\n", **group("box/", cpu_max=quota)})
    assert usable_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [(300000, 3), (-1, 16)])
def test_cores_by_quota_of_version_1(machine, quota, cores):
    machine({"proc/self/cgroup": "5:cpu,cpuacct:/box\n"})
    machine(group("cpu/box/", cpu_cfs_quota_us=quota, cpu_cfs_period_us=100000))
    assert usable_cores() == cores


def test_libraries_are_limited_to_whole_cores_of_what_is_allowed(machine, monkeypatch):
    machine({"proc/self/cgroup": "0::/\n", **group("", cpu_max="1200000 100000")})
    assert (usable_cores(), thread_limit()) == (12, 8)  # a thread for each core, as libraries choose by themselves
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 8, 3})
    assert (usable_cores(), thread_limit()) == (3, 2)  # 0 and 8 are one core


def test_a_system_that_tells_nothing_limits_nothing(machine, tmp_path, monkeypatch):
    (tmp_path / "proc/meminfo").unlink()
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert free_memory() is None
    assert usable_cores() == 16
    with memory_for("a test", 10**15, advice="none"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are read from /proc")
@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_the_limits_of_a_shell_count(kind):
    script = (
        f"import resource; resource.setrlimit(resource.{kind}, (3 << 30, 3 << 30))\n"
        "from sfpp.runtime.resources import free_memory; print(free_memory().bytes, free_memory().limit)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    free, _, limit = done.stdout.partition(" ")
    assert 2 * GIB < int(free) < 3 * GIB
    assert limit.startswith("the 3.2 GB that ulimit -")


def test_work_that_does_not_fit_is_refused_before_it_begins(machine):
    with (
        pytest.raises(
            MemoryShortageError,
            match=r"^checking x takes about 9\.0 GB of memory, and 8\.2 GB are left of this machine's memory; take le",
        ),
        memory_for("checking x", 9_000_000_000, advice="take less"),
    ):
        pytest.fail("it began")


def test_memory_that_runs_out_all_the_same_is_reported(machine):
    with (
        pytest.raises(
            MemoryShortageError, match=r"^checking x ran out of memory \(it takes about 1\.0 GB\); take less$"
        ),
        memory_for("checking x", 1_000_000_000, advice="take less"),
    ):
        raise MemoryError


def test_other_failures_stay_what_they_are(machine):
    with pytest.raises(ValueError, match="something else"), memory_for("checking x", 1, advice="take less"):
        raise ValueError("something else")


def test_every_library_is_understood_when_it_has_no_memory(tmp_path):
    """Each in a process that may have 2 GB, asked for 8."""
    script = """
import resource, sys
from pathlib import Path
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper
from sfpp.runtime.backends import BackendOptions, open_backend
from sfpp.runtime.resources import is_out_of_memory

def big(path):
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [2**16, 2**15])
    nodes = [helper.make_node("Expand", ["x", "shape"], ["a"]), helper.make_node("Add", ["a", "a"], ["b"]),
             helper.make_node("Softmax", ["b"], ["c"]), helper.make_node("ReduceMax", ["c"], ["y"], keepdims=0)]
    info = helper.make_tensor_value_info
    x, y = info("x", TensorProto.FLOAT, [1, 1]), info("y", TensorProto.FLOAT, [])
    graph = helper.make_graph(nodes, "g", [x], [y], [shape])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path

def run(backend):
    opened, _ = open_backend(Path(big(sys.argv[1])), backend=backend, options=BackendOptions(cache=False))
    opened.run({"x": np.ones((1, 1), np.float32)})

asks = {
    "numpy": lambda: np.ones(2**31, np.float32),
    "onnxruntime": lambda: run("onnxruntime"),
    "openvino": lambda: run("openvino"),
}
import openvino
try:
    import torch
    asks["torch"] = lambda: torch.ones(2**31)
except ImportError:
    pass
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
for name, ask in asks.items():
    try:
        ask()
        print(name, "got it")
    except Exception as error:
        print(name, is_out_of_memory(error), repr(str(error))[:300])
"""
    command = [sys.executable, "-c", script, str(tmp_path / "big.onnx")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert {name: line.split()[1] for name, line in said.items()} == dict.fromkeys(said, "True"), said
    with_torch = {"torch"} if importlib.util.find_spec("torch") else set()
    assert set(said) == {"numpy", "onnxruntime", "openvino"} | with_torch


def test_what_is_no_lack_of_memory_is_not_taken_for_it():
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("the memory layout is unknown"))
