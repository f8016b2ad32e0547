"""The advice follows the figures, and says them."""

from pathlib import Path

import pytest

from sfpp.calibration.recommend import recommend
from sfpp.calibration.results import FileResult, Latency
from sfpp.tooling.metrics import Accuracy


def file(precision, *times, drop=0.0, truth=True, **facts):
    """A file with its latency on backends a, b, ... and its speedup there."""
    latencies = tuple(Latency(name, p50, speedup) for name, (p50, speedup) in zip("abc", times, strict=False))
    accuracy = Accuracy(agreement=0.99, mean_iou=0.5 if truth else None)
    return FileResult(Path(f"m.{precision}.onnx"), precision, 1000, accuracy, drop, latencies, **facts)


FP32 = file("fp32", (100.0, 1.0), (40.0, 1.0))


def test_the_fastest_that_loses_little_enough_is_taken():
    fp16 = file("fp16", (50.0, 2.0), (30.0, 1.33), drop=0.02)
    int8 = file("int8", (80.0, 1.25), (20.0, 2.0), drop=0.4)
    found = recommend([FP32, fp16, int8], max_drop=None)
    assert found.precision == "int8"
    assert "FP32 at its best takes 40.0 ms (b)" in found.text
    assert "INT8 loses 0.40 points and is 2.00x as fast (20.0 ms, b)" in found.text
    assert recommend([FP32, fp16, int8], max_drop=0.3).precision == "fp16"
    assert "more than the 0.3 that it may" in recommend([FP32, fp16, int8], max_drop=0.3).text


def test_fp32_is_kept_where_nothing_is_gained():
    fp16 = file("fp16", (120.0, 0.83), (38.0, 1.05))
    int8 = file("int8", (60.0, 1.7), (90.0, 0.44))
    found = recommend([FP32, fp16, int8], max_drop=None)
    assert found.precision == "fp32"
    assert "INT8 loses nothing (less than 0.01 points) and is 0.68x as fast (60.0 ms, a)" in found.text


def test_a_gain_is_that_of_the_same_rounds():
    """Medians of a machine that was busy for one file only: 20 ms against 40, but never faster in the same round."""
    assert recommend([FP32, file("int8", (90.0, 1.1), (20.0, 1.0))], max_drop=None).precision == "fp32"


def test_without_times_it_goes_by_accuracy():
    bare = file("fp32")
    found = recommend([bare, file("fp16", drop=0.01, drop_rounded=0.05)], max_drop=None)
    assert found.precision == "fp32"
    assert found.text.startswith("Nothing was timed")
    assert "On a GPU this FP16 file would lose 0.05 points (within the limit of 0.5), at half the size." in found.text


@pytest.mark.parametrize(("drop", "word"), [(0.3, "within the limit"), (0.9, "above the limit")])
def test_fp16_on_a_gpu_is_evaluated_by_rounding(drop, word):
    assert word in recommend([FP32, file("fp16", drop=0.0, drop_rounded=drop)], max_drop=None).text


def test_without_truth_answers_are_counted():
    text = recommend([FP32, file("int8", (60.0, 1.6), drop=1.5, truth=False)], max_drop=None).text
    assert "loses 1.50 % of the predictions, more than the 0.5 that it may" in text


def test_a_backend_that_failed_does_not_count():
    failed = FileResult(Path("m"), "int8", 1, Accuracy(1.0), latencies=(Latency("a", None, None, failure="no"),))
    assert recommend([FP32, failed], max_drop=None).precision == "fp32"
