import numpy as np
import pytest

from benchmarks.speed.findings import Findings
from sfpp.runtime.bench.measured_model import StageTimes
from tests.benchmarks.speed.rows import entry


def samples(*infer_ms, finish_ms=3.0):
    return [StageTimes(1.0, each, finish_ms) for each in infer_ms]


def rows_of(entries, *, peaks=None, **facts):
    rows = Findings(entries, **facts).rows(network="b0", size="640x480", peaks=peaks or {})
    return {(row.name, row.backend): row for row in rows}


ENTRIES = [
    entry("pytorch", "pytorch:fp32"),
    entry("transformers"),
    entry("transformers", "openvino:bf16"),
    entry("original"),
    entry("original", "openvino:bf16"),
    entry("fast", "openvino:bf16", multiply_adds=4_000_000),
    entry("fast:local", "openvino:bf16"),
]
TIMES = [samples(200, 400), samples(100, 200), samples(60, 80), samples(50, 50), samples(30, 20), samples(10, 40), []]


def test_each_ratio_is_to_its_own_rival_in_the_same_rounds():
    rows = rows_of(ENTRIES, samples=dict(enumerate(TIMES)))
    fast = rows["fast", "openvino:bf16"]
    assert fast.to_transformers.median == pytest.approx((60 / 10 + 80 / 40) / 2)
    assert fast.to_transformers_onnxruntime.median == pytest.approx((100 / 10 + 200 / 40) / 2)
    assert fast.to_original.median == pytest.approx((30 / 10 + 20 / 40) / 2)
    assert rows["original", "onnxruntime"].to_transformers.median == pytest.approx((100 / 50 + 200 / 50) / 2)
    eager = rows["pytorch", "pytorch:fp32"]
    assert eager.to_transformers is None
    assert eager.to_original is None
    assert eager.to_transformers_onnxruntime.median == pytest.approx(0.5)
    assert (fast.time.p50_ms, fast.labels_ms, fast.samples_ms) == (25.0, 3.0, (10, 40))


def test_who_did_not_run_has_no_times():
    row = rows_of(ENTRIES, samples=dict(enumerate(TIMES)))["fast:local", "openvino:bf16"]
    assert (row.time, row.labels_ms, row.to_transformers, row.share_of_peak) == (None, None, None, None)


def test_no_ratio_to_who_is_missing():
    entries = [entry("transformers", missing="16 GiB of scores"), entry("original"), entry("fast")]
    row = rows_of(entries, samples={1: samples(50), 2: samples(10)})["fast", "onnxruntime"]
    assert (row.to_transformers, row.to_transformers_onnxruntime) == (None, None)
    assert row.to_original.median == 5


def test_the_share_of_the_peak_is_that_of_the_backend():
    peaks = {"onnxruntime": 1e6, "openvino:bf16": 8e8}
    rows = rows_of(ENTRIES, samples=dict(enumerate(TIMES)), peaks=peaks)
    assert rows["fast", "openvino:bf16"].share_of_peak == pytest.approx(4e6 / 0.025 / 8e8)
    assert rows["original", "onnxruntime"].share_of_peak is None


LABELS = {1: b"aaaa", 3: b"aaab", 4: b"aabb", 5: b"abbb", 6: b"abba"}


@pytest.mark.parametrize(
    ("without", "reference", "expected"),
    [
        ((), "transformers on onnxruntime", {1: 1.0, 3: 0.75, 4: 0.5, 5: 0.25, 6: 0.5}),
        ((1,), "original on onnxruntime", {3: 1.0, 4: 0.75, 5: 0.5, 6: 0.25}),
        ((1, 3), None, {}),
    ],
)
def test_labels_are_compared_with_theirs_in_float32_else_with_our_original(without, reference, expected):
    labels = {index: as_labels(text) for index, text in LABELS.items() if index not in without}
    rows = list(rows_of(ENTRIES, labels=labels).values())
    assert {row.reference for row in rows} == {reference}
    assert {i: row.labels_as_reference for i, row in enumerate(rows) if row.labels_as_reference is not None} == expected


def test_a_local_variant_is_compared_with_its_exact_sibling_too():
    rows = rows_of(ENTRIES, labels={index: as_labels(text) for index, text in LABELS.items()})
    assert rows["fast:local", "openvino:bf16"].labels_as_exact == 0.75
    assert rows["fast", "openvino:bf16"].labels_as_exact is None


def as_labels(text):
    return np.frombuffer(text, np.uint8)[np.newaxis]
