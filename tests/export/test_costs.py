"""What a check takes: counted by hand, measured, and refused where there is less."""

import json
import os
import subprocess
import sys

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from sfpp.export import export_onnx, to_onnx
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.cli import main as export_main
from sfpp.export.costs import live_bytes
from sfpp.export.demo import demo_checkpoint
from sfpp.export.lowering import targets
from sfpp.export.models.recipe import NO_MERGING
from sfpp.export.parity import parity
from sfpp.export.parity.cli import main as parity_main
from sfpp.export.pytorch_costs import pytorch_bytes
from sfpp.runtime import resources
from sfpp.runtime.contract import InputSpec
from sfpp.runtime.errors import MemoryShortageError
from sfpp.runtime.resources import FreeMemory

FLOAT = TensorProto.FLOAT
REFUSED = r"takes about \d+\.\d GB of memory, and 0\.0 GB are left of what a test allows; take a smaller size \(--res\)"


def graph_of(nodes, shapes, *, outputs):
    infos = {name: helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in shapes.items()}
    inside = [infos[name] for name in shapes if name != "x" and name not in outputs]
    graph = helper.make_graph(nodes, "g", [infos["x"]], [infos[name] for name in outputs], value_info=inside)
    return helper.make_model(graph)


def node(op, inputs, output):
    return helper.make_node(op, inputs.split(), [output])


def test_tensors_count_from_where_they_are_made_to_where_they_are_last_read():
    model = graph_of(
        [node("Relu", "x", "a"), node("Relu", "a", "b"), node("Add", "a b", "c"), node("Relu", "c", "y")],
        {"x": [10], "a": [10], "b": [10], "c": [10], "y": [10]},
        outputs=["y"],
    )
    assert live_bytes(model) == 3 * 40  # a, b and c


def test_a_view_takes_nothing_and_keeps_what_it_shows():
    nodes = [node("Relu", "x", "a"), node("Reshape", "a s", "b"), node("Relu", "x", "c"), node("Add", "b c", "y")]
    model = graph_of(nodes, {"x": [10], "a": [10], "b": [2, 5], "c": [10], "y": [10]}, outputs=["y"])
    assert live_bytes(model) == 3 * 40  # a, c and y, when x is no longer needed


def test_what_the_next_needs_comes_first_whatever_the_order_in_the_file():
    nodes = [node("Tile", "x", f"big{i}") for i in range(3)] + [
        node("ReduceMax", f"big{i}", f"max{i}") for i in range(3)
    ]
    nodes += [node("Add", "max0 max1", "two"), node("Add", "two max2", "y")]
    shapes = {"x": [1], **{f"big{i}": [1000] for i in range(3)}, **{f"max{i}": [1] for i in range(3)}}
    model = graph_of(nodes, {**shapes, "two": [1], "y": [1]}, outputs=["y"])
    assert 4000 <= live_bytes(model) < 4100


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return export_onnx(path=tmp_path_factory.mktemp("small") / "model.onnx", res="128x96").path


def test_attention_in_parts_takes_less_and_fused_attention_nothing(small, tmp_path, monkeypatch):
    whole = onnx.load(small)
    scores = 768 * 12 * 4  # of stage 1, 32x24 queries and 4x3 keys
    monkeypatch.setattr(targets, "SCORE_BYTES_LIMIT", scores // 8)
    parts = onnx.load(export_onnx(path=tmp_path / "parts.onnx", res="128x96").path)
    assert len(parts.graph.node) > len(whole.graph.node)
    assert live_bytes(parts) <= live_bytes(whole)
    assert live_bytes(parts, fused=True) <= live_bytes(whole, fused=True) <= live_bytes(whole)


class Chain(torch.nn.Module):
    def forward(self, image, recipe):
        doubled = image * 2
        return torch.cat([doubled, image]).flatten().relu_()


def test_pytorchs_tensors_are_counted_while_somebody_holds_them():
    spec = InputSpec("frame", height=10, width=10)
    assert pytorch_bytes(Chain(), NO_MERGING, spec) == 3 * 100 * 4 * (1 + 2)  # doubled, and both side by side


MEASURE = """
import json, sys
from pathlib import Path
import numpy as np
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.demo import demo_checkpoint
from sfpp.export import pytorch_costs as costs
from sfpp.export.catalog import VARIANTS
from sfpp.export.parity.exported import _run_pytorch
from sfpp.export.to_onnx import learned_model
from sfpp.runtime.backends.onnxruntime import OnnxRuntimeBackend, session_bytes
from sfpp.runtime.contract import METADATA_KEY, contract_from_json
from sfpp.runtime.onnx_file import metadata_of

path, variant = Path(sys.argv[1]), sys.argv[2]
contract = contract_from_json(metadata_of(path)[METADATA_KEY])
network = learned_model(read_checkpoint(demo_checkpoint()))
frames = np.random.default_rng(0).integers(0, 256, contract.input.shape, np.uint8)
recipe = VARIANTS[variant]

def lines(name):
    return {line.split(":")[0]: line.split()[1] for line in open("/proc/self/status") if line.startswith("Vm")}[name]

def taken(work):
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = int(lines("VmRSS"))
    work()
    return (int(lines("VmHWM")) - before) * 1024

_run_pytorch(network, recipe, contract, frames)  # libraries load more on first use
measured = {
    "pytorch": taken(lambda: _run_pytorch(network, recipe, contract, frames)),
    "session": taken(lambda: OnnxRuntimeBackend(path).run({contract.input.name: frames})),
}
session = session_bytes(contract.live_bytes, path.stat().st_size)
pytorch = costs.pytorch_bytes(network, recipe, contract.input)
expected = {"pytorch": int(costs._PYTORCH * pytorch), "session": session}
print(json.dumps([measured, expected]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.slow
@pytest.mark.parametrize("variant", ["fast", "original"])
def test_estimates_are_near_what_is_measured(tmp_path, variant):
    report = export_onnx(path=tmp_path / "model.onnx", variant=variant, res="960x540")
    command = [sys.executable, "-c", MEASURE, str(report.path), variant]
    # Else memory that was given up stays with the process and is used again, which would not count as taken.
    prompt = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **prompt})
    measured, expected = json.loads(done.stdout)
    ratios = {name: expected[name] / measured[name] for name in measured}
    assert all(0.5 <= ratio <= 2 for ratio in ratios.values()), ratios


def test_pytorch_takes_the_threads_that_a_container_allows(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(to_onnx, "thread_limit", lambda: 1)
    try:
        to_onnx.learned_model(read_checkpoint(demo_checkpoint()))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def short(monkeypatch):
    """Let there be next to no memory."""
    monkeypatch.setattr(resources, "free_memory", lambda: FreeMemory(1000, "what a test allows"))


@pytest.mark.usefixtures("short")
def test_an_export_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path, capsys):
    with pytest.raises(MemoryShortageError, match=rf"^checking model\.onnx {REFUSED}"):
        export_onnx(path=tmp_path / "model.onnx", res="64x64")
    assert export_main(["--res", "64x64", "-o", str(tmp_path / "model.onnx")]) == 1
    assert "sfpp-export: error: checking model.onnx takes about 0." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_that_does_not_fit_is_refused(small, short, capsys):
    with pytest.raises(MemoryShortageError, match=rf"^comparing model\.onnx with PyTorch {REFUSED}"):
        parity(small)
    assert parity_main([str(small)]) == 1
    assert "sfpp-parity: error: comparing model.onnx with PyTorch takes about 0." in capsys.readouterr().err


def test_memory_that_runs_out_in_the_check_is_reported_as_that(tmp_path, monkeypatch):
    def no_memory(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2123366400 bytes")

    monkeypatch.setattr("sfpp.export.to_onnx.compare_with_pytorch", no_memory)
    with pytest.raises(
        MemoryShortageError, match=r"^checking model\.onnx ran out of memory \(it takes about 0\.\d GB\)"
    ):
        export_onnx(path=tmp_path / "model.onnx", res="64x64")
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
import cv2, onnxruntime, torch
import sfpp.export.to_onnx
from sfpp.export.cli import main

status = {line.split(":")[0]: line.split()[1] for line in open("/proc/self/status") if line.startswith("Vm")}
limit = int(status["VmData"]) * 1024 + (1000 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are read from /proc")
@pytest.mark.parametrize("variant", ["original", pytest.param("downsample", marks=pytest.mark.slow)])
def test_under_a_limit_an_export_ends_with_the_sentence(tmp_path, variant):
    """Which is set in earnest, for more than the libraries have by then, and less than the check takes."""
    options = ["--res", "3840x2160", "--variant", variant, "--target", "openvino", "-o", str(tmp_path / "m.onnx")]
    done = subprocess.run([sys.executable, "-c", LIMITED, *options], capture_output=True, text=True)
    assert done.returncode == 1
    assert "sfpp-export: error: checking m.onnx takes about " in done.stderr
    assert "that ulimit -d allows; take a smaller size (--res)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "checking against PyTorch" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from the process that ended")
@pytest.mark.parametrize("target", ["portable", "openvino", "onnxruntime"])
@pytest.mark.parametrize("variant", ["original", "hq", "fast", "2x2", "downsample", "kv2x2"])
def test_a_b0_is_exported_for_4k_frames_within_8_gb(tmp_path, variant, target):
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'sfpp.export.cli', *sys.argv[1:]], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    options = ["--res", "3840x2160", "--variant", variant, "--target", target, "-o", str(tmp_path / "m.onnx")]
    done = subprocess.run([sys.executable, "-c", script, *options], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) * 1024 < 8e9
