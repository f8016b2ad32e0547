import pytest

from benchmarks.gpu.contestants import placement
from benchmarks.gpu.results import GpuRow, Results, keep, read_gpu_results, tables
from sfpp.runtime.bench.row import Speedup
from sfpp.runtime.errors import UsageError
from sfpp.runtime.timing import summarize

DEVICE = {"card": "NVIDIA H9", "driver": "600.1", "cuda": "13.0", "torch": "2.11.0", "onnxruntime": "1.31.1"}


def gpu_row(name, *, size="1024x1024", backend="gpu:fp16", time_ms=None, **facts):
    time = None if time_ms is None else summarize([time_ms])
    return GpuRow("b5", size, name, backend, time=time, **facts)


ROWS = [
    gpu_row("original", time_ms=30.0, to_original=None),
    gpu_row(
        "fast",
        time_ms=9.876,
        whole_ms=12.5,
        to_sdpa=Speedup(3.111, 3.0, 3.204),
        to_original=Speedup(2.055, 2.0, 2.1),
        labels_as_reference=0.8,
        labels_as_same_merging=0.99,
        logits_error=0.0123,
        peak_memory_bytes=2_340_000_000,
        fallback_nodes={"ArgMax": 3, "OneHot": 2},
        copy_nodes=7,
        open_s=4.56,
    ),
    gpu_row("transformers", missing="BackendError: out of memory"),
    gpu_row("hq", size="3840x2160", backend="gpu:fp32", time_ms=99.0, to_original=Speedup(2.5, 2.4, 2.6)),
]


def test_the_tables_hold_the_figures_and_the_published_ones():
    facts = {"device": DEVICE, "tests": {"passed": 3, "failed": ["test_x"], "skipped": {"no library": 2}}}
    text = tables(Results(ROWS, facts))
    lines = text.splitlines()
    assert lines[0] == "NVIDIA H9: driver 600.1, CUDA 13.0, PyTorch 2.11.0, ONNX Runtime 1.31.1."
    published = [line for line in lines if line.startswith(("| width", "| 1024x1024", "| 3840x2160"))]
    assert published == [
        "| width x height | hq, published | fast, published "
        "| hq, float32 | hq, float16 | fast, float32 | fast, float16 |",
        "| 1024x1024 | 1.61x | 1.94x |  |  |  | 2.06x (2.00 to 2.10) |",
        "| 3840x2160 | 2.66x | 4.31x | 2.50x (2.40 to 2.60) |  |  |  |",
    ]
    assert (
        "| `fast` | 9.88 ms | 12.5 ms |  | 3.11x (3.00 to 3.20) |  | 2.06x (2.00 to 2.10) "
        "| 80.00 % | 99.00 % | 1.2e-02 | 2.34 GB | 5 (ArgMax, OneHot) | 7 | 4.6 s |" in lines
    )
    assert "| Transformers, `torch.onnx` | BackendError: out of memory |" in text
    assert "B5 at 3840x2160, float32:" in lines
    assert lines[-3:] == [
        "Tests that need a card: 3 passed, 1 failed, 2 skipped.",
        "* failed: test_x",
        "* skipped: no library",
    ]


def test_without_figures_it_says_so(tmp_path):
    assert tables(Results([], {})) == "No card yet: nothing was measured."
    with pytest.raises(UsageError, match="has no figures"):
        keep(tmp_path / "results.json", {})
    assert tables(Results([], {"tests": {"cut_off_after_s": 3.0}})).endswith("did not end (cut_off_after_s 3.0).")


def test_results_come_back_as_they_were_written(tmp_path):
    Results(ROWS, {"device": DEVICE}).write(tmp_path / "results.json")
    found = read_gpu_results(tmp_path / "results.json")
    assert found.rows == ROWS
    assert found.facts["device"] == DEVICE
    with pytest.raises(UsageError, match=r"there are no results in .*: run `python -m"):
        read_gpu_results(tmp_path / "none.json")


def test_nodes_of_another_provider_and_copies_are_counted():
    """As ONNX Runtime 1.31 writes its profile; a node has other events than the one of its kernel."""

    def event(name, op, provider, ending="kernel_time", cat="Node"):
        return {"cat": cat, "name": f"{name}_{ending}", "args": {"op_name": op, "provider": provider}}

    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    events = [
        {"cat": "Session", "name": "model_run", "args": {}},
        event("a", "MatMul", cuda),
        event("b", "ArgMax", cpu),
        event("c", "ArgMax", cpu),
        event("d", "Mod", cpu),
        event("d", "Mod", cpu, ending="fence_before"),
        event("e", "MemcpyToHost", cuda),
        event("f", "MemcpyFromHost", cuda),
        event("g", "MatMul", cuda, cat="Kernel"),
    ]
    assert placement(events, cuda) == ({"ArgMax": 2, "Mod": 1}, 2)
