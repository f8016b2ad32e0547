import re

import pytest

from benchmarks.speed.chart import draw_growth, spread_out, styles
from sfpp.runtime.errors import SfppError, UsageError
from tests.benchmarks.speed.rows import speed_row

ROWS = [
    speed_row("transformers", size="512x512", time_ms=250.0),
    speed_row("transformers", size="3840x2160", missing="16 GiB of scores"),
    *(
        speed_row(name, size=size, time_ms=20.0 * (1 + 9 * (size != "512x512")))
        for name in ("original", "fast", "fast:local")
        for size in ("512x512", "3840x2160")
    ),
    speed_row("original", "openvino:bf16", time_ms=5.0),
    speed_row("fast", "openvino:fp32", time_ms=5.0),
]


def drawn(path, **options):
    draw_growth(ROWS, path, **{"network": "b0", "backends": ["onnxruntime", "openvino:bf16"], **options})
    return path


def test_panels_lines_and_reasons_as_text(tmp_path):
    text = drawn(tmp_path / "growth.svg").read_text(encoding="utf-8")
    for words in ("B0, ONNX Runtime, float32", "B0, OpenVINO, bfloat16", "Transformers, torch.onnx", "fast:local"):
        assert words in text, words
    assert "beyond: 16 GiB of scores" in text
    assert "OpenVINO, float32" not in text
    assert re.search(r">100 ms<", text)
    assert drawn(tmp_path / "again.svg").read_text(encoding="utf-8") == text


def test_a_backend_without_a_time_has_no_panel(tmp_path):
    text = drawn(tmp_path / "growth.svg", backends=["openvino:bf16", "openvino:fp16"]).read_text(encoding="utf-8")
    assert text.count("one run of the network") == 1
    assert "float16<" not in text.replace("bfloat16<", "")


def test_nothing_to_draw_and_another_format(tmp_path):
    with pytest.raises(SfppError, match="no row of b5 on onnxruntime has a time"):
        drawn(tmp_path / "growth.svg", network="b5", backends=["onnxruntime"])
    with pytest.raises(UsageError, match=r"\.svg or \.png"):
        drawn(tmp_path / "growth.pdf")


def test_a_variant_has_one_color_and_local_matching_dashes():
    look = styles(ROWS)
    assert look["fast"][0] == look["fast:local"][0] != look["original"][0]
    assert (look["fast"][1], look["fast:local"][1]) == ("-", "--")
    assert look["transformers"][0] not in (look["fast"][0], look["original"][0])


def test_names_are_spread_out_from_the_lowest_up():
    values = {"a": 10.0, "b": 1.0, "c": 1.05, "d": 1.1}
    assert spread_out(values, gap=2.0) == {"b": 1.0, "c": 2.0, "d": 4.0, "a": 10.0}
