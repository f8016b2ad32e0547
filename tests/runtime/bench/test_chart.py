import importlib.util

import cv2
import numpy as np
import pytest

from sfpp.runtime.bench.chart import check_chart, draw_chart
from sfpp.runtime.errors import MissingDependencyError, SfppError, UsageError
from tests.runtime.bench.models import row

MACHINE = {"processor": "Some(R) Processor", "usable_cores": 2}
KNOWN = {"multiply_adds": 4_000_000_000, "activation_bytes": 80_000_000, "peak": 1.75e11}
ROWS = [
    row(infer_ms=(120.0, 130.0), model="original.onnx", **KNOWN),
    row(infer_ms=(39.0, 41.0), first_ms=(120.0, 130.0), model="cost $5 to $7.onnx", backend="openvino:bf16", **KNOWN),
]


def drawn(path, rows=ROWS, **options):
    draw_chart(rows, path, **{"copy_bytes_per_s": 2e10, "machine": MACHINE, **options})
    return path


def test_an_svg_holds_names_figures_and_ratios_as_text(tmp_path):
    text = drawn(tmp_path / "chart.svg").read_text(encoding="utf-8")
    for words in ("original", "cost $5 to $7", "openvino:bf16", "125 ms", "40.0 ms", "3.12x", "Some(R) Processor"):
        assert words in text, words
    assert "multiply-adds per byte" in text
    assert "mathdefault" not in text
    assert ">100<" in text
    assert "onnxruntime:fp32: at most 175" in text


def test_the_same_figures_give_the_same_file(tmp_path):
    assert drawn(tmp_path / "a.svg").read_bytes() == drawn(tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (ROWS, {"copy_bytes_per_s": None}),
        ([row(multiply_adds=5, peak=1e9)], {}),
        ([row(multiply_adds=5, activation_bytes=7)], {}),
    ],
)
def test_no_roofline_where_something_is_unknown(tmp_path, rows, options):
    assert "multiply-adds" not in drawn(tmp_path / "chart.svg", rows, **options).read_text(encoding="utf-8")


def test_longer_latencies_are_longer_bars(tmp_path):
    image = cv2.imread(str(drawn(tmp_path / "chart.PNG", copy_bytes_per_s=None)))
    colors = [(0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)]
    first, second = (int((image == color[::-1]).all(axis=2).sum()) for color in colors)
    assert first / second == pytest.approx(125 / 40, rel=0.05)
    assert np.all(image[0, 0] == 255)


def test_a_chart_of_nothing(tmp_path):
    with pytest.raises(SfppError, match="nothing was measured"):
        drawn(tmp_path / "chart.svg", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["chart.pdf", "chart", "png"])
def test_other_formats_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"give a name that ends in \.svg or \.png"):
        check_chart(tmp_path / name)


def test_the_missing_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"chart needs matplotlib.*pip install 'sfpp\[bench\]'"):
        check_chart(tmp_path / "chart.svg")
