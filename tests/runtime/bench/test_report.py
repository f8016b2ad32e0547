from sfpp.runtime.bench.report import table_lines
from sfpp.runtime.bench.row import backend_label, row_labels
from sfpp.runtime.model import SelfTestState
from tests.runtime.bench.models import row

FIRST = [40.0, 42.0, 44.0]
FAST = row(
    infer_ms=(10.0, 21.0, 11.0),
    first_ms=FIRST,
    model="out/fast.onnx",
    backend="openvino:bf16",
    precision="bf16",
    task="segmentation",
    self_test=SelfTestState("passed"),
    load_ms=1234.4,
    cached_load_ms=56.0,
    peak_memory_bytes=300 * 2**20,
    multiply_adds=5_500_000_000,
    peak=1e12,
)


def test_a_table_with_everything():
    lines = table_lines([row(infer_ms=FIRST, model="out/original.onnx"), FAST], copy_bytes_per_s=24.04e9)
    assert lines[:3] == [
        "model     backend           self-test  p50 ms  p90 ms  p99 ms  mean ms  spread              speed  frame ms"
        "   load ms  peak MiB  G madds  G madds/s  of peak",
        "original  onnxruntime:fp32  off          42.0    43.6    44.0     42.0      5%  1.00x (1.00-1.00)         -"
        "         -         -        -          -        -",
        "fast      openvino:bf16     passed       11.0    19.0    20.8     14.0     50%  4.00x (3.00-4.00)      14.0"
        "  1234, 56       300      5.5        500      50%",
    ]
    assert lines[-2:] == [
        "peak of Library 1.0 on the CPU, bf16: 1000 G multiply-adds/s (products of 1024x512)",
        "memory: 24.0 GB/s read and written in a large copy",
    ]
    legend = "\n".join(lines[3:-2])
    for word in ("p50", "spread", "speed", "frame ms", "load ms", "peak MiB", "G madds", "of peak"):
        assert word in legend


def test_a_failure_says_why_and_others_keep_their_figures():
    failed = row(infer_ms=(), backend="openvino", failure="the target is unknown", precision=None)
    later = row(model="b.onnx", failure="out of luck", memory_failure="killed")
    lines = table_lines([failed, later])
    assert lines[1].split() == ["model", "openvino", "off", "failed", *"-" * 11]
    assert lines[2].split()[3] == "10.0"
    assert lines[-3:] == [
        "model, openvino: the target is unknown",
        "b, onnxruntime: out of luck",
        "b, onnxruntime: killed",
    ]


def test_no_legend_without_figures():
    assert len(table_lines([row(infer_ms=(), failure="no")])) == 3


def test_operators_are_ranked_and_the_rest_is_summed_up():
    operators = {f"Op{index}": float(index) for index in range(1, 15)}
    lines = table_lines([row(operators_ms=operators)])
    start = lines.index("model, onnxruntime: time by operator in a profiled run")
    assert lines[start + 1].split() == ["Op14", "14.00", "ms", "13.3%"]
    assert [line.split()[0] for line in lines[start + 1 : start + 13]] == [f"Op{index}" for index in range(14, 2, -1)]
    assert lines[start + 13 :] == ["  2 others   3.00 ms   2.9%"]


def test_models_of_one_name_are_told_apart_by_their_folders():
    rows = [row(model=path) for path in ("a/x.onnx", "b/x.onnx", "b/x.onnx", "b/y.onnx")]
    assert row_labels(rows) == ["a/x.onnx", "b/x.onnx", "b/x.onnx", "y"]


def test_a_backend_says_what_it_computes_in():
    assert backend_label(row(backend="openvino:fp32", precision="fp32")) == "openvino:fp32"
    assert backend_label(row(backend="auto", precision="bf16")) == "auto:bf16"
    assert backend_label(row(backend="auto", precision=None)) == "auto"


def test_which_library_was_chosen_is_told():
    chosen, named = row(backend="auto:fp32"), row(backend="openvino")
    assert "model, auto:fp32: runs in Library 1.0 on the CPU" in table_lines([chosen])
    assert not any("runs in" in line for line in table_lines([named]))
