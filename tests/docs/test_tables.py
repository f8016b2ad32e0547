"""The tables of the pages, and the figures that README and the recipes quote, are those of benchmarks/results."""

import importlib.metadata
import itertools
import re

import pytest

from benchmarks.camvid_accuracy import CaseResult
from benchmarks.engines import Build
from benchmarks.tables import PAGES, ROOT, TABLES, content, filled, main, rows, speed_rows
from sfpp.export.parity.exported import MAX_ERROR

MERGING = ("hq", "fast", "fast:local", "2x2")
SIZES = ("1024x1024", "2048x2048")


def words(page):
    """Return a page's text with single spaces, so that a sentence is found wherever its lines break."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def speedups():
    """Times as fast as Transformers' export, B0, by graph, backend and size."""
    chosen = [row for row in speed_rows() if row.network == "b0" and row.to_transformers is not None]
    return {(row.name, row.backend, row.size): row.to_transformers.median for row in chosen}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_as_the_results_have_them(page):
    text = page.read_text(encoding="utf-8")
    assert text == filled(text), f"{page.name} and benchmarks/results differ: run python -m benchmarks.tables"


def test_every_table_is_on_a_page():
    asked = [name for page in PAGES for name in re.findall(r"<!-- table: ([\w-]+) -->", page.read_text("utf-8"))]
    assert sorted(asked) == sorted(TABLES)


def test_a_changed_figure_is_put_right(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    page.write_text(text.replace("ms, ", "ms, 9"), encoding="utf-8")
    monkeypatch.setattr("benchmarks.tables.ROOT", tmp_path)
    main([page])
    assert page.read_text(encoding="utf-8") == text
    assert filled("before\n<!-- table: isr -->\n<!-- end -->\nafter").startswith("before\n<!-- table: isr -->\n\n| EDA")
    with pytest.raises(KeyError, match="speeed"):
        filled("<!-- table: speeed -->\n<!-- end -->")


def test_the_front_page_quotes_what_was_measured(speedups):
    text = words("README.md")
    assert f"within {MAX_ERROR:.0e}".replace("e-0", "e-") in text  # 1e-4
    builds = rows("engines", Build)
    assert not any(build.failure for build in builds)
    assert f"{len(builds)} engines were built" in text
    large = [speedups["fast", backend, "2048x2048"] for backend in ("onnxruntime", "openvino:fp32")]
    assert (
        f"`fast` is {large[0]:.1f} times as fast as Transformers' own export on ONNX Runtime at 2048x2048, "
        f"and {large[1]:.1f} times on OpenVINO"
    ) in text
    accuracy = {row.case: row for row in rows("camvid_accuracy", CaseResult)}
    fast, original = accuracy["fast"], accuracy["original"]
    assert (
        f"at 480x360 `fast` saves {100 * (1 - fast.time_ratio):.0f} % of the time and costs "
        f"{100 * (original.mean_iou - fast.mean_iou):.1f} points of mIoU"
    ) in text
    required = [each for each in importlib.metadata.requires("sfpp") if "extra ==" not in each]
    assert f"a device needs {len(required)} required package, numpy" in text
    assert required[0].startswith("numpy")


def test_the_front_page_promises_what_the_merging_variants_reach(speedups):
    assert "with token merging two to five times as fast as a plain ONNX export at 1024x1024 and above" in words(
        "README.md"
    )
    backends = ("onnxruntime", "openvino:fp32")
    factors = [speedups[each] for each in itertools.product(MERGING, backends, SIZES)]
    assert min(factors) >= 2
    assert round(max(factors)) == 5


def test_recipes_quote_what_was_measured(speedups):
    text = words("docs/how-to.md")
    fast = [speedups["fast", backend, "1024x1024"] for backend in ("onnxruntime", "openvino:fp32")]
    assert f"{min(fast):.1f} to {max(fast):.1f} times as fast as a plain export there" in text
    found = {(row.name, row.backend): row for row in speed_rows() if row.size == "3840x2160"}
    row = found["fast:local", "openvino:bf16"]
    assert f"{row.time.p50_ms / 1e3:.1f} s per frame" in text
    assert f"in {row.peak_memory_bytes / 1e9:.1f} GB" in text


def test_calibration_quotes_what_was_measured():
    text = words("docs/calibration.md")
    plain = [each for each in content("int8") if not {"avx_vnni", "avx512f"} & set(each["machine"]["instruction_sets"])]
    int8 = [row for each in plain for row in each["results"] if row["file"] == "INT8"]
    for backend, sentence in (
        ("openvino:fp32", "INT8: {:.1f} to {:.1f} times as fast as FP32 on a CPU with AVX2 only"),
        ("onnxruntime", "then INT8: {:.1f} to {:.1f} times as fast"),
    ):
        factors = [row["to_float32"] for row in int8 if row["backend"] == backend]
        assert sentence.format(min(factors), max(factors)) in text
    lost = [row["drop"] for row in content("precision_segmentation")["results"] if row["precision"] == "int8"]
    assert f"INT8 loses {min(lost):.2f} to {max(lost):.2f} points of mIoU" in text
