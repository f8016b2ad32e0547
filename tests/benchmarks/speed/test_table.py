import pytest

from benchmarks.speed.table import backend_name, markdown_tables, overview_tables
from sfpp.runtime.bench.row import Speedup
from tests.benchmarks.speed.rows import speed_row


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("onnxruntime", "ONNX Runtime, float32"),
        ("openvino:bf16", "OpenVINO, bfloat16"),
        ("openvino", "OpenVINO"),
        ("pytorch:bf16", "PyTorch, attention written out, bfloat16"),
    ],
)
def test_backends_as_people_write_them(backend, name):
    assert backend_name(backend) == name


def test_a_table_for_each_network_and_backend():
    rows = [
        speed_row("transformers", time_ms=500.0),
        speed_row("transformers", "openvino:bf16", missing="16 GiB of scores"),
        speed_row(
            "fast:local",
            time_ms=40.04,
            to_transformers=Speedup(12.46, 12.0, 13.0),
            to_transformers_onnxruntime=Speedup(12.46, 12.0, 13.0),
            to_original=Speedup(2.345, 2.0, 3.0),
            labels_as_reference=0.98765,
            labels_as_exact=0.995,
            peak_memory_bytes=1_580_000_000,
            multiply_adds=2_449_000_000,
            share_of_peak=0.567,
        ),
    ]
    first, second = (table.splitlines() for table in markdown_tables(rows).split("\n\nB0, "))
    assert first[0] == "B0, ONNX Runtime, float32:"
    assert first[-2:] == [
        "| 512x512 | Transformers, `torch.onnx` | 500 ms |  |  |  |  |  |  |  |  |",
        "| 512x512 | `fast:local` | 40.0 ms | 12.5x | 12.5x | 2.35x | 98.77 % | 99.50 % | 1.58 GB | 2.4 | 57 % |",
    ]
    assert second[0] == "OpenVINO, bfloat16:"
    assert "| 16 GiB of scores |" in second[-1]
    assert {line.count("|") for line in (*first[2:], *second[2:])} == {12}


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [(1.234, "1.23 ms"), (9.97, "10.0 ms"), (99.6, "100 ms"), (9_990, "9990 ms"), (12_340, "12.3 s")],
)
def test_times_have_three_figures_or_so(time_ms, text):
    assert f"| {text} |" in markdown_tables([speed_row(time_ms=time_ms)])


def test_the_overview_has_a_column_for_each_size():
    faster, twice = Speedup(3.11, 3.0, 3.2), Speedup(2.0, 1.9, 2.1)
    rows = [
        speed_row("transformers", size="2048x2048", missing="16 GiB of scores"),
        speed_row("original", size="2048x2048", time_ms=900.0, to_original=Speedup(1.0, 1.0, 1.0)),
        speed_row("fast", size="2048x2048", time_ms=450.0, to_original=twice, labels_as_reference=0.9),
        speed_row("fast", "openvino:bf16", time_ms=45.0),
        speed_row("transformers", time_ms=500.0, to_transformers=Speedup(1.0, 1.0, 1.0)),
        speed_row("fast", time_ms=77.0, labels_as_reference=0.8),
        speed_row("original", time_ms=160.8, to_transformers=faster, to_original=Speedup(1.0, 1.0, 1.0)),
    ]
    assert overview_tables(rows).splitlines() == [
        "SegFormer-B0:",
        "",
        "| backend | graph | 512x512 | 2048x2048 | labels |",
        "|---|---|---|---|---|",
        "| ONNX Runtime, float32 | Transformers, `torch.onnx` | 500 ms | 16 GiB of scores |  |",
        "| ONNX Runtime, float32 | `original` | 161 ms, 3.11x | 900 ms |  |",
        "| ONNX Runtime, float32 | `fast` | 77.0 ms | 450 ms (2.00x) | 80.0 % |",
        "| OpenVINO, bfloat16 | `fast` | 45.0 ms |  |  |",
    ]
