"""The INT8 benchmark: which kinds of CPU it asks, what runs in one process, and whose figures it keeps."""

import json
from pathlib import Path

import pytest

from benchmarks import int8
from benchmarks.int8 import Candidate, Row, candidates, caps_below, kept, rows

AMX = ["avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"]
FILES = [
    ("float32 for OpenVINO", Path("p.onnx"), "openvino"),
    ("INT8", Path("p.int8.onnx"), "openvino"),
    ("float32 for ONNX Runtime", Path("o.onnx"), "onnxruntime"),
    ("INT8", Path("o.int8.onnx"), "onnxruntime"),
]


@pytest.mark.parametrize(
    ("has", "caps"),
    [
        (["asimd"], []),
        (["avx2"], []),
        (["avx2", "avx_vnni"], ["AVX2"]),
        (["avx2", "avx512f"], ["AVX2"]),
        (["avx2", "avx512f", "avx512_vnni"], ["AVX2", "AVX512_CORE"]),
        (["avx2", "avx512f", "avx512_vnni", "avx512_bf16"], ["AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"]),
        (AMX, ["AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"]),
    ],
)
def test_a_cpu_stands_for_those_that_have_less(has, caps):
    assert caps_below(has) == caps


def test_every_process_starts_with_the_file_that_all_are_compared_with():
    for capped, bfloat16, expected in (
        (False, True, ["o", "p", "p:bf16", "p.int8", "p.int8:bf16", "o.int8"]),
        (False, False, ["o", "p", "p.int8", "o.int8"]),
        (True, True, ["o", "p", "p.int8"]),
    ):
        found = list(candidates(FILES, capped=capped, bfloat16=bfloat16))
        names = [Path(each.path).stem + ":bf16" * (each.precision == "bf16") for each in found]
        assert names == expected


def found_with(mean_iou, *times):
    return {"mean_iou": mean_iou, "agreement": 0.99, "times": times}


def test_ratios_are_of_the_same_library(tmp_path):
    for name in ("o", "p", "q"):
        (tmp_path / name).write_bytes(bytes(10))
    chosen = [
        Candidate("float32 for ONNX Runtime", str(tmp_path / "o"), "onnxruntime", "fp32"),
        Candidate("float32 for OpenVINO", str(tmp_path / "p"), "openvino", "fp32"),
        Candidate("float32 for OpenVINO", str(tmp_path / "p"), "openvino", "bf16"),
        Candidate("INT8", str(tmp_path / "q"), "openvino", "fp32"),
    ]
    found = [found_with(0.5, 9, 9, 9), found_with(0.5, 4, 8, 6), found_with(0.5, 2, 4, 3), found_with(0.49, 1, 2, 6)]
    *_, row = rows("fast", "", chosen, found)
    assert (row.to_float32, row.to_bfloat16, row.lost) == (4, 2, pytest.approx(1))
    assert (row.cpu_ms, row.size_bytes) == (2000, 10)
    capped = rows("fast", "AVX2", chosen, found)
    assert [each.backend for each in capped] == ["openvino:fp32", "openvino:bf16", "openvino:fp32"]


def test_what_other_machines_measured_stays(tmp_path, monkeypatch):
    def row(variant, lost):
        return Row(variant, "INT8", "openvino:fp32", "", 10, 0.5, lost, 0.99, 20.0, 1.5, None)

    output = tmp_path / "int8.json"
    for has, variant, lost in ((["amx_int8"], "fast", 0.1), (["avx2"], "fast", 0.2), (["avx2"], "hq", 0.3)):
        monkeypatch.setattr(int8, "machine", lambda has=has: {"instruction_sets": has})
        kept(output, [row(variant, lost)])
    kept(output, [row("fast", 0.4)])
    stored = {tuple(each["machine"]["instruction_sets"]): each["results"] for each in json.loads(output.read_text())}
    assert [each["lost"] for each in stored[("amx_int8",)]] == [0.1]
    assert {each["variant"]: each["lost"] for each in stored[("avx2",)]} == {"hq": 0.3, "fast": 0.4}
